"""One cluster, operator and Postgres for all end-to-end tests; when a test fails, what Kubernetes knows of it goes into the report."""

import os
from collections.abc import Generator, Iterator

import pytest

from examples.wordnet.steps import story, world
from examples.wordnet.steps.kubernetes import Kubernetes
from examples.wordnet.steps.story import Done
from examples.wordnet.steps.world import World
from tests.support import scenes
from tests.support.cluster import node_cluster

CLUSTER = f"test-main-{os.getpid()}"  # so that two runs on one machine don't end each other's


@pytest.fixture(scope="session")
def scene(request: pytest.FixtureRequest) -> Iterator[World]:
    """Everything but the VectorIndex. The operator has rights in two namespaces only; the demo's has them everywhere."""
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
        scenes.make_leaving_namespace(scene)
        story.set_up(scene, *scenes.operator_values(scene))
        yield scene
    finally:
        scene.close()


@pytest.fixture(scope="session")
def index(scene: World) -> float:
    """The VectorIndex of the example, served and proven: the seconds from apply to Ready."""
    return story.serve(scene)


@pytest.fixture(scope="session")
def done() -> Done:
    """What tests did to the replicas on purpose."""
    return Done()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What searches for passwords comes last, when everything has happened that could have told them."""
    items.sort(key=lambda item: item.path.name == "test_secrets.py")


SCENE = pytest.StashKey[World]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    scene = item.config.stash.get(SCENE, None)
    if report.failed and scene is not None and "e2e" in item.path.parts:
        report.sections.extend(world.describe_failure(scene))
    return report
