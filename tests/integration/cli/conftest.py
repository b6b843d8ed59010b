"""A real API server, a real operator on it, stand-ins for its pods, and the command line as its own process."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.cluster import RunningCluster, control_plane
from tests.support.operator_process import Fleet, OperatorProcess, fleet, make_account, wait_for
from tests.support.vector_index import make_manifest
from vectorindex_cli.__main__ import main
from vectorindex_operator.api import Json

ROOT = Path(__file__).resolve().parents[3]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    with control_plane(f"test-cli-{os.getpid()}", controllers=True) as running:
        running.kubectl("apply", "--server-side", "-f", ROOT / "crds" / "vectorindexes.yaml")
        established = ("wait", "--for=condition=Established", "crd/vectorindexes.vectorindex.dev", "--timeout=5s")
        wait_for("the definition is established", lambda: running.try_kubectl(*established).returncode == 0)
        wait_for("the kind is served and explained", lambda: running.try_kubectl("explain", "vidx").returncode == 0)
        yield running


@pytest.fixture(scope="session")
def operator(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    process = OperatorProcess(make_account(cluster, folder), folder / "operator.log")
    try:
        process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def namespace(cluster: RunningCluster) -> Iterator[str]:
    """Make a namespace for one test, and let its indexes go with the test."""
    name = f"shop-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "vidx", "--all", "-n", name)


@pytest.fixture
def read(cluster: RunningCluster, namespace: str) -> Callable[[], Json]:
    """Return the VectorIndex `docs` of the test's namespace."""
    return lambda: cluster.get("vidx", "docs", "-n", namespace)


@pytest.fixture
def serving(cluster: RunningCluster, operator: OperatorProcess, namespace: str, read: Callable[[], Json]) -> Iterator[Fleet]:
    """Provide an index whose two pods serve, proven."""
    cluster.kubectl("apply", "-f", "-", text=json.dumps(make_manifest("docs", namespace)))
    with fleet(cluster, namespace) as pods:
        pods.serve(2)
        pods.keep_reading(30, lambda: condition(read(), "Consistent") == ("True", "Proven"))
        yield pods


def condition(index: Json, kind: str) -> tuple[str, str] | None:
    """Return status and reason of the condition of this type."""
    found = [one for one in index.get("status", {}).get("conditions", []) if one["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else None


class Run(NamedTuple):
    """What a call of the command line left behind."""

    returncode: int
    stdout: str
    stderr: str


Cli = Callable[..., Run]


@pytest.fixture
def cli(cluster: RunningCluster, namespace: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line for the test's namespace, within this process: a start costs more than a call."""

    def run(*arguments: str, kubeconfig: Path | None = None) -> Run:
        capsys.readouterr()
        code = main([*arguments, "-n", namespace, "--kubeconfig", str(kubeconfig or cluster.kubeconfig)])
        return Run(code, *capsys.readouterr())

    return run


@pytest.fixture
def as_process(cluster: RunningCluster, namespace: str) -> Cli:
    """Run the command line for the test's namespace as people do."""

    def run(*arguments: str) -> Run:
        command = [sys.executable, "-m", "vectorindex_cli", *arguments, "-n", namespace]
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return Run(result.returncode, result.stdout, result.stderr)

    return run
