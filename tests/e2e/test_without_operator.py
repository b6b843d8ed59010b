"""Without an operator, replicas repair themselves and deletions end; when it comes back it tells the story, and makes nothing anew."""

import pytest

from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.report import wait_until
from examples.wordnet.steps.searching import watching
from examples.wordnet.steps.story import Done
from examples.wordnet.steps.world import INDEX, SEARCH, World
from tests.support import scenes
from tests.support.scenes import LEAVING

ORPHAN = "orphan"
KINDS = (
    "vectorindexes,statefulsets,controllerrevisions,pods,services,endpointslices,"
    "configmaps,poddisruptionbudgets,networkpolicies,persistentvolumeclaims"
)


def objects_of(scene: World, index: str, namespace: str) -> list[str]:
    """Return kind and name of all that belongs to an index: what bears its label, and what bears its name."""
    labelled = scene.kubernetes.kubectl(
        "get", KINDS, f"--namespace={namespace}", f"--selector=vectorindex.dev/index={index}", "--ignore-not-found", "--output=name"
    )
    named = scene.kubernetes.kubectl("get", KINDS, f"--namespace={namespace}", "--ignore-not-found", "--output=name")
    return sorted({*labelled.split(), *(name for name in named.split() if f"/{index}-index" in name or f"/data-{index}-index" in name)})


@pytest.mark.usefixtures("index")
def test_pods_repair_themselves_while_no_operator_runs_and_the_status_tells_it_afterwards(scene: World, done: Done) -> None:
    attack = next(attack for attack in story.ATTACKS if attack.kind == "index-only")
    pod = f"{INDEX}-index-{attack.pod}"
    before = scenes.status_of(scene, INDEX)
    uid = scenes.uid_of(scene, f"vidx/{INDEX}")
    queries, dead = story.make_queries(scene)
    with watching(scene, queries, dead) as watch:
        with scenes.without_operator(scene):
            story.heal_alone(scene, done, attack)
            wait_until(f"{pod} to be ready", lambda: scenes.is_ready(scene, pod), 30)
            assert scenes.status_of(scene, INDEX) == before, "somebody wrote the status while no operator ran"
        story.wait_for_all(scene, INDEX, replicas=2)
    story.check_watch(watch)

    def told() -> list[dict[str, object]] | None:
        repairs = scenes.status_of(scene, INDEX).get("lastRepairs", [])
        return [repair for repair in repairs if repair["pod"] == pod and repair not in before.get("lastRepairs", [])]

    (repair,) = wait_until("the repair to be told", told, 30) or []
    assert (repair["trigger"], repair["result"]) == ("load", "repaired")
    assert repair["drift"] == done.drift[pod]
    assert repair["sampleIds"]
    events = [event for event in scenes.events_of(scene, uid) if event["reason"] == "Repaired" and pod in event["message"]]
    counts = ", ".join(f"{count} {kind}" for kind, count in done.drift[pod].items() if count)
    assert any(event["message"].endswith(f"found {counts}") for event in events)
    (member,) = [member for member in scenes.status_of(scene, INDEX)["members"] if member["pod"] == pod]
    document = members.status(scene, pod)
    assert (member["podUid"], member["state"]) == (document["identity"]["podUid"], "Serving")


@pytest.mark.usefixtures("index")
def test_index_deleted_while_no_operator_runs_goes_with_all_that_was_its_own(scene: World) -> None:
    scenes.make_table(scene, ORPHAN)
    scenes.serve(scene, scenes.small_index(ORPHAN, storage={"size": "1Gi"}))
    assert {name.partition("/")[0].partition(".")[0] for name in objects_of(scene, ORPHAN, SEARCH)} >= {
        *("statefulset", "pod", "service", "configmap", "poddisruptionbudget", "networkpolicy", "persistentvolumeclaim")
    }
    with scenes.without_operator(scene):
        scene.kubernetes.kubectl("delete", "vidx", ORPHAN, f"--namespace={SEARCH}", "--timeout=10s")  # nothing holds it
        wait_until("all of it to be gone", lambda: not objects_of(scene, ORPHAN, SEARCH), 60)
    scenes.see_a_look(scene)
    assert not objects_of(scene, ORPHAN, SEARCH), "the operator made something of an index that is gone"


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_namespace_deleted_while_no_operator_runs_ends(scene: World) -> None:
    scenes.make_table(scene, LEAVING)
    manifest = scenes.small_index(LEAVING, replicas=1, storage={"size": "1Gi"})
    manifest["spec"]["source"]["postgres"]["host"] = f"postgres.{SEARCH}.svc.cluster.local"
    scenes.copy_credentials(scene, LEAVING)
    scene.kubernetes.apply(manifest, namespace=LEAVING)
    condition = ("--for=condition=Ready", "--timeout=60s")
    scene.kubernetes.kubectl("wait", f"vidx/{LEAVING}", f"--namespace={LEAVING}", *condition, timeout_seconds=70)
    try:
        with scenes.without_operator(scene):
            scene.kubernetes.kubectl("delete", "namespace", LEAVING, "--timeout=60s", timeout_seconds=70)
        scenes.see_a_look(scene)  # that a namespace to watch is missing hinders no other
    finally:
        scenes.make_leaving_namespace(scene)
        world.install_operator(scene, *scenes.operator_values(scene))  # its rights went with the namespace
