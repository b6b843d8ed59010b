"""Memory of the operator after very many events and looks, over real TLS: what grows with each of them ends in an eviction some day."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster
from tests.support.many import Api, background, create_indexes, path_of
from tests.support.operator_process import OperatorProcess, wait_for
from vectorindex_operator import names

INDEXES = 20
WARM_UP = 2_000
GROWTH = 1.5  # MiB for 10,000 looks: a leak of 160 bytes a look is seen


def read_memory(process: OperatorProcess) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.parametrize("looks", [pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_memory_does_not_grow_with_the_number_of_events(
    cluster: RunningCluster, operator: OperatorProcess, namespace: str, looks: int
) -> None:
    async def touch(bare: Api, value: int) -> None:
        """Change every index so that each of them is looked at, and nothing follows from it."""
        path = path_of(names.KIND, namespace)
        patch = {"metadata": {"annotations": {"example.com/touched": str(value)}}}
        paths = (f"{path}/docs-{number:04}" for number in range(INDEXES))
        await asyncio.gather(*(bare.send("PATCH", one, patch, "application/merge-patch+json") for one in paths))

    def count() -> float:
        return operator.metric("vectorindex_operator_reconciles_total") or 0

    with background() as loop:
        bare = loop.run(Api(cluster.kubeconfig).__aenter__())
        loop.run(create_indexes(bare, namespace, INDEXES))
        start, value = count(), 0

        def run_until(total: int) -> None:
            nonlocal value
            while count() - start < total:
                value += 1
                loop.run(touch(bare, value))

        run_until(WARM_UP)
        before = read_memory(operator)
        run_until(WARM_UP + looks)
        wait_for("the queue is empty", lambda: operator.metric("vectorindex_operator_queue_length") == 0)
        growth = (read_memory(operator) - before) / (looks / 10_000)
        loop.run(bare.__aexit__(None, None, None))
    assert growth < GROWTH, f"{growth:.2f} MiB for 10,000 looks, at {before:.0f} MiB"
