"""Tells of changes that wait for approval: which there are, what a person has to do, what became of them. Pure."""

from collections.abc import Iterable
from typing import Final

from vectorindex_operator import api, names
from vectorindex_operator.api import Event, HeldPlan, Member, MemberPlan, Status, VectorIndex
from vectorindex_operator.names import ProofReason, Reason
from vectorindex_operator.plan import Observed, Plan
from vectorindex_operator.reports import HeldPlan as ReportedPlan

# What waits for a person: a plan of one of these reasons is held until it is approved.
HELD_REASONS: Final = frozenset({ProofReason.CHANGE_HELD, ProofReason.SOURCE_REGRESSED, ProofReason.REPAIR_HELD})

# No row where there were some proves nothing by itself, and is believed once it is approved.
ADVISED_REASONS: Final = HELD_REASONS | {ProofReason.NO_LIVE_ROWS}


def describe_plan(plan: HeldPlan | MemberPlan | ReportedPlan) -> str:
    """Return the plan in one line."""
    return f"plan {plan.id} ({plan.action}) would remove {plan.removes}, replace {plan.replaces} and add {plan.adds} rows"


def explain_approval(observed: Observed, plan: Plan) -> str:
    """Return what a person has to do for held plans to be carried out."""
    index = observed.index
    held = {report.held_plan.id: report.held_plan.reason for report in observed.answers().values() if report.held_plan}
    if index.spec and index.spec.healing.mode == "Observe" and set(held.values()) <= {ProofReason.REPAIR_HELD}:
        return "`healing.mode` Observe only reports; set Auto or Plan to have it repaired"
    approved = api.find_approved(index, plan.used_plans)
    waiting = [one for one in held if one not in approved]
    if waiting:
        # What is approved and not yet carried out everywhere stays in the annotation, or it would be taken back.
        ids = ",".join([*waiting, *approved][: api.MOST_PLANS])
        again = "" if set(waiting).isdisjoint(plan.used_plans) else " (approved once and used up: remove the annotation first)"
        return f"To approve: kubectl annotate vidx {index.key.name} -n {index.key.namespace} --overwrite {names.APPROVE_PLAN}={ids}{again}"
    return "Approved; carried out at the next check" if held else ""


def gather_held_plans(members: list[Member], index: VectorIndex, plan: Plan) -> list[HeldPlan]:
    """Return each plan once, however many members hold it; in the order of the members."""
    approved = api.find_approved(index, plan.used_plans)
    gathered: dict[str, HeldPlan] = {}
    for member in members:
        one = member.held_plan
        if one is None:
            continue
        known = gathered.get(one.id)
        times = [at for at in (one.held_at, known.held_at if known else None) if at]
        gathered[one.id] = HeldPlan(
            id=one.id,
            reason=one.reason,
            action=one.action,
            removes=one.removes,
            replaces=one.replaces,
            adds=one.adds,
            replicas=known.replicas + 1 if known else 1,
            held_at=min(times, default=None),
            approved=one.id in approved,
        )
    return list(gathered.values())[: api.MOST_PLANS]


def find_plan_news(index: VectorIndex, new: Status) -> Iterable[Event]:
    """Yield what happened to held plans: each is held once, approved once, and carried out once by each member."""
    before = {plan.id: plan for plan in index.status.held_plans}
    for plan in new.held_plans:
        since = f"{plan.id}/{plan.held_at}"
        if plan.id not in before:
            yield Event("Warning", Reason.PLAN_HELD, f"{plan.reason}: {describe_plan(plan)}; it waits for approval", f"held/{since}")
        if plan.approved and not (plan.id in before and before[plan.id].approved):
            yield Event("Normal", Reason.PLAN_APPROVED, f"{describe_plan(plan)}; approved by annotation", f"approved/{since}")
    known = {member.pod: member for member in index.status.members}
    for member in new.members:
        former = known.get(member.pod)
        for one in member.approved_plans:
            if former is None or one in former.approved_plans:
                continue
            held_at = former.held_plan.held_at if former.held_plan else ""
            text = f"{member.pod}: plan {one} was approved and is carried out"
            yield Event("Normal", Reason.PLAN_APPLIED, text, f"applied/{member.pod}/{one}/{held_at}")
