"""The way to the API server breaks or goes silent: the operator stays alive, and catches up by itself."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cluster import RunningCluster
from tests.support.gate import Gate, gate
from tests.support.operator_process import OperatorProcess, make_account, wait_for
from vectorindex_operator.api import Json

Apply = Callable[..., None]


@dataclass(frozen=True)
class Gated:
    """An operator whose only way to the API server leads through a gate."""

    process: OperatorProcess
    gate: Gate


@pytest.fixture
def gated(cluster: RunningCluster, operator: OperatorProcess, tmp_path: Path) -> Iterator[Gated]:
    """Run an operator behind a gate; that of the other tests rests meanwhile."""
    path = make_account(cluster, tmp_path)
    config = json.loads(path.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    with gate(server.hostname or "", server.port or 443) as opening:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{opening.port}"
        path.write_text(json.dumps(config))
        assert operator.stop() == 0
        process = OperatorProcess(path, tmp_path / "operator.log")
        try:
            process.start()
            yield Gated(process, opening)
            assert process.stop() == 0
        finally:
            operator.start()


def statefulset(cluster: RunningCluster, namespace: str, name: str = "docs") -> Json:
    found = cluster.get("statefulset", "-n", namespace, "-l", f"vectorindex.dev/index={name}")["items"]
    return found[0] if found else {}


# kopf gives up after 54 s unless told otherwise.
@pytest.mark.parametrize("seconds", [10, *(pytest.param(seconds, marks=pytest.mark.slow) for seconds in (75, 600))])
def test_an_api_server_that_was_away_is_caught_up_with(
    cluster: RunningCluster, gated: Gated, namespace: str, apply: Apply, seconds: int
) -> None:
    apply()
    wait_for("the index has its pods", lambda: statefulset(cluster, namespace))
    gated.gate.shut()
    cluster.kubectl("delete", "service", "docs-index", "-n", namespace)
    apply("more")
    apply(replicas=3)
    time.sleep(seconds)
    assert gated.process.answers("/livez")
    assert not statefulset(cluster, namespace, "more")
    gated.gate.open()
    wait_for("the new index has its pods", lambda: statefulset(cluster, namespace, "more"), 40)
    wait_for("the other is scaled", lambda: statefulset(cluster, namespace)["spec"]["replicas"] == 3, 40)
    wait_for("the lost object is back", lambda: cluster.try_kubectl("get", "service", "docs-index", "-n", namespace).returncode == 0, 40)
    assert gated.process.metric("vectorindex_operator_watch_restarts_total") == 0


@pytest.mark.slow
def test_streams_that_went_silent_are_noticed(cluster: RunningCluster, gated: Gated, namespace: str, apply: Apply) -> None:
    apply()
    wait_for("the index has its pods", lambda: statefulset(cluster, namespace))
    time.sleep(10)  # at rest nothing but the streams can tell it that something changed
    assert gated.gate.silence() >= 7  # a stream for each kind
    apply(replicas=3)
    time.sleep(5)
    assert statefulset(cluster, namespace)["spec"]["replicas"] == 2
    wait_for("the change is seen", lambda: statefulset(cluster, namespace)["spec"]["replicas"] == 3, 90)
