"""One cluster, operator and Postgres for all end-to-end tests; when a test fails, what Kubernetes knows of it goes into the report."""

import os
from collections.abc import Generator, Iterator

import pytest

from examples.wordnet.steps import story, world
from examples.wordnet.steps.kubernetes import Kubernetes
from examples.wordnet.steps.story import Done
from examples.wordnet.steps.world import SEARCH, World
from tests.support.cluster import node_cluster

CLUSTER = "test-main"


@pytest.fixture(scope="session")
def scene(request: pytest.FixtureRequest) -> Iterator[World]:
    """Everything but the VectorIndex. The operator has rights in one namespace only; the demo's has them everywhere."""
    if os.environ.get("CLUSTER") == "external":
        yield from prepared(request, world.open_external())
        return
    images = world.build_images()
    with node_cluster(CLUSTER) as running:
        world.load_images(CLUSTER, images)
        yield from prepared(request, World(CLUSTER, Kubernetes(running.program("kubectl").parent, running.kubeconfig), images))


def prepared(request: pytest.FixtureRequest, scene: World) -> Iterator[World]:
    request.config.stash[SCENE] = scene
    try:
        story.set_up(scene, f"watchNamespaces={{{SEARCH}}}", f"networkPolicy.apiServerCIDRs={{{','.join(api_server_ranges(scene))}}}")
        yield scene
    finally:
        scene.close()


def api_server_ranges(scene: World) -> list[str]:
    """Return where the API server is: its Service and the endpoints behind it, as whoever installs the chart would look it up."""
    ask = scene.kubernetes.get
    slices = scene.kubernetes.items("endpointslices", "--namespace=default", "--selector=kubernetes.io/service-name=kubernetes")
    endpoints = [address for part in slices for endpoint in part["endpoints"] for address in endpoint["addresses"]]
    addresses = [*ask("service", "kubernetes", "--namespace=default")["spec"]["clusterIPs"], *endpoints]
    return [f"{address}/{128 if ':' in address else 32}" for address in addresses]


@pytest.fixture(scope="session")
def index(scene: World) -> float:
    """The VectorIndex of the example, served and proven: the seconds from apply to Ready."""
    return story.serve(scene)


@pytest.fixture(scope="session")
def done() -> Done:
    """What tests did to the replicas on purpose."""
    return Done()


SCENE = pytest.StashKey[World]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    scene = item.config.stash.get(SCENE, None)
    if report.failed and scene is not None and "e2e" in item.path.parts:
        report.sections.extend(world.describe_failure(scene))
    return report
