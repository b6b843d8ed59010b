"""What waits for approval goes on waiting through all that happens to pods, and an approval is for one plan, once."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from examples.wordnet.load import MODEL
from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import expect, wait_until
from examples.wordnet.steps.searching import search, search_url
from examples.wordnet.steps.world import SEARCH, World
from tests.support import scenes
from tests.support.scenes import ROWS
from vectorindex_indexer import guards
from vectorindex_indexer.guards import PlanHead
from vectorindex_indexer.names import ProofReason

HELD = "held"
PODS = (f"{HELD}-index-0", f"{HELD}-index-1")
GONE = 200
APPROVE = "vectorindex.dev/approve-plan"


@pytest.fixture(scope="module")
def held(scene: World) -> Iterator[str]:
    """Two replicas of a small index without volumes; its UID."""
    scenes.make_table(scene, HELD)
    scenes.serve(scene, scenes.small_index(HELD))
    yield scenes.uid_of(scene, f"vidx/{HELD}")
    world.delete_index(scene, HELD)


def approve(scene: World, index: str, *plans: str) -> None:
    words = f"{APPROVE}={','.join(plans)}" if plans else f"{APPROVE}-"
    scene.kubernetes.kubectl("annotate", "vidx", index, f"--namespace={SEARCH}", "--overwrite", words)


def wait_for_plans(scene: World, index: str, replicas: int) -> list[Manifest]:
    """Wait until so many replicas hold a plan and return the plans."""

    def plans() -> list[Manifest] | None:
        status = scenes.status_of(scene, index)
        found: list[Manifest] = status.get("heldPlans", [])
        told = status.get("members", [])
        expect(sum(plan["replicas"] for plan in found) == replicas, f"expected {replicas} replicas to hold a plan, got {told}")
        return found

    return wait_until(f"{replicas} replicas of {index} to hold a plan", plans, 60)


def wait_for_rows(scene: World, rows: int) -> None:
    """Wait until every pod shows so many rows; the status tells of mere numbers only now and then."""

    def shown() -> bool:
        found = [members.status(scene, pod)["view"]["rows"] for pod in PODS]
        expect(found == [rows, rows], f"expected {rows} rows, got {found}")
        return True

    wait_until(f"{rows} rows", shown, 60)


def wait_until_used_up(scene: World, plans: set[str]) -> None:
    """Wait until the approval of these plans counts no more, as the operator tells, and every pod knows it."""

    def known() -> bool:
        used = set(scenes.status_of(scene, HELD).get("approvedPlans", []))
        expect(plans <= used, f"expected {plans} to be used up, got {used}")
        named = {pod: members.status(scene, pod)["identity"]["approvedPlans"] for pod in PODS}
        expect(not any(named.values()), f"expected no pod to know of an approval, got {named}")
        return True

    wait_until("the approval to be used up", known, 60)


def plan_for(uid: str, ids: list[int], incarnation: str) -> str:
    """Return the id of the plan to take these rows out of an index."""
    return guards.plan_id(PlanHead(uid, ProofReason.CHANGE_HELD, "patch", incarnation), np.array(ids, np.int64))


def wait_until_known(scene: World, pod: str, words: str) -> None:
    """Wait until a pod has read a live file in which these words stand."""

    def known() -> bool:
        (text,) = scene.kubernetes.get("configmap", f"{HELD}-index", f"--namespace={SEARCH}")["data"].values()
        return words in text and members.status(scene, pod)["identity"]["liveHash"] == hashlib.sha256(text.encode()).hexdigest()[:16]

    wait_until(f"{pod} to know of {words}", known, 60)


def see_another_check(scene: World, pod: str) -> None:
    """Wait until a pod has looked at Postgres again, from the beginning, with what it knows now."""

    def count() -> float:
        return members.metrics(scene, pod).value("vectorindex_checks_total", layer="L0")

    before = count()
    wait_until("another check", lambda: count() > before + 1, 30)


def test_held_change_outlives_the_pod_that_held_it_and_one_approval_counts_once(scene: World, held: str) -> None:
    rows = scene.upstream.execute(f"SELECT entity_id, vector FROM {HELD} ORDER BY entity_id LIMIT %s", GONE)
    ids = [row[0] for row in rows]
    vectors = np.array([np.frombuffer(row[1], "<f4") for row in rows[:5]])
    scene.upstream.execute(f"DELETE FROM {HELD} WHERE entity_id = ANY(%s)", ids)
    (plan,) = wait_for_plans(scene, HELD, replicas=2)
    assert (plan["reason"], plan["removes"]) == ("ChangeHeld", GONE)
    assert not plan.get("approved")

    # A pod that holds it is evicted, and what it had saved goes with it: the next one knows only what the operator remembers.
    former = scenes.uid_of(scene, f"pod/{PODS[0]}")
    assert scenes.evict(scene, PODS[0])
    wait_until(f"another {PODS[0]}", lambda: scenes.uid_of(scene, f"pod/{PODS[0]}") not in ("", former), 60)
    wait_until("the new pod to hold", lambda: members.status(scene, PODS[0])["state"] == "Held", 60)
    plans = wait_for_plans(scene, HELD, replicas=2)
    assert not scenes.is_ready(scene, PODS[0])
    assert not scenes.evict(scene, PODS[1]), "the only pod that serves was evicted"
    found = world.conditions(scene, HELD)
    assert (found["Consistent"]["status"], found["Consistent"]["reason"]) == ("False", "ChangeHeld")
    assert found["Ready"]["status"] == "True"
    hits = wait_until("an answer", lambda: search(scene, vectors, k=1, url=search_url(HELD)), 10)
    assert hits.ids[:, 0].tolist() == ids[:5], "what may not go yet is found"
    assert not hits.proven

    # The same rows of another database would be another plan: its approval does nothing, and the status goes on asking for the right one.
    (incarnation,) = {member["incarnation"] for member in scenes.status_of(scene, HELD)["members"] if member["pod"] == PODS[1]}
    assert plan_for(held, ids, incarnation) == plan["id"]
    other = plan_for(held, ids, f"{incarnation}0")
    approve(scene, HELD, other)
    wait_until_known(scene, PODS[1], other)
    see_another_check(scene, PODS[1])
    assert members.status(scene, PODS[1])["view"]["rows"] == ROWS
    assert not [one for one in wait_for_plans(scene, HELD, replicas=2) if one.get("approved")]
    assert plan["id"] in world.conditions(scene, HELD)["Consistent"]["message"].partition("approve-plan=")[2]

    approve(scene, HELD, *(plan["id"] for plan in plans))
    world.wait_for_condition(scene, HELD, "Consistent", 60)
    story.wait_for_all(scene, HELD, replicas=2)
    wait_for_rows(scene, ROWS - GONE)
    wait_until_used_up(scene, {plan["id"] for plan in plans})

    # The same rows come back and go again: another decision, though the annotation still names the same plan.
    back = "INSERT INTO {} SELECT entity_id, vector FROM embeddings WHERE model_name = %s AND entity_id = ANY(%s)"
    scene.upstream.execute(back.format(HELD), MODEL, ids)
    wait_for_rows(scene, ROWS)
    scene.upstream.execute(f"DELETE FROM {HELD} WHERE entity_id = ANY(%s)", ids)
    (again,) = wait_for_plans(scene, HELD, replicas=2)
    assert again["id"] == plan["id"]
    assert not again.get("approved")
    for pod in PODS:
        see_another_check(scene, pod)
        assert members.status(scene, pod)["view"]["rows"] == ROWS
    approve(scene, HELD)
    wait_until("the former approval to be forgotten", lambda: not scenes.status_of(scene, HELD).get("approvedPlans"), 30)
    approve(scene, HELD, plan["id"])
    world.wait_for_condition(scene, HELD, "Consistent", 60)
    wait_for_rows(scene, ROWS - GONE)
    reasons = [event["reason"] for event in scenes.events_of(scene, held)]
    assert {"PlanHeld", "PlanApproved", "PlanApplied"} <= set(reasons)
    wait_until_used_up(scene, {plan["id"]})


def test_in_mode_plan_drift_is_told_by_kind_with_ids_and_repaired_once_approved(scene: World, held: str) -> None:
    scenes.patch(scene, HELD, {"healing": {"mode": "Plan"}})
    pod = PODS[1]
    wait_until_known(scene, pod, '"mode":"Plan"')
    damage = story.damage_saved_index(scene, pod, "index-only").found
    (plan,) = wait_for_plans(scene, HELD, replicas=1)
    assert plan["reason"] == "RepairHeld"
    (member,) = [member for member in scenes.status_of(scene, HELD)["members"] if member["pod"] == pod]
    assert {kind: member["drift"][kind] for kind in story.KINDS} == {kind: len(ids) for kind, ids in damage.items()}
    sample = set(member["heldPlan"]["sampleIds"])
    assert sample
    assert sample <= {str(number) for ids in damage.values() for number in ids}
    assert (plan["removes"], plan["replaces"], plan["adds"]) == (
        len(damage["ghost"]),
        len(damage["changed"]) + len(damage["duplicate"]),
        len(damage["missing"]),
    )
    see_another_check(scene, pod)
    assert not members.status(scene, pod)["repairs"], "repaired without being asked"

    approve(scene, HELD, plan["id"])

    def told() -> list[Manifest]:
        return [repair for repair in scenes.status_of(scene, HELD).get("lastRepairs", []) if repair["pod"] == pod]

    (repair,) = wait_until("the repair to be told", told, 60)
    story.wait_for_all(scene, HELD, replicas=2)
    assert repair["result"] == "repaired"
    assert {kind: repair["drift"][kind] for kind in story.KINDS} == {kind: len(ids) for kind, ids in damage.items()}
    assert "Repaired" in [event["reason"] for event in scenes.events_of(scene, held)]
