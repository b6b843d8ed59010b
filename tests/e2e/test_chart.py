"""An upgrade of the chart that changes no indexer image touches no index pod, and `helm test` sees operators and an index."""

import pytest

from examples.wordnet.steps import world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError
from examples.wordnet.steps.world import CHART, INDEX, RELEASE, SEARCH, SYSTEM, World

pytestmark = pytest.mark.usefixtures("index")
HELM = (f"--namespace={SYSTEM}",)


def upgrade(scene: World, *settings: str) -> None:
    chosen = [f"--set={setting}" for setting in settings]
    command = ("upgrade", RELEASE, str(CHART), *HELM, "--reset-then-reuse-values", "--wait", "--timeout=120s", *chosen)
    scene.kubernetes.helm(*command)


def lives(pods: list[Manifest]) -> set[tuple[str, int]]:
    """Return UID and restarts of each pod: what changes with a new life of it."""
    return {(pod["metadata"]["uid"], status["restartCount"]) for pod in pods for status in pod["status"]["containerStatuses"]}


def test_an_upgrade_with_the_same_indexer_image_restarts_operators_only(scene: World) -> None:
    pods, operators = lives(world.pods_of(scene, INDEX)), set(world.operators(scene))
    assert len(pods) == 2
    upgrade(scene, "podAnnotations.upgraded=yes")
    assert not operators & set(world.operators(scene))
    scene.kubernetes.kubectl("annotate", "vidx", INDEX, f"--namespace={SEARCH}", "upgraded=yes")  # the new operator looks at it for sure
    world.wait_for_condition(scene, INDEX, "Consistent")
    assert lives(world.pods_of(scene, INDEX)) == pods


def test_helm_test_looks_at_the_operators_and_searches_where_it_is_told(scene: World) -> None:
    upgrade(scene, f"test.index={INDEX}", f"test.namespace={SEARCH}")
    scene.kubernetes.helm("test", RELEASE, *HELM, "--timeout=120s")
    said = scene.kubernetes.kubectl("logs", f"--namespace={SYSTEM}", f"{RELEASE}-test-operator")
    assert "2 operators are ready, one acts; VectorIndexes: " in said
    assert f"{SEARCH}/{INDEX}: Ready is True" in said
    found = scene.kubernetes.kubectl("logs", f"--namespace={SEARCH}", f"{RELEASE}-test-search")
    assert f"{INDEX} answered for 384 dimensions, proven as of " in found


@pytest.mark.slow  # it tries for half a minute; tests/contract has the short form
def test_helm_test_fails_for_an_index_that_is_not_there(scene: World) -> None:
    upgrade(scene, "test.index=nowhere", f"test.namespace={SEARCH}")
    with pytest.raises(StepError):
        scene.kubernetes.helm("test", RELEASE, *HELM, f"--filter=name={RELEASE}-test-search", "--timeout=120s")
