"""What happens to pods and objects of an index happens without a lost search."""

import pytest

from examples.wordnet.steps import story, world
from examples.wordnet.steps.report import wait_until
from examples.wordnet.steps.searching import watching
from examples.wordnet.steps.world import INDEX, SEARCH, World

pytestmark = pytest.mark.usefixtures("index")

CHILDREN = (
    f"statefulset/{INDEX}-index",
    f"service/{INDEX}-index",
    f"service/{INDEX}-index-members",
    f"configmap/{INDEX}-index",
    f"poddisruptionbudget/{INDEX}-index",
    f"networkpolicy/{INDEX}-index",
)


def uid(scene: World, child: str) -> str | None:
    found = scene.kubernetes.kubectl("get", child, f"--namespace={SEARCH}", "--ignore-not-found", "--output=jsonpath={.metadata.uid}")
    return found or None


@pytest.mark.parametrize("child", CHILDREN)
def test_deleted_child_is_made_again(scene: World, child: str) -> None:
    former = uid(scene, child)
    assert former
    scene.kubernetes.kubectl("delete", child, f"--namespace={SEARCH}", "--wait=false")
    wait_until(f"another {child}", lambda: uid(scene, child) not in (None, former), 30)
    world.wait_for_condition(scene, INDEX, "Ready", 90)
    story.wait_for_all(scene, INDEX, replicas=2)


def test_no_search_fails_when_one_of_two_replicas_is_deleted(scene: World) -> None:
    queries, dead = story.make_queries(scene)
    with watching(scene, queries, dead) as watch:
        former = uid(scene, f"pod/{INDEX}-index-0")
        scene.kubernetes.kubectl("delete", "pod", f"{INDEX}-index-0", f"--namespace={SEARCH}", "--wait=false")
        wait_until("another pod", lambda: uid(scene, f"pod/{INDEX}-index-0") not in (None, former), 60)
        world.wait_for_condition(scene, INDEX, "Ready", 90)
        story.wait_for_all(scene, INDEX, replicas=2)
    story.check_watch(watch)


def test_scaling_by_kubectl_changes_the_number_of_replicas(scene: World) -> None:
    for replicas in (3, 2):
        scene.kubernetes.kubectl("scale", "vidx", INDEX, f"--replicas={replicas}", f"--namespace={SEARCH}")
        wait_until(f"{replicas} pods", lambda: len(world.pods_of(scene, INDEX)) == replicas, 60)  # noqa: B023  called at once
        story.wait_for_all(scene, INDEX, replicas=replicas)


def test_fields_are_explained(scene: World) -> None:
    for path, fields in (("vidx.spec.source", ("postgres", "tombstone")), ("vidx.status", ("conditions", "members"))):
        text = scene.kubernetes.kubectl("explain", path)
        assert "DESCRIPTION:" in text
        assert "<empty>" not in text
        for field in fields:
            assert field in text
