"""Two operators on a real node: when the one that acts goes, the other goes on."""

import time

import pytest

from examples.wordnet.steps import world
from examples.wordnet.steps.report import wait_until
from examples.wordnet.steps.world import INDEX, RELEASE, SEARCH, SYSTEM, World

pytestmark = pytest.mark.usefixtures("index")
HAND_OVER_SECONDS = 15


def test_the_other_operator_acts_within_fifteen_seconds_of_a_deletion(scene: World) -> None:
    former = world.leading_operator(scene)
    service = f"service/{INDEX}-index"
    uid = ("get", service, f"--namespace={SEARCH}", "--ignore-not-found", "--output=jsonpath={.metadata.uid}")
    before = scene.kubernetes.kubectl(*uid)
    scene.kubernetes.kubectl("delete", "pod", former, f"--namespace={SYSTEM}", "--wait=false")
    started = time.monotonic()
    scene.kubernetes.kubectl("delete", service, f"--namespace={SEARCH}", "--wait=false")
    wait_until("the Service to be made again", lambda: scene.kubernetes.kubectl(*uid) not in ("", before), HAND_OVER_SECONDS)
    wait_until("another operator to lead", lambda: world.leading_operator(scene) != former, HAND_OVER_SECONDS)
    assert time.monotonic() - started < HAND_OVER_SECONDS


def test_an_update_leaves_an_operator_at_every_moment(scene: World) -> None:
    deployment = f"deployment/{RELEASE}"
    scene.kubernetes.kubectl("rollout", "status", deployment, f"--namespace={SYSTEM}", "--timeout=60s", timeout_seconds=70)
    former = set(world.operators(scene))
    assert len(former) == 2
    scene.kubernetes.kubectl("rollout", "restart", deployment, f"--namespace={SYSTEM}")
    available: list[int] = []

    def updated() -> bool:
        available.append(scene.kubernetes.get("deployment", RELEASE, f"--namespace={SYSTEM}")["status"].get("availableReplicas", 0))
        pods = set(world.operators(scene))
        return len(pods) == 2 and not pods & former and available[-1] == 2

    wait_until("two new operators", updated, 90)
    assert min(available) >= 1
    wait_until("one of them to lead", lambda: world.leading_operator(scene) not in former, HAND_OVER_SECONDS)
