"""An operator that is newer than the definition, as where an administrator applies that apart: what it declares is told all the same."""

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import RunningCluster, control_plane
from tests.support.operator_process import wait_for
from tests.support.vector_index import make_manifest
from vectorindex_operator import api, names
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.fence import Fence

ROOT = Path(__file__).resolve().parents[3]
MEMBER = api.Member(
    pod="docs-index-0",
    pod_uid="00000000-0000-0000-0000-000000000001",
    state="Serving",
    drift=api.Drift(ghost=2),
    drift_samples=api.DriftSamples(ghost=["7", "8"]),
    progress=api.Progress(4, 10, 20),
)


@pytest.fixture(scope="module")
def older() -> Iterator[RunningCluster]:
    """Run an API server whose definition lacks fields of different depth."""
    definition = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    member = status["members"]["items"]["properties"]
    del status["approvedPlans"], member["driftSamples"], member["progress"]
    with control_plane(f"test-older-definition-{os.getpid()}") as running:
        running.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(definition))
        wait_for("the kind is served", lambda: running.try_kubectl("get", "vidx").returncode == 0)
        running.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", "default")))
        yield running


def test_what_an_older_definition_declares_is_told_and_the_rest_named_once(
    older: RunningCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(older.kubeconfig))

    async def write(*statuses: api.Status) -> None:
        fence = Fence()
        fence.open_for_ever()
        async with Cluster(fence) as cluster:
            for status in statuses:
                index = api.parse_vector_index(await cluster.read(names.KIND, "default", "docs") or {})
                await cluster.apply_status(index, status)

    with caplog.at_level(logging.ERROR):
        asyncio.run(write(*(api.Status(observed_generation=one, members=[MEMBER], approved_plans=["0" * 16]) for one in (1, 2))))
    stored = older.get("vidx", "docs", "-n", "default")["status"]
    assert stored["observedGeneration"] == 2
    (member,) = stored["members"]
    assert (member["pod"], member["drift"]["ghost"], set(member)) == (MEMBER.pod, 2, {"pod", "podUid", "state", "drift"})
    named = sorted(record.getMessage().rpartition("field=")[2] for record in caplog.records)
    assert named == ["status.approvedPlans", "status.members.driftSamples", "status.members.progress"]
