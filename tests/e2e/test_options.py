"""What the resource offers beyond the main job does something: storage, NetworkPolicy, wishes, suspend, another index type."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from examples.wordnet.load import MODEL
from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError, wait_until
from examples.wordnet.steps.searching import search, search_url
from examples.wordnet.steps.world import CLIENT, INDEX, SEARCH, World

KEPT = "kept"
OTHER = "elsewhere"

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture(scope="module")
def kept(scene: World) -> Iterator[str]:
    """An index of one replica with a volume of its own, searched exactly by distance."""
    manifest = copy.deepcopy(world.index_manifest())
    manifest["metadata"]["name"] = KEPT
    manifest["spec"] |= {
        "replicas": 1,
        "index": {"dimension": 384, "metric": "L2", "type": "Flat"},
        "storage": {"size": "1Gi"},
        "pod": {"resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}},
    }
    scene.kubernetes.apply(manifest, namespace=SEARCH)
    world.wait_for_condition(scene, KEPT, "Consistent", 90)
    yield f"{KEPT}-index-0"
    world.delete_index(scene, KEPT)


def annotate(scene: World, wish: str, moment: datetime) -> str:
    text = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    scene.kubernetes.kubectl("annotate", "vidx", KEPT, f"--namespace={SEARCH}", "--overwrite", f"vectorindex.dev/{wish}={text}")
    return text


def status_of(scene: World) -> Manifest:
    found: Manifest = scene.kubernetes.get("vidx", KEPT, f"--namespace={SEARCH}")["status"]
    return found


def test_a_volume_keeps_the_index_when_its_pod_is_replaced(scene: World, kept: str) -> None:
    wait_until("the index to be saved", lambda: story.is_saved(scene, kept), 45)
    former = scene.kubernetes.get("pod", kept, f"--namespace={SEARCH}")["metadata"]["uid"]
    scene.kubernetes.kubectl("delete", "pod", kept, f"--namespace={SEARCH}", timeout_seconds=90)

    def loaded() -> bool:
        pod = scene.kubernetes.get("pod", kept, f"--namespace={SEARCH}")
        return bool(pod["metadata"]["uid"] != former) and bool(members.status(scene, kept)["proven"])

    wait_until("the new pod to prove the kept index", loaded, 90)
    loads = members.metrics(scene, kept).counts("vectorindex_saved_index_loads_total", "result")
    assert {result: count for result, count in loads.items() if count} == {"loaded": 1}
    assert members.status(scene, kept)["view"]["generation"] == 1


def test_scores_of_a_flat_index_by_distance_are_exact(scene: World, kept: str) -> None:
    live = scene.upstream.live()
    # Its only pod was replaced a moment ago: the Service may still lead to the former one.
    hits = wait_until("an answer through the Service", lambda: search(scene, live.vectors[:20], k=1, url=search_url(KEPT)), 30)
    assert hits.ids[:, 0].tolist() == live.ids[:20].tolist()
    assert abs(hits.scores[:, 0]).max() < 1e-5


def test_a_wish_to_validate_is_answered_and_echoed(scene: World, kept: str) -> None:
    text = annotate(scene, "validate-requested-at", datetime.now(UTC) - timedelta(seconds=1))
    wait_until("the echo", lambda: status_of(scene).get("validateRequestedAt") == text, 60)


def test_a_rebuild_asked_for_shows_how_far_it_is_and_gives_a_new_generation(scene: World, kept: str) -> None:
    command = [sys.executable, "-m", "vectorindex_cli", "rebuild", KEPT, "-n", SEARCH, "--wait", "--timeout", "60"]
    result = subprocess.run(command, env=scene.kubernetes.environment, capture_output=True, text=True, timeout=120, check=False)
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert lines[0].startswith(f"0 of 1 replicas rebuilt ({kept}: ")
    assert lines[-2:] == ["1 of 1 replicas rebuilt", lines[-1]]
    assert lines[-1].startswith(f"{SEARCH}/{KEPT}: consistent, Proven")
    assert members.status(scene, kept)["view"]["generation"] == 2
    assert "progress" not in status_of(scene)["members"][0]


def test_while_suspended_changes_wait_and_consistent_says_so(scene: World, kept: str) -> None:
    def patch(suspend: bool) -> None:
        body = f'{{"spec": {{"suspend": {str(suspend).lower()}}}}}'
        scene.kubernetes.kubectl("patch", "vidx", KEPT, f"--namespace={SEARCH}", "--type=merge", f"--patch={body}")

    patch(True)
    wait_until("the pod to know", lambda: members.status(scene, kept)["suspended"], 60)
    rows = members.status(scene, kept)["view"]["rows"]
    gone = int(scene.upstream.live().ids[77])
    scene.upstream.execute("DELETE FROM embeddings WHERE entity_id = %s AND model_name = %s", gone, MODEL)
    wait_until("Consistent to be False", lambda: world.conditions(scene, KEPT)["Consistent"]["status"] == "False", 60)
    assert world.conditions(scene, KEPT)["Consistent"]["reason"] == "Suspended"
    assert members.status(scene, kept)["view"]["rows"] == rows

    patch(False)
    world.wait_for_condition(scene, KEPT, "Consistent", 60)
    assert members.status(scene, kept)["view"]["rows"] == rows - 1


def test_only_pods_of_the_own_namespace_may_search(scene: World) -> None:
    """The default NetworkPolicy, enforced: the same client is answered here and not from elsewhere."""
    assert search(scene, scene.upstream.live().vectors[:1]).proven
    world.make_namespace(scene, OTHER)
    world.start_client(scene, OTHER)
    try:
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4)"
        host = f"{INDEX}-index.{SEARCH}.svc.cluster.local"
        scene.kubernetes.execute(SEARCH, CLIENT, "python3", "-c", code, host, "8080")
        with pytest.raises(StepError, match=r"timed out|refused|unreachable"):
            scene.kubernetes.execute(OTHER, CLIENT, "python3", "-c", code, host, "8080")
    finally:
        scene.kubernetes.kubectl("delete", "namespace", OTHER, "--wait=false")
