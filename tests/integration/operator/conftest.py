"""A real API server with controllers, and one real operator on it, for all tests of this folder."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.api_proxy import ApiProxy, api_proxy
from tests.support.cluster import RunningCluster, control_plane
from tests.support.operator_process import Fleet, OperatorProcess, fleet, make_account, wait_for
from tests.support.vector_index import make_manifest
from vectorindex_operator.api import Json

ROOT = Path(__file__).resolve().parents[3]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    with control_plane(controllers=True) as running:
        running.kubectl("apply", "--server-side", "-f", ROOT / "crds" / "vectorindexes.yaml")
        # `kubectl wait` itself fails while a definition has no condition at all yet
        established = ("wait", "--for=condition=Established", "crd/vectorindexes.vectorindex.dev", "--timeout=5s")
        wait_for("the definition is established", lambda: running.try_kubectl(*established).returncode == 0)
        wait_for("the kind is served and explained", lambda: running.try_kubectl("explain", "vidx").returncode == 0)
        yield running


@pytest.fixture(scope="session")
def operator(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    process = OperatorProcess(make_account(cluster, folder), folder / "operator.log")
    process.start()
    yield process
    assert process.stop() == 0
    log = process.log.read_text()
    assert "Traceback" not in log, log[-4000:]
    assert "a defect of the operator" not in log


@dataclass(frozen=True)
class Proxied:
    """An operator whose only way to the API server leads through a proxy."""

    process: OperatorProcess
    proxy: ApiProxy


@pytest.fixture(scope="module")
def proxied(cluster: RunningCluster, operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Run an operator behind a proxy; that of the other tests rests meanwhile."""
    folder = tmp_path_factory.mktemp("proxied")
    account = make_account(cluster, folder)
    assert operator.stop() == 0
    with api_proxy(account, folder) as proxy:
        process = OperatorProcess(proxy.wrap(account), folder / "operator.log")
        try:
            process.start()
            yield Proxied(process, proxy)
            assert process.stop() == 0
        finally:
            process.kill()
            operator.start()


@pytest.fixture
def namespace(cluster: RunningCluster) -> Iterator[str]:
    """Make a namespace for one test, and let its indexes go with the test."""
    name = f"search-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "vidx", "--all", "-n", name)


@pytest.fixture
def apply(cluster: RunningCluster, namespace: str) -> Callable[..., None]:
    """Apply a small manifest with this spec in the test's namespace."""

    def apply_manifest(name: str = "docs", **spec: object) -> None:
        manifest = make_manifest(name, namespace, **spec)
        cluster.kubectl("apply", "-f", "-", text=json.dumps(manifest))

    return apply_manifest


@pytest.fixture
def pods(cluster: RunningCluster, namespace: str) -> Iterator[Fleet]:
    with fleet(cluster, namespace) as members:
        yield members


@pytest.fixture
def read(cluster: RunningCluster, namespace: str) -> Callable[[], Json]:
    """Return the VectorIndex `docs` of the test's namespace."""
    return lambda: cluster.get("vidx", "docs", "-n", namespace)
