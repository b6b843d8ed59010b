"""An operator with another indexer image: one index gets it after the other, each only when the one before is well with it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import RunningCluster
from tests.support.operator_process import IMAGE, Fleet, OperatorProcess, fleet, make_account, wait_for

NEW_IMAGE = "registry.example/indexer:2"
NAMES = ("first", "second")


@pytest.fixture
def update(cluster: RunningCluster, operator: OperatorProcess, tmp_path: Path) -> Iterator[Callable[[], OperatorProcess]]:
    """Replace the operator by its next version; the former one comes back at the end."""
    following = OperatorProcess(make_account(cluster, tmp_path), tmp_path / "operator.log", VECTORINDEX_INDEXER_IMAGE=NEW_IMAGE)

    def replace() -> OperatorProcess:
        assert operator.stop() == 0
        following.start()
        return following

    yield replace
    assert following.stop() == 0
    operator.start()


@pytest.fixture
def fleets(cluster: RunningCluster, namespace: str) -> Iterator[dict[str, Fleet]]:
    with fleet(cluster, namespace, NAMES[0]) as first, fleet(cluster, namespace, NAMES[1]) as second:
        yield dict(zip(NAMES, (first, second), strict=True))


def test_indexes_get_another_image_one_by_one(
    cluster: RunningCluster, update: Callable[[], OperatorProcess], namespace: str, fleets: dict[str, Fleet], apply: Callable[..., None]
) -> None:
    def images() -> dict[str, str]:
        found = cluster.get("statefulset", "-n", namespace)["items"]
        return {
            one["metadata"]["labels"]["vectorindex.dev/index"]: one["spec"]["template"]["spec"]["containers"][0]["image"] for one in found
        }

    def is_ready(name: str) -> bool:
        status = cluster.get("vidx", name, "-n", namespace)["status"]
        return status.get("readyReplicas") == 1 and "lastProven" in fleets[name].read_live()

    for name in NAMES:
        apply(name, replicas=1)
        fleets[name].serve(1)
    wait_for("both serve", lambda: {is_ready(name) for name in NAMES} == {True})
    updated = update()
    wait_for("the first has it", lambda: images() == {"first": NEW_IMAGE, "second": IMAGE})
    cluster.kubectl("annotate", "vidx", "second", "-n", namespace, "vectorindex.dev/validate-requested-at=2026-11-25T09:00:00Z")
    time.sleep(5)  # two looks at the second one: nothing lets it go on while the first has no ready pod
    assert images() == {"first": NEW_IMAGE, "second": IMAGE}
    assert updated.metric("vectorindex_operator_waiting_for_image") == 1
    assert fleets["second"].read_live()["wishes"]["validateRequestedAt"]  # else it is looked after as ever
    wait_for("the pod is replaced", lambda: [pod["spec"]["containers"][0]["image"] for pod in fleets["first"].pods()] == [NEW_IMAGE])
    fleets["first"].serve(1)
    wait_for("the second has it", lambda: images() == dict.fromkeys(NAMES, NEW_IMAGE))
    wait_for("nobody waits", lambda: updated.metric("vectorindex_operator_waiting_for_image") == 0)
