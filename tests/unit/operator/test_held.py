"""Held plans: who waits for what, what a person is told to do, when an approval is used up, and what is announced."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.support.vector_index import NOW, make_index, make_observed, make_pod, make_report, plan_of
from vectorindex_operator import api, names, status
from vectorindex_operator.api import Json, Status, VectorIndex
from vectorindex_operator.errors import ReportError
from vectorindex_operator.names import ConditionType
from vectorindex_operator.plan import Observed, find_used_plans
from vectorindex_operator.reports import Report

CONSISTENT, READY = ConditionType.CONSISTENT, ConditionType.READY
ONE, TWO = "1111111111111111", "2222222222222222"
EARLY, LATE = "2026-11-25T08:00:00Z", "2026-11-25T09:00:20Z"


def held(plan: str = ONE, reason: str = "ChangeHeld", **changes: Any) -> Json:
    """Return what a replica that holds a plan says."""
    document = {
        "id": plan,
        "reason": reason,
        "action": "patch",
        "incarnation": "7390000000000000001/primary/1",
        "removes": 4000,
        "replaces": 12,
        "adds": 3,
        "sampleIds": ["7", "9"],
        "heldAt": EARLY,
    }
    proof = {"result": "drift", "reason": reason, "message": "4000 of 9500 rows would go"}
    return {"state": "Held", "proven": False, "proof": proof, "heldPlan": document | changes}


def carried_out(*plans: str, as_of: str = LATE) -> Json:
    """Return what a replica says that has carried plans out."""
    return {"identity": {"approvedPlans": list(plans)}, "proof": {"asOf": as_of}}


def observe(first: Json, second: Json, index: VectorIndex | None = None, ready: tuple[bool, bool] = (True, True)) -> Observed:
    """Return two members that say these things."""
    index = index or make_index()
    reports: dict[str, Report | ReportError] = {
        "docs-index-0": make_report(index, "pod-0", **first),
        "docs-index-1": make_report(index, "pod-1", **second),
    }
    pods = tuple(make_pod(number, ready=is_ready) for number, is_ready in enumerate(ready))
    return replace(make_observed(index), reports=reports, pods=pods)


def approving(*plans: str, known: Status | None = None) -> VectorIndex:
    return make_index({names.APPROVE_PLAN: ",".join(plans)}, status=known)


def render(observed: Observed) -> Status:
    return status.render_status(observed, plan_of(observed), "", NOW)


def read_condition(rendered: Status, kind: ConditionType) -> tuple[str, str, str]:
    condition = rendered.condition(kind)
    assert condition is not None
    return str(condition.status), condition.reason, condition.message


# --- what is told ---


@pytest.mark.parametrize("reason", ["ChangeHeld", "SourceRegressed", "RepairHeld"])
def test_a_held_plan_makes_consistent_false_and_the_message_is_the_command_that_approves_it(reason: str) -> None:
    said, why, message = read_condition(render(observe(held(reason=reason), held(reason=reason))), CONSISTENT)
    assert (said, why) == ("False", reason)
    assert message == (
        "docs-index-0: 4000 of 9500 rows would go. "
        f"To approve: kubectl annotate vidx docs -n search --overwrite vectorindex.dev/approve-plan={ONE}"
    )


def test_the_index_serves_on_while_a_plan_is_held() -> None:
    assert read_condition(render(observe(held(), held())), READY)[:2] == ("True", "Serving")


def test_the_command_names_the_plans_of_all_replicas_and_keeps_what_is_approved_already() -> None:
    message = read_condition(render(observe(held(ONE), held(TWO))), CONSISTENT)[2]
    assert message.endswith(f"approve-plan={ONE},{TWO}")
    message = read_condition(render(observe(held(ONE), held(TWO), approving(TWO))), CONSISTENT)[2]
    assert message.endswith(f"approve-plan={ONE},{TWO}")
    assert read_condition(render(observe(held(ONE), held(TWO), approving(ONE, TWO))), CONSISTENT)[2].endswith("at the next check")


def test_the_command_is_never_cut_off() -> None:
    """With the longest names, and as many plans as one annotation may name."""
    name, others = "x" * 46, [f"{number:016x}" for number in range(19)]
    annotations = {names.APPROVE_PLAN: ",".join([ONE, *others])}
    index = make_index(annotations, status=Status(observed_generation=1, approved_plans=[ONE]), name=name, namespace="n" * 63)
    pod = make_pod(0, name=f"{name}-index-0")
    said = held() | {"proof": {"result": "drift", "reason": "ChangeHeld", "message": "y" * 9000}}
    observed = replace(make_observed(index), pods=(pod,), reports={pod.name: make_report(index, pod.uid, **said)})
    message = read_condition(render(observed), CONSISTENT)[2]
    assert len(message) == 1024
    assert message.endswith(f",{others[-1]} (approved once and used up: remove the annotation first)")
    assert f"annotate vidx {name} -n {'n' * 63} --overwrite vectorindex.dev/approve-plan={ONE},{others[0]}" in message


def test_a_held_plan_is_told_before_drift_and_what_a_check_could_not_see() -> None:
    unknown: Json = {"proof": {"result": "unknown", "reason": "HostUnreachable"}}
    assert read_condition(render(observe(unknown, held())), CONSISTENT)[:2] == ("False", "ChangeHeld")
    drift: Json = {"proven": False, "proof": {"result": "drift", "reason": "DriftFound"}, "drift": {"ghost": 1}}
    assert read_condition(render(observe(drift, held())), CONSISTENT)[:2] == ("False", "ChangeHeld")


def test_what_could_not_be_checked_stays_unknown_though_a_plan_is_held() -> None:
    blind = held() | {"proof": {"result": "unknown", "reason": "HostUnreachable", "message": "no route"}}
    assert read_condition(render(observe(blind, blind)), CONSISTENT)[:2] == ("Unknown", "HostUnreachable")


def test_a_table_that_shows_no_row_stays_unknown_and_the_message_tells_how_to_approve_just_that() -> None:
    empty = held() | {"proof": {"result": "unknown", "reason": "NoLiveRows", "message": "no live row where there were 9500"}}
    said, reason, message = read_condition(render(observe(empty, empty)), CONSISTENT)
    assert (said, reason) == ("Unknown", "NoLiveRows")
    assert message.endswith(f"approve-plan={ONE}")


def test_in_observe_nothing_can_be_approved() -> None:
    said: Json = {"proven": False, "proof": {"result": "drift", "reason": "RepairHeld", "message": "2 ghosts"}, "drift": {"ghost": 2}}
    message = read_condition(render(observe(said, said, make_index(healing={"mode": "Observe"}))), CONSISTENT)[2]
    assert message == "docs-index-0: 2 ghosts. `healing.mode` Observe only reports; set Auto or Plan to have it repaired"


def test_a_replica_that_must_not_serve_before_approval_is_told_though_the_others_are_consistent() -> None:
    rendered = render(observe({}, held(reason="SourceRegressed"), ready=(True, False)))
    assert read_condition(rendered, CONSISTENT)[:2] == ("True", "Proven")
    said, reason, message = read_condition(rendered, READY)
    assert (said, reason) == ("True", "Degraded")
    assert message.startswith("1 of 2 replicas serve. docs-index-1: SourceRegressed: plan")
    assert message.endswith(f"approve-plan={ONE}")
    alone = render(observe(held(), held(), ready=(False, False)))
    assert read_condition(alone, READY)[:2] == ("False", "NotProven")
    assert read_condition(alone, CONSISTENT)[:2] == ("False", "ChangeHeld")


def test_the_same_plan_of_two_replicas_is_one_with_the_earlier_time() -> None:
    rendered = render(observe(held(heldAt=LATE), held(heldAt=EARLY)))
    (plan,) = rendered.held_plans
    assert (plan.id, plan.replicas, plan.held_at, plan.approved) == (ONE, 2, EARLY, False)
    assert (plan.removes, plan.replaces, plan.adds, plan.action) == (4000, 12, 3, "patch")
    assert [plan.id for plan in render(observe(held(ONE), held(TWO))).held_plans] == [ONE, TWO]
    assert [plan.approved for plan in render(observe(held(ONE), held(TWO), approving(TWO))).held_plans] == [False, True]


def test_each_member_shows_its_own_plan_with_sample_ids() -> None:
    first, second = render(observe(held(), {})).members
    assert first.state == "Held"
    assert first.held_plan is not None
    assert (first.held_plan.id, first.held_plan.sample_ids, first.held_plan.held_at) == (ONE, ["7", "9"], EARLY)
    assert second.held_plan is None


WRONG_PLANS: dict[str, Json] = {
    "id with upper case": {"id": "A" * 16},
    "short id": {"id": "1" * 15},
    "long id": {"id": "1" * 17},
    "id with a shell in it": {"id": "$(reboot)1111111"},
    "unknown action": {"action": "drop"},
    "reason in words": {"reason": "because I say so"},
    "negative rows": {"removes": -1},
    "too many samples": {"sampleIds": ["1"] * 11},
    "a sample with control characters": {"sampleIds": ["a\u001b[2J"]},
    "time in words": {"heldAt": "lately"},
}


@pytest.mark.parametrize("changes", WRONG_PLANS.values(), ids=WRONG_PLANS.keys())
def test_a_plan_that_is_not_as_agreed_is_not_repeated(changes: Json) -> None:
    with pytest.raises(ReportError):
        make_report(make_index(), "pod-0", **held(**changes))


def test_a_replica_of_an_earlier_image_knows_no_plans_and_is_read() -> None:
    assert make_report(make_index(), heldPlan=None, identity={"approvedPlans": None}).held_plan is None


# --- approval ---


def used(first: Json, second: Json, index: VectorIndex) -> tuple[str, ...]:
    return find_used_plans(observe(first, second, index))


def test_an_approval_is_used_up_once_a_replica_carried_it_out_and_all_others_looked_since() -> None:
    index = approving(ONE)
    assert used(held(), held(), index) == ()
    assert used(carried_out(ONE), held(), index) == ()  # the second still waits for it
    assert used(carried_out(ONE), carried_out(as_of=EARLY), index) == ()  # the second did not look yet
    assert used(carried_out(ONE), carried_out(as_of=LATE), index) == (ONE,)  # it looked, and did not need it
    assert used(carried_out(ONE), carried_out(ONE, as_of=EARLY), index) == (ONE,)


def test_an_approval_is_used_up_also_where_one_replica_always_looks_a_moment_before_the_other() -> None:
    index = approving(ONE)
    first = observe(carried_out(ONE), carried_out(as_of=EARLY), index)
    assert find_used_plans(first) == ()
    later, a_moment_before = LATE.replace("Z", ".200Z"), LATE.replace("Z", ".100Z")
    seen = written(first)
    assert used(carried_out(ONE, as_of=later), carried_out(as_of=a_moment_before), seen) == (ONE,)
    other_life = replace(
        seen,
        status=msgspec.structs.replace(seen.status, members=[msgspec.structs.replace(one, pod_uid="x") for one in seen.status.members]),
    )
    assert used(carried_out(ONE, as_of=later), carried_out(as_of=a_moment_before), other_life) == ()


def test_an_approval_is_not_used_up_by_a_replica_that_serves_nothing_yet() -> None:
    assert used(carried_out(ONE, as_of=""), carried_out(as_of=LATE), approving(ONE)) == ()


def test_an_approval_is_not_used_up_while_a_replica_gives_no_answer() -> None:
    observed = observe(carried_out(ONE), carried_out(ONE), approving(ONE))
    silent = replace(observed, reports={**observed.reports, "docs-index-1": ReportError("it can't be reached")})
    assert find_used_plans(silent) == ()


def test_what_is_used_up_stays_so_for_replicas_without_memory_until_the_annotation_is_removed() -> None:
    known = Status(observed_generation=1, approved_plans=[ONE])
    observed = observe(held(), held(), approving(ONE, known=known))
    rendered = render(observed)
    assert rendered.approved_plans == [ONE]
    assert [plan.approved for plan in rendered.held_plans] == [False]
    message = read_condition(rendered, CONSISTENT)[2]
    assert message.endswith(f"approve-plan={ONE} (approved once and used up: remove the annotation first)")
    assert render(observe(held(), held(), make_index(status=known))).approved_plans == []


def test_what_was_last_proven_is_not_taken_from_a_replica_that_holds_a_plan() -> None:
    index = make_index()
    both = held() | {"proven": True, "proof": {"result": "ok", "reason": "Proven"}}
    assert plan_of(observe(both, both, index)).last_proven is None
    assert plan_of(observe({}, both, index)).last_proven is not None


# --- news ---


def written(observed: Observed) -> VectorIndex:
    rendered = msgspec.json.decode(msgspec.json.encode(api.render(render(observed))))
    return replace(observed.index, status=api.parse_status(rendered))


def news(before: VectorIndex, observed: Observed) -> list[tuple[str, str]]:
    plans = {"PlanHeld", "PlanApproved", "PlanApplied"}
    return [(event.kind, event.reason) for event in status.find_events(before, render(observed)) if event.reason in plans]


def test_a_plan_is_announced_when_it_is_held_approved_and_carried_out_and_never_twice() -> None:
    calm = written(observe({}, {}))
    first = observe(held(), held(), calm)
    assert news(calm, first) == [("Warning", "PlanHeld")]  # one plan, whatever the number of replicas
    waiting = written(first)
    assert news(waiting, observe(held(), held(), waiting)) == []

    approval = replace(waiting, approve_wish=ONE)
    second = observe(held(), held(), approval)
    assert news(approval, second) == [("Normal", "PlanApproved")]
    approved = written(second)
    assert news(approved, observe(held(), held(), approved)) == []

    third = observe(carried_out(ONE), held(), approved)
    assert news(approved, third) == [("Normal", "PlanApplied")]
    half = written(third)
    done = written(observe(carried_out(ONE), carried_out(ONE), half))
    assert news(half, observe(carried_out(ONE), carried_out(ONE), half)) == [("Normal", "PlanApplied")]
    assert done.status.approved_plans == [ONE]
    assert news(done, observe(carried_out(ONE), carried_out(ONE), done)) == []


def test_a_replica_that_was_silent_for_a_while_announces_nothing_again() -> None:
    done = written(observe(carried_out(ONE), carried_out(ONE), approving(ONE)))
    observed = observe(carried_out(ONE), carried_out(ONE), done)
    silent = written(replace(observed, reports={**observed.reports, "docs-index-1": ReportError("it can't be reached")}))
    assert silent.status.members[1].approved_plans == [ONE]
    assert news(silent, observe(carried_out(ONE), carried_out(ONE), silent)) == []


def test_a_plan_is_written_at_once_and_only_once() -> None:
    calm = written(observe({}, {}))
    rendered = render(observe(held(), held(), calm))
    assert status.is_worth_writing(calm.status, rendered, NOW - NOW, calm.spec)
    waiting = written(observe(held(), held(), calm))
    assert not status.is_worth_writing(waiting.status, render(observe(held(), held(), waiting)), NOW - NOW, waiting.spec)
    moved: Json = {"proof": {"recall": 0.5, "attainablePeriodSeconds": 7.5, "oldestComparedAt": LATE}}
    assert not status.is_worth_writing(calm.status, render(observe(moved, moved, calm)), NOW - NOW, calm.spec)


@pytest.mark.parametrize(
    ("annotation", "told"), [("", 0), (ONE, 0), (f"{ONE}, {TWO}", 0), ("all", 1), (f"{ONE},x", 1), (",".join([ONE] * 21), 1)]
)
def test_an_approval_that_is_no_list_of_plans_is_told(annotation: str, told: int) -> None:
    index = make_index({names.APPROVE_PLAN: annotation})
    assert [event.reason for event in status.find_malformed_wishes(index)] == ["MalformedWish"] * told


# --- checks that come too rarely ---


def test_checks_that_can_not_come_often_enough_are_warned_of_once() -> None:
    calm = written(observe({}, {}))
    slow: Json = {"proof": {"attainablePeriodSeconds": 300.2}}
    rendered = render(observe(slow, {}, calm))
    said, reason, message = read_condition(rendered, CONSISTENT)
    assert (said, reason) == ("True", "Proven")
    assert "rarer than `maxStalenessSeconds` needs" in message
    (event,) = status.find_events(calm, rendered)
    assert (event.kind, event.reason) == ("Warning", "PeriodUnattainable")
    assert "every 301 s at best, 300 s are allowed" in event.message
    known = written(observe(slow, {}, calm))
    assert status.find_events(known, render(observe(slow, slow, known))) == []
    assert "rarer" not in read_condition(render(observe({"proof": {"attainablePeriodSeconds": 300.0}}, {})), CONSISTENT)[2]


def test_an_index_that_serves_exactly_for_want_of_rows_says_so() -> None:
    assert render(observe({"view": {"fallback": "TooFewRowsToTrain"}}, {})).members[0].fallback == "TooFewRowsToTrain"
