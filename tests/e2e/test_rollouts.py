"""Pods are replaced one by one, each only once its successor has proven itself, and no search notices."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from examples.wordnet.load import MODEL
from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.report import detail, expect, wait_until
from examples.wordnet.steps.searching import Watch, search, search_url, watching
from examples.wordnet.steps.world import INDEX, SEARCH, World
from tests.support import scenes

PODS = (f"{INDEX}-index-0", f"{INDEX}-index-1")
STATEFUL_SET = f"statefulset/{INDEX}-index"
WRONG_KEY = f"{MODEL}:int8"
CONNECTIONS = 4

pytestmark = pytest.mark.usefixtures("index")


@pytest.fixture
def kept(scene: World) -> Iterator[Watch]:
    """Searches over connections that are kept, as long as the test runs; none may fail."""
    story.wait_for_all(scene, INDEX, replicas=2)
    queries, dead = story.make_queries(scene)
    with watching(scene, queries, dead, kept=CONNECTIONS) as watch:
        yield watch
    story.check_watch(watch)
    assert watch.opened < watch.answered / 10  # else they were not kept
    detail(f"{watch.answered} searches over {watch.opened} connections, {watch.failed} failed, slowest {watch.slowest_seconds:.2f} s")


def pod_uids(scene: World) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in world.pods_of(scene, INDEX)}


@pytest.mark.usefixtures("kept")
def test_no_search_over_kept_connections_fails_in_a_rolling_restart(scene: World) -> None:
    former = pod_uids(scene)
    scene.kubernetes.kubectl("rollout", "restart", STATEFUL_SET, f"--namespace={SEARCH}")
    scene.kubernetes.kubectl("rollout", "status", STATEFUL_SET, f"--namespace={SEARCH}", "--timeout=120s", timeout_seconds=130)
    story.wait_for_all(scene, INDEX, replicas=2)
    assert pod_uids(scene).keys() == former.keys()
    assert not set(pod_uids(scene).values()) & set(former.values())
    # The operator leaves alone what others wrote into the template: its own next look must not start another rollout.
    wait_until("the status to follow", lambda: "Reconciling" not in world.conditions(scene, INDEX), 30)


@pytest.mark.usefixtures("kept")
def test_no_search_over_kept_connections_fails_while_pods_are_evicted_one_after_the_other(scene: World) -> None:
    refused = 0
    for pod in PODS:
        former = scenes.uid_of(scene, f"pod/{pod}")
        deadline = time.monotonic() + 90
        while not scenes.evict(scene, pod):
            refused += 1
            # Refused: so it is that the other's successor serves not yet, and granted as soon as it does.
            assert time.monotonic() < deadline, f"{pod} was never evicted"
            time.sleep(0.5)  # as a drain waits before it asks again
        others = [other for other in PODS if other != pod]
        assert all(scenes.is_ready(scene, other) for other in others), f"{pod} was evicted while {others} did not serve"
        assert not scenes.evict(scene, others[0]), f"{others[0]} was evicted while {pod} was just leaving"
        wait_until(f"another {pod}", lambda: scenes.uid_of(scene, f"pod/{pod}") not in ("", former), 60)  # noqa: B023  called at once
    assert refused, "the second eviction had to be refused until the first pod's successor served"
    story.wait_for_all(scene, INDEX, replicas=2)


@pytest.mark.usefixtures("kept")
def test_rollout_that_never_proves_stops_at_one_pod_and_its_correction_goes_through(scene: World) -> None:
    former = pod_uids(scene)
    scenes.patch(scene, INDEX, {"source": {"model": WRONG_KEY}})

    def stopped() -> str:
        uids = pod_uids(scene)
        replaced = [pod for pod in PODS if uids.get(pod) not in (None, former[pod])]
        expect(len(replaced) == 1, f"expected one pod to be replaced, got {replaced}")
        document = members.status(scene, replaced[0])
        expect(document["proof"]["reason"] == "ModelKeyNotFound", f"{replaced[0]}: {document['proof']}")
        return replaced[0]

    broken = wait_until("one pod to find that the key is wrong", stopped, 60)
    number = next(number for number, pod in enumerate(PODS) if pod != broken)

    def told() -> bool:
        found = world.conditions(scene, INDEX)
        seen = {kind: (one["status"], one["reason"]) for kind, one in found.items()}
        expect(seen.get("Reconciling") == ("True", "RollingOut"), f"{found}")
        expect(seen["Ready"] == ("True", "Degraded"), f"{found}")
        expect(broken in found["Ready"]["message"] + found["Reconciling"]["message"], f"{found}")
        return True

    wait_until("the status to tell of it", told, 30)
    # It would go on within seconds: the pod is replaced 0.1 s after the other one is ready.
    time.sleep(2 * story.PERIOD_SECONDS)
    assert pod_uids(scene)[PODS[number]] == former[PODS[number]]
    live = scene.upstream.live()
    for url in (search_url(), search_url(pod=number)):
        hits = search(scene, live.vectors[:50], k=1, url=url)
        assert hits.proven
        assert np.array_equal(hits.ids[:, 0], live.ids[:50])

    scenes.patch(scene, INDEX, {"source": {"model": MODEL}})
    wait_until("the correction to reach the pod", lambda: scenes.is_ready(scene, broken), 90)
    story.wait_for_all(scene, INDEX, replicas=2)
    wait_until("nothing to be rolled out", lambda: "Reconciling" not in world.conditions(scene, INDEX), 30)
    world.wait_for_condition(scene, INDEX, "Consistent", 60)
    assert pod_uids(scene)[PODS[number]] == former[PODS[number]]
