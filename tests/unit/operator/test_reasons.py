"""The closed list of reasons: an observation that brings each of them about, and what kstatus makes of the status it is told in.

GitOps tools judge by kstatus: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md. A reason that is added fails
here until it has its line.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support.vector_index import NOW, make_index, make_observed, make_pod, make_report, make_stateful_set, plan_of
from vectorindex_operator import api, heal, names, status
from vectorindex_operator.api import Json, Status, VectorIndex
from vectorindex_operator.errors import ReportError
from vectorindex_operator.heal import Call
from vectorindex_operator.held import HELD_REASONS
from vectorindex_operator.names import ProofReason, Reason, SourceReason
from vectorindex_operator.plan import Observed

CURRENT, IN_PROGRESS, FAILED = "Current", "InProgress", "Failed"
PLAN = "1111111111111111"


def judge_by_kstatus(resource: Json) -> str:
    """Return what the published rules make of a resource: first the generation, then the two abnormal conditions, then Ready."""
    state = resource.get("status", {})
    if "deletionTimestamp" in resource["metadata"]:
        return "Terminating"
    if "observedGeneration" in state and state["observedGeneration"] != resource["metadata"]["generation"]:
        return IN_PROGRESS
    conditions = {each["type"]: each["status"] for each in state.get("conditions", [])}
    for kind, result in (("Reconciling", IN_PROGRESS), ("Stalled", FAILED)):
        if conditions.get(kind) == "True":
            return result
    return CURRENT if conditions.get("Ready", "True") == "True" else IN_PROGRESS


@dataclass(frozen=True)
class Told:
    """What is observed, where its reason is told, and what kstatus makes of it."""

    observe: Callable[[], Observed]
    where: str  # a condition with its status, `event`, or `member`
    kstatus: str = CURRENT
    refusal: str = ""


def members(*, ready: bool | tuple[bool, bool] = True, index: VectorIndex | None = None, **said: Any) -> Callable[[], Observed]:
    """Two members, of which the first says this."""

    def observe() -> Observed:
        observed = make_observed(index)
        told = {**observed.reports, "docs-index-0": make_report(observed.index, "pod-0", **said)}
        first, second = ready if isinstance(ready, tuple) else (ready, ready)
        return replace(observed, reports=told, pods=(make_pod(0, ready=first), make_pod(1, ready=second)))

    return observe


def seen(**changes: Any) -> Callable[[], Observed]:
    """What is observed of a healthy index, with these changes."""
    return lambda: replace(make_observed(), **changes)


def with_child(kind: str, child: Json) -> Callable[[], Observed]:
    def observe() -> Observed:
        observed = make_observed()
        return replace(observed, children={**observed.children, (kind, "docs-index"): child})

    return observe


def checked(reason: str, result: str = "unknown") -> Json:
    return {"proven": False, "proof": {"result": result, "reason": reason}, "drift": {"ghost": int(result == "drift")}}


def holding(reason: str, plan: str = PLAN) -> Json:
    counts = {"removes": 4, "replaces": 0, "adds": 0}
    held = {"id": plan, "reason": reason, "action": "patch", "sampleIds": [], "heldAt": "2026-11-25T09:00:00Z", **counts}
    return {**checked(reason, "drift"), "state": "Held", "heldPlan": held}


def knowing_the_pod(annotations: Json | None = None) -> VectorIndex:
    """An index whose status knows what its members said before."""
    before = status.render_status(make_observed(), plan_of(make_observed()), "", NOW)
    return make_index(annotations, status=before)


def no_index_to_parse() -> Observed:
    observed = make_observed()
    return replace(observed, index=replace(observed.index, spec=None, problem="spec: `dimension` is no number"))


def rolling_out() -> Observed:
    observed = make_observed()
    rolling = make_stateful_set(observed.index, 2, updatedReplicas=1)
    return replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): rolling})


def untried() -> dict[str, Any]:
    return {"docs-index-0": make_report(make_index(), "pod-0", source={"reachable": False, "reason": "NotTried", "message": ""})}


EARLIER: Json = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "docs", "uid": "earlier", "controller": True}
REPAIR: Json = {
    "at": "2026-11-25T08:59:30Z",
    "action": "patch",
    "trigger": "check",
    "result": "repaired",
    "drift": {"ghost": 1},
    "sampleIds": ["1"],
    "rootBefore": "",
    "rootAfter": "",
    "seconds": 1.0,
}
IDLE = (make_pod(0, ready=False), make_pod(1, ready=False))

TOLD: dict[str, Told] = {
    # Ready
    Reason.SERVING: Told(make_observed, "Ready=True"),
    Reason.DEGRADED: Told(members(ready=(True, False)), "Ready=True"),
    Reason.STARTING: Told(members(ready=False), "Ready=False", IN_PROGRESS),
    Reason.NOT_PROVEN: Told(members(ready=False, **checked(ProofReason.MODEL_KEY_NOT_FOUND)), "Ready=False", IN_PROGRESS),
    Reason.PODS_FAILING: Told(seen(pods=(make_pod(0, ready=False, trouble="ErrImagePull"), IDLE[1])), "Ready=False", IN_PROGRESS),
    Reason.NO_PODS: Told(seen(pods=(), reports={}), "Ready=False", IN_PROGRESS),
    # Consistent
    Reason.REPAIRING: Told(members(state="Repairing", **checked(ProofReason.DRIFT_FOUND, "drift")), "Consistent=False"),
    Reason.SUSPENDED: Told(members(suspended=True, pending=4, **checked(ProofReason.DRIFT_FOUND, "drift")), "Consistent=False"),
    Reason.PROOF_TOO_OLD: Told(members(proof={"provenAt": "2026-11-25T08:00:00Z"}), "Consistent=Unknown"),
    Reason.REPLICAS_DISAGREE: Told(members(proof={"rootDigest": "1:0000000000000000-0000000000000000"}), "Consistent=False"),
    Reason.MEMBERS_UNREACHABLE: Told(seen(reports={"docs-index-0": ReportError("no answer")}), "Consistent=Unknown"),
    Reason.ROLLING_OUT: Told(rolling_out, "Reconciling=True", IN_PROGRESS),
    Reason.NO_SERVING_REPLICA: Told(seen(pods=IDLE, reports={}), "Consistent=Unknown", IN_PROGRESS),
    # Reconciling, Stalled
    Reason.WAITING_FOR_DELETION: Told(
        with_child("Service", {"metadata": {"name": "docs-index", "uid": "x", "resourceVersion": "1", "ownerReferences": [EARLIER]}}),
        *("Reconciling=True", IN_PROGRESS),
    ),
    Reason.NAME_CONFLICT: Told(
        with_child("Service", {"metadata": {"name": "docs-index", "uid": "x", "resourceVersion": "1"}}), "Stalled=True", FAILED
    ),
    Reason.INVALID_SPEC: Told(no_index_to_parse, "Stalled=True", FAILED),
    Reason.REFUSED: Told(make_observed, "Stalled=True", FAILED, refusal="POST .../statefulsets: quota (HTTP 403)"),
    # events only
    Reason.REPAIRED: Told(members(repairs=[REPAIR]), "event"),
    Reason.PLAN_HELD: Told(members(**holding(ProofReason.CHANGE_HELD)), "event"),
    Reason.PLAN_APPROVED: Told(members(index=make_index({names.APPROVE_PLAN: PLAN}), **holding(ProofReason.CHANGE_HELD)), "event"),
    Reason.PLAN_APPLIED: Told(members(index=knowing_the_pod(), identity={"approvedPlans": [PLAN]}), "event"),
    Reason.PERIOD_UNATTAINABLE: Told(members(proof={"attainablePeriodSeconds": 900}), "event"),
    Reason.VALIDATE_REQUESTED: Told(make_observed, "event of the webhook"),
    Reason.MALFORMED_WISH: Told(lambda: make_observed(make_index({names.VALIDATE_REQUESTED_AT: "soon"})), "event"),
    # the last check of a member
    ProofReason.PROVEN: Told(make_observed, "Consistent=True"),
    ProofReason.NOT_CHECKED: Told(members(proven=False), "Consistent=Unknown"),
    ProofReason.DRIFT_FOUND: Told(members(**checked(ProofReason.DRIFT_FOUND, "drift")), "Consistent=False"),
    ProofReason.REPAIR_FAILED: Told(members(**checked(ProofReason.REPAIR_FAILED, "drift")), "Consistent=False"),
    ProofReason.DRIFT_SUSPENDED: Told(members(suspended=True, **checked(ProofReason.DRIFT_SUSPENDED, "drift")), "member"),
    ProofReason.PENDING_SUSPENDED: Told(members(suspended=True, **checked(ProofReason.PENDING_SUSPENDED, "drift")), "member"),
    **{reason: Told(members(**holding(reason)), "Consistent=False") for reason in HELD_REASONS},
    # reading Postgres
    SourceReason.REACHABLE: Told(make_observed, "SourceAvailable=True"),
    SourceReason.NOT_TRIED: Told(
        lambda: replace(members(source={"reachable": False, "reason": "NotTried"})(), pods=(make_pod(0),), reports=untried()),
        "SourceAvailable=Unknown",
    ),
}
BLIND = {
    *(ProofReason.MODEL_KEY_NOT_FOUND, ProofReason.NO_LIVE_ROWS, ProofReason.METADATA_NOT_FOUND, ProofReason.SUM_IS_NULL),
    *(ProofReason.DIGEST_SPEC_DIFFERS, ProofReason.POSITIVE_CONTROL_FAILED, ProofReason.BUCKET_NOT_COMPARED),
    *(ProofReason.SNAPSHOT_WENT_BACK, ProofReason.STORED_DIGESTS_DIFFER, ProofReason.MEMORY_TOO_SMALL),
    *(ProofReason.REBUILD_SLOT_BUSY, ProofReason.INTERNAL_ERROR),
}
"""Why a check could not tell."""

UNREADABLE = set(SourceReason) - {SourceReason.REACHABLE, SourceReason.NOT_TRIED}
"""Why Postgres could not be read."""

TOLD |= {reason: Told(members(**checked(reason)), "Consistent=Unknown") for reason in BLIND}
TOLD |= {reason: Told(members(source={"reachable": False, "reason": reason}), "SourceAvailable=False") for reason in UNREADABLE}


def render(told: Told) -> tuple[Observed, Status]:
    observed = told.observe()
    return observed, status.render_status(observed, plan_of(observed), told.refusal, NOW)


def test_every_reason_of_the_closed_list_has_an_observation_and_no_other_word_has() -> None:
    assert set(TOLD) == {*Reason, *SourceReason, *ProofReason}


@pytest.mark.parametrize("reason", sorted(TOLD))
def test_a_reason_comes_about_by_its_observation(reason: str) -> None:
    told = TOLD[reason]
    observed, rendered = render(told)
    if told.where == "event":
        events = [*status.find_events(observed.index, rendered), *status.find_malformed_wishes(observed.index)]
        assert reason in [event.reason for event in events]
    elif told.where == "event of the webhook":
        assert heal.build_event(Call(observed.index.key, "SomeAlert", NOW)).reason == reason
    elif told.where == "member":
        assert reason in [member.reason for member in rendered.members]
    else:
        kind, _, value = told.where.partition("=")
        assert (kind, value, reason) in [(c.type.value, c.status.value, c.reason) for c in rendered.conditions]


@pytest.mark.parametrize("reason", sorted(TOLD))
def test_kstatus_makes_of_each_state_what_it_is(reason: str) -> None:
    """Only what is on its way is in progress, and only what waits for a person has failed: neither drift nor a lost Postgres."""
    observed, rendered = render(TOLD[reason])
    resource = {"metadata": {"generation": observed.index.generation}, "status": api.render(rendered)}
    assert judge_by_kstatus(resource) == TOLD[reason].kstatus


def test_ready_is_never_unknown_as_the_readme_says() -> None:
    """Unready pods are seen by the API server's word: there is nothing that could not be looked at."""
    ready = [render(told)[1].condition(names.ConditionType.READY) for told in TOLD.values()]
    assert {each.status for each in ready if each is not None} == {names.ConditionStatus.TRUE, names.ConditionStatus.FALSE}


def test_kstatus_waits_for_the_first_visit_and_for_each_new_generation() -> None:
    assert judge_by_kstatus({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}) == IN_PROGRESS
    _, rendered = render(TOLD[Reason.SERVING])
    assert judge_by_kstatus({"metadata": {"generation": 2}, "status": api.render(rendered)}) == IN_PROGRESS
