"""Tells the state of one VectorIndex: conditions, members and events, all from one observation and plan. Pure."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from vectorindex_operator import api, held, names
from vectorindex_operator.api import (
    Condition,
    Drift,
    DriftSamples,
    Event,
    LastProven,
    Member,
    MemberPlan,
    Progress,
    Repair,
    Spec,
    Status,
    VectorIndex,
)
from vectorindex_operator.names import ConditionStatus, ConditionType, ProofReason, Reason, Result, SourceReason, State
from vectorindex_operator.plan import Observed, Plan, Pod, is_rolled_out, shorten
from vectorindex_operator.reports import Report

MAX_MESSAGE: Final = 1024
MAX_MEMBER_MESSAGE: Final = 512
MAX_REPAIRS: Final = 10
MAX_MEMBERS: Final = 40
MAX_REPORTED_MESSAGE: Final = 400

STEP_REST: Final = timedelta(seconds=2)
"""Progress of a tenth of a build's rows is written this long after the last write, ..."""
PROGRESS_REST: Final = timedelta(seconds=15)
"""... and less progress this long."""

REPAIR_ACTIONS: Final = ("patch", "rebuild")
REPAIR_RESULTS: Final = ("repaired", "failed")
_KNOWN_REASONS: Final = frozenset((*ProofReason, *SourceReason))
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# What every index goes through at its start and at each rollout: nothing to warn of.
_ORDINARY: Final = frozenset(
    {Reason.NO_PODS, Reason.STARTING, Reason.NO_SERVING_REPLICA, Reason.ROLLING_OUT, SourceReason.NOT_TRIED, ProofReason.NOT_CHECKED}
)

# Why a replica does not serve, beyond that it has only just started.
_CAUSES: Final = frozenset({Reason.PODS_FAILING, Reason.NOT_PROVEN})

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True)
class Verdict:
    """What a condition says, before it is known whether that is news."""

    status: ConditionStatus
    reason: str
    message: str


def render_status(observed: Observed, plan: Plan, refusal: str, now: datetime) -> Status:
    """Return the whole status. `refusal` is what the API server said to an object of ours, or nothing."""
    index = observed.index
    stalled = judge_stalled(index, plan, refusal)
    members = [_render_member(pod, observed) for pod in observed.pods[:MAX_MEMBERS]]
    serving_pods = {pod.name for pod in _serving(observed)}
    serving = [member for member in members if member.pod in serving_pods]
    agreed = _find_agreed(serving)
    verdicts: dict[ConditionType, Verdict | None] = {
        ConditionType.READY: judge_ready(observed, plan, stalled),
        ConditionType.CONSISTENT: judge_consistent(observed, plan, now),
        ConditionType.SOURCE_AVAILABLE: judge_source(observed),
        ConditionType.RECONCILING: None if stalled else judge_reconciling(observed, plan),
        ConditionType.STALLED: stalled,
    }
    reports = observed.answers().values()
    return Status(
        observed_generation=index.generation,
        conditions=[_render_condition(index, kind, verdict, now) for kind, verdict in verdicts.items() if verdict],
        replicas=len(observed.pods),
        ready_replicas=len(serving_pods),
        selector=names.index_selector(index.key.name),
        source=index.spec.source.text if index.spec else index.status.source,
        rows=_find_rows(serving),
        root_digest=agreed.root_digest if agreed else None,
        as_of=agreed.as_of if agreed else None,
        drift=sum(member.drift.total for member in members if member.drift),
        validate_requested_at=_echo(observed, index.status.validate_requested_at, lambda report: report.identity.validate_requested_at),
        rebuild_requested_at=_echo(observed, index.status.rebuild_requested_at, lambda report: report.identity.rebuild_requested_at),
        held_plans=held.gather_held_plans(members, index, plan),
        approved_plans=list(plan.used_plans),
        last_proven=_bound_last_proven(plan.last_proven),
        members=members,
        last_repairs=_merge_repairs(index.status.last_repairs, observed) if reports else index.status.last_repairs,
    )


# --- conditions ---


def judge_stalled(index: VectorIndex, plan: Plan, refusal: str) -> Verdict | None:
    """Return why nothing goes on without a person, if that is so."""
    if index.spec is None:
        return Verdict(TRUE, Reason.INVALID_SPEC, index.problem)
    if plan.conflicts:
        message = f"Not ours, so never overwritten: {', '.join(plan.conflicts)}. Delete or rename it, or give this index another name"
        return Verdict(TRUE, Reason.NAME_CONFLICT, message)
    return Verdict(TRUE, Reason.REFUSED, refusal) if refusal else None


def judge_reconciling(observed: Observed, plan: Plan) -> Verdict | None:
    """Return what is going on with the objects, if something is. Drift and its repair are none of it."""
    if plan.waiting:
        return Verdict(TRUE, Reason.WAITING_FOR_DELETION, f"Waiting until these are gone: {', '.join(plan.waiting)}")
    if plan.changes_pods or not is_rolled_out(observed.stateful_set):
        return Verdict(TRUE, Reason.ROLLING_OUT, "Pods are being made, replaced or removed")
    return None


def judge_ready(observed: Observed, plan: Plan, stalled: Verdict | None) -> Verdict:
    """Return whether enough replicas serve: all but one, and at least one."""
    wanted = observed.index.spec.replicas if observed.index.spec else len(observed.pods)
    serving = len(_serving(observed))
    text = f"{serving} of {wanted} replicas serve"
    if serving >= max(1, wanted - 1):
        if serving >= wanted:
            return Verdict(TRUE, Reason.SERVING, text)
        cause, detail = _explain_not_serving(observed, plan)  # a rollout may stand still for it
        return Verdict(TRUE, Reason.DEGRADED, f"{text}. {detail}" if cause in _CAUSES else text)
    if stalled:
        return Verdict(FALSE, stalled.reason, f"{text}. {stalled.message}")
    reason, detail = _explain_not_serving(observed, plan)
    return Verdict(FALSE, reason, f"{text}. {detail}" if detail else text)


def _explain_not_serving(observed: Observed, plan: Plan) -> tuple[Reason, str]:
    idle = [pod for pod in observed.pods if not pod.ready and not pod.terminating]
    answers = observed.answers()
    for pod in idle:
        if pod.trouble:
            return Reason.PODS_FAILING, f"{pod.name}: {pod.trouble}"
    waiting = _explain_held(observed, plan)
    if waiting:
        return Reason.NOT_PROVEN, waiting
    for pod in idle:
        report = answers.get(pod.name)
        if report and report.proof.result is Result.UNKNOWN and report.proof.reason != ProofReason.NOT_CHECKED:
            return Reason.NOT_PROVEN, _quote(pod.name, known_reason(report.proof.reason), report.proof.message)
    for pod in idle:
        report = answers.get(pod.name)
        return Reason.STARTING, f"{pod.name} is {report.state}" if report else f"{pod.name} does not answer yet"
    return Reason.NO_PODS, ""


def _explain_held(observed: Observed, plan: Plan) -> str:
    """Return what the first replica waits for that does not serve before a plan is approved."""
    answers = observed.answers()
    for pod in observed.pods:
        report = answers.get(pod.name)
        if report and report.held_plan and not pod.ready and not pod.terminating:
            told = _quote(pod.name, known_reason(report.held_plan.reason), held.describe_plan(report.held_plan))
            return f"{told}. {held.explain_approval(observed, plan)}"
    return ""


def judge_source(observed: Observed) -> Verdict:
    """Return whether all members that tell can read Postgres."""
    answers = observed.answers()
    if not answers and _serving(observed):
        return Verdict(UNKNOWN, Reason.MEMBERS_UNREACHABLE, "No replica gives a valid answer on its status port")
    tried = {pod: report.source for pod, report in answers.items() if report.source.reason != SourceReason.NOT_TRIED}
    failing = {pod: source for pod, source in tried.items() if not source.reachable}
    for pod, source in failing.items():
        return Verdict(FALSE, known_reason(source.reason), _quote(pod, "", source.message))
    if not tried:
        return Verdict(UNKNOWN, SourceReason.NOT_TRIED, "No replica has read Postgres yet")
    return Verdict(TRUE, SourceReason.REACHABLE, "Postgres can be read")


def judge_consistent(observed: Observed, plan: Plan, now: datetime) -> Verdict:
    """Return whether all serving replicas proved recently that they equal Postgres; while none serves, what hinders the others."""
    serving = _serving(observed)
    answers = observed.answers()
    spec = observed.index.spec
    asked = serving or [pod for pod in observed.pods if not pod.terminating]
    verdicts: list[Verdict] = []
    for pod in asked:
        report = answers.get(pod.name)
        verdicts.append(_judge_member(pod, report, spec, plan.identity_hash, now))
    for worse in (FALSE, UNKNOWN):
        found = [verdict for verdict in verdicts if verdict.status is worse]
        if found:
            return _add_approval(min(found, key=_rank), observed, plan)
    if not serving:
        return Verdict(UNKNOWN, Reason.NO_SERVING_REPLICA if asked else Reason.NO_PODS, "No replica serves")
    disagreement = _find_disagreement(serving, answers)
    if disagreement:
        return Verdict(FALSE, Reason.REPLICAS_DISAGREE, disagreement)
    who = "The serving replica" if len(serving) == 1 else f"All {len(serving)} serving replicas"
    suspended = "; suspended, so changes will wait" if spec and spec.suspend else ""
    rare = f"; {TOO_RARE}" if is_too_rare(answers.values(), spec) else ""
    return Verdict(TRUE, ProofReason.PROVEN, f"{who} proved equality with Postgres{suspended}{rare}")


# The most telling of several verdicts comes first; all others rank behind, in order of the pods.
_BY_WEIGHT: Final[tuple[str, ...]] = (
    *(ProofReason.SOURCE_REGRESSED, ProofReason.CHANGE_HELD, ProofReason.REPAIR_HELD),
    *(ProofReason.REPAIR_FAILED, ProofReason.DRIFT_FOUND, Reason.REPAIRING, Reason.SUSPENDED),
    *(reason for reason in ProofReason if reason is not ProofReason.NOT_CHECKED),
    *SourceReason,
    *(Reason.PROOF_TOO_OLD, Reason.ROLLING_OUT, Reason.MEMBERS_UNREACHABLE, ProofReason.NOT_CHECKED, Reason.NO_SERVING_REPLICA),
)
_RANKS: Final[dict[str, int]] = {reason: rank for rank, reason in enumerate(dict.fromkeys(_BY_WEIGHT))}


def _rank(verdict: Verdict) -> int:
    return _RANKS.get(verdict.reason, len(_RANKS))


def _judge_member(pod: Pod, report: Report | None, spec: Spec | None, identity_hash: str, now: datetime) -> Verdict:
    if report is None and not pod.ready:
        return Verdict(UNKNOWN, Reason.NO_SERVING_REPLICA, "No replica serves, and none tells why")
    if report is None:
        return Verdict(UNKNOWN, Reason.MEMBERS_UNREACHABLE, f"{pod.name} gives no valid answer on its status port")
    if identity_hash and report.identity.identity_hash != identity_hash:
        return Verdict(UNKNOWN, Reason.ROLLING_OUT, f"{pod.name} still has the previous source or index")
    return _judge_result(pod, report) or _judge_age(pod, report, spec, now)


def _judge_result(pod: Pod, report: Report) -> Verdict | None:
    """Return what the last check says against equality, if it says something."""
    proof = report.proof
    if proof.reason in held.HELD_REASONS:
        plan = held.describe_plan(report.held_plan) if report.held_plan else ""
        return Verdict(FALSE, proof.reason, _quote(pod.name, "", proof.message or plan))
    if proof.result is Result.UNKNOWN:
        return Verdict(UNKNOWN, known_reason(proof.reason), _quote(pod.name, "", proof.message))
    if proof.reason in (ProofReason.PENDING_SUSPENDED, ProofReason.DRIFT_SUSPENDED) or (report.suspended and report.pending):
        return Verdict(FALSE, Reason.SUSPENDED, _quote(pod.name, "", proof.message or "changes wait while suspended"))
    if proof.result is Result.DRIFT and not (report.proven and not _total(report)):
        reason = Reason.REPAIRING if report.state is State.REPAIRING else known_reason(proof.reason)
        return Verdict(FALSE, reason, _quote(pod.name, "", proof.message))
    return None


def _judge_age(pod: Pod, report: Report, spec: Spec | None, now: datetime) -> Verdict:
    """Return whether the last proof still counts."""
    if not report.proven:
        return Verdict(UNKNOWN, ProofReason.NOT_CHECKED, f"{pod.name} has not proven its index yet")
    limit = timedelta(seconds=spec.consistency.max_staleness_seconds) if spec else timedelta.max
    proven_at = api.parse_time(report.proof.proven_at)
    if proven_at is None or now - proven_at > limit:
        return Verdict(UNKNOWN, Reason.PROOF_TOO_OLD, f"{pod.name} last proved its index longer ago than `maxStalenessSeconds`")
    return Verdict(TRUE, ProofReason.PROVEN, "")


def _find_disagreement(serving: list[Pod], answers: dict[str, Report]) -> str:
    """Return which replicas differ though they stand at the same as-of point; replicas at other points can't be compared.

    Nor can one without a digest: no single snapshot covered its last check, as on a table or a server too slow for that.
    """
    seen: dict[tuple[str, str, str], tuple[str, str]] = {}
    for pod in serving:
        proof = answers[pod.name].proof
        if not proof.root_digest:
            continue
        point = (proof.incarnation, proof.snapshot, proof.digest_spec)
        other, digest = seen.setdefault(point, (pod.name, proof.root_digest))
        if digest != proof.root_digest:
            return f"{other} and {pod.name} have different digests of the same database snapshot"
    return ""


TOO_RARE: Final = "but checks within `maxSourceDutyPercent` are rarer than `maxStalenessSeconds` needs"


def is_too_rare(reports: Iterable[Report], spec: Spec | None) -> bool:
    """Tell whether a replica can't check often enough for its proofs to stay young enough."""
    limit = spec.consistency.max_staleness_seconds if spec else math.inf
    return any(report.proof.attainable_period_seconds > limit for report in reports)


def _add_approval(verdict: Verdict, observed: Observed, plan: Plan) -> Verdict:
    """Return the verdict with what to do, where something is held: it must not be cut off behind a long message."""
    advice = held.explain_approval(observed, plan) if verdict.reason in held.ADVISED_REASONS else ""
    said = _clean(verdict.message, MAX_MESSAGE - len(advice) - 2)
    return Verdict(verdict.status, verdict.reason, f"{said}. {advice}") if advice else verdict


def known_reason(reason: str) -> str:
    """Return the member's reason, or `InternalError` for one that is not in the list."""
    return reason if reason in _KNOWN_REASONS else ProofReason.INTERNAL_ERROR


def _render_condition(index: VectorIndex, kind: ConditionType, verdict: Verdict, now: datetime) -> Condition:
    before = index.status.condition(kind)
    since = before.last_transition_time if before and before.status == verdict.status else api.format_time(now)
    message = _clean(verdict.message, MAX_MESSAGE)
    return Condition(kind, verdict.status, str(verdict.reason), message, since, index.generation)


def _quote(pod: str, reason: str, message: str) -> str:
    parts = (pod, reason, _clean(message, MAX_REPORTED_MESSAGE))
    return ": ".join(part for part in parts if part)


def _clean(text: str, limit: int) -> str:
    """Return the text without control characters and no longer than allowed."""
    text = _UNPRINTABLE.sub(" ", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


# --- members ---


def _serving(observed: Observed) -> list[Pod]:
    return [pod for pod in observed.pods if pod.ready and not pod.terminating]


def _total(report: Report) -> int:
    return report.drift.missing + report.drift.ghost + report.drift.changed + report.drift.duplicate


def _render_member(pod: Pod, observed: Observed) -> Member:
    report = observed.reports.get(pod.name)
    if not isinstance(report, Report):
        problem = f"{pod.trouble}" if pod.trouble else str(report) if report else "it has no address yet"
        known = next((member for member in observed.index.status.members if member.pod == pod.name), None)
        carried_out = known.approved_plans if known else []  # so that they are no news when it answers again
        return Member(pod.name, pod.uid, names.UNREACHABLE, message=_clean(problem, MAX_MEMBER_MESSAGE), approved_plans=carried_out)
    proof, drift = report.proof, report.drift
    return Member(
        pod=pod.name,
        pod_uid=pod.uid,
        state=report.state.value,
        generation=report.view.generation if report.view else None,
        rows=report.view.rows if report.view else None,
        root_digest=proof.root_digest or None,
        as_of=proof.as_of or None,
        incarnation=proof.incarnation or None,
        snapshot=shorten(proof.snapshot) or None,
        digest_spec=proof.digest_spec or None,
        proven_at=proof.proven_at or None,
        result=proof.result.value,
        reason=known_reason(proof.reason),
        message=_clean(proof.message, MAX_MEMBER_MESSAGE) or None,
        drift=Drift(drift.missing, drift.ghost, drift.changed, drift.duplicate),
        drift_samples=_render_samples(report),
        progress=_render_progress(report),
        quarantine=dict(report.quarantine),
        fallback=(report.view.fallback or None) if report.view else None,
        recall_per_million=None if proof.recall is None else round(proof.recall * 1_000_000),
        attainable_period_seconds=math.ceil(proof.attainable_period_seconds) or None,
        oldest_compared_at=proof.oldest_compared_at or None,
        held_plan=_render_plan(report),
        approved_plans=list(report.identity.approved_plans),
    )


def _render_samples(report: Report) -> DriftSamples | None:
    told = report.drift_samples
    samples = DriftSamples(*(list(ids) for ids in (told.missing, told.ghost, told.changed, told.duplicate)))
    return samples if samples != DriftSamples() else None


def _render_progress(report: Report) -> Progress | None:
    told = report.progress
    return Progress(told.generation, told.done, told.expected) if told.generation else None


def _render_plan(report: Report) -> MemberPlan | None:
    plan = report.held_plan
    if plan is None:
        return None
    reason = known_reason(plan.reason)
    return MemberPlan(plan.id, reason, plan.action, plan.removes, plan.replaces, plan.adds, list(plan.sample_ids), plan.held_at or None)


def _find_rows(serving: list[Member]) -> int | None:
    """Return how many rows each serving replica holds; None while their numbers differ or one is unknown."""
    counts = {member.rows for member in serving}
    return counts.pop() if len(counts) == 1 else None


def _find_agreed(serving: list[Member]) -> Member | None:
    """Return what all serving replicas hold by its digest, as of the oldest of their as-of points; None while they differ."""
    if not serving or any(member.root_digest is None or member.rows is None or member.as_of is None for member in serving):
        return None
    if len({(member.root_digest, member.digest_spec, member.rows) for member in serving}) > 1:
        return None
    return min(serving, key=lambda member: member.as_of or "")


def _echo(observed: Observed, before: str | None, read: Callable[[Report], str]) -> str | None:
    """Return the newest wish that all members answer. It never goes back: a new pod answers for its own life only."""
    answers = observed.answers()
    moments = [(api.parse_time(read(report)), read(report)) for report in answers.values()]
    if not moments or len(answers) < len(observed.pods) or any(moment is None for moment, _ in moments):
        return before
    newest, text = min((moment, text) for moment, text in moments if moment is not None)
    known = api.parse_time(before)
    return text if known is None or newest > known else before


def _bound_last_proven(proof: LastProven | None) -> LastProven | None:
    return proof and replace(proof, snapshot=shorten(proof.snapshot))


def _merge_repairs(known: list[Repair], observed: Observed) -> list[Repair]:
    """Return the newest repairs of all replicas; those of pods that are gone stay until newer ones push them out."""
    merged = {(repair.pod, repair.at, repair.action): repair for repair in known}
    for pod, report in observed.answers().items():
        for told in report.repairs:
            if told.at and told.action in REPAIR_ACTIONS and told.result in REPAIR_RESULTS:
                merged[pod, told.at, told.action] = Repair(
                    pod=pod,
                    at=told.at,
                    action=told.action,
                    trigger=told.trigger,
                    result=told.result,
                    drift=Drift(told.drift.missing, told.drift.ghost, told.drift.changed, told.drift.duplicate),
                    sample_ids=list(told.sample_ids),
                    root_before=told.root_before or None,
                    root_after=told.root_after or None,
                    milliseconds=round(told.seconds * 1000),
                )
    return sorted(merged.values(), key=lambda repair: (repair.at, repair.pod, repair.action), reverse=True)[:MAX_REPAIRS]


# --- when to write, what to announce ---


def is_worth_writing(old: Status, new: Status, since_last: timedelta, spec: Spec | None) -> bool:
    """Tell whether to write now: at once what somebody may wait for; what merely moves with Postgres at most now and then."""
    if old == new:
        return False
    if _without_motion(old) != _without_motion(new):
        return True
    staleness = spec.consistency.max_staleness_seconds if spec else 300
    return since_last >= min(timedelta(seconds=staleness / 2), _rest_of_progress(old, new))


def _rest_of_progress(old: Status, new: Status) -> timedelta:
    """Return how long after the last write the progress of builds is worth another one: somebody may sit and watch it."""
    before = {member.pod: member.progress for member in old.members if member.progress}
    steps = [(was, now) for member in new.members if (now := member.progress) and (was := before.get(member.pod)) and was != now]
    if not steps:
        return timedelta.max
    is_far = any((now.rows_done - was.rows_done) * 10 >= now.rows_expected > 0 for was, now in steps)
    return STEP_REST if is_far else PROGRESS_REST


_NUMBER: Final = re.compile(r"\d+")
_MOTION: Final = (
    *("rows", "root_digest", "as_of", "snapshot", "proven_at", "message"),
    *("recall_per_million", "attainable_period_seconds", "oldest_compared_at", "drift_samples"),
)


def _without_motion(status: Status) -> Status:
    """Return the status without what changes at each check of a living database."""
    still = dict.fromkeys(_MOTION)
    conditions = [_without_counts(one) if one.type is ConditionType.CONSISTENT else one for one in status.conditions]
    members = [_without_steps(replace(member, **(still if member.state != names.UNREACHABLE else {}))) for member in status.members]
    return replace(status, conditions=conditions, rows=None, root_digest=None, as_of=None, last_proven=None, members=members)


def _without_steps(member: Member) -> Member:
    """Return the member without how far its build is; that one began or ended stays."""
    return replace(member, progress=Progress(member.progress.generation)) if member.progress else member


def _without_counts(condition: Condition) -> Condition:
    """Return the condition without the counts in its message: how much waits while suspended changes at each check."""
    return replace(condition, message=_NUMBER.sub("0", condition.message))


def find_events(index: VectorIndex, new: Status) -> list[Event]:
    """Return one event for each condition that changed its status or reason, for each new repair, and for each step of a held plan."""
    old = index.status
    return [*_find_transitions(old, new), *_find_new_repairs(old, new), *held.find_plan_news(index, new), *_find_rare_checks(index, new)]


def _find_transitions(old: Status, new: Status) -> Iterable[Event]:
    for condition in new.conditions:
        before = old.condition(condition.type)
        if before and (before.status, before.reason) == (condition.status, condition.reason):
            continue
        if before is None and condition.status is UNKNOWN:
            continue  # nothing was said before, and nothing is now
        if condition.reason in _ORDINARY and (not old.conditions or (before and before.reason in _ORDINARY)):
            continue  # how every index starts; what comes of it will be told
        good = condition.reason in _ORDINARY or (condition.status is TRUE and condition.type is not ConditionType.STALLED)
        verb = "is" if condition.status is not UNKNOWN else "became"
        text = f"{condition.type} {verb} {condition.status}: {condition.message}"
        # What was before stays the same until the status is written: told twice by a kill in between, it is one event all the same.
        since = before.last_transition_time if before else ""
        news = (condition.type, condition.status, condition.reason, since, str(condition.observed_generation))
        yield Event("Normal" if good else "Warning", condition.reason, _clean(text, MAX_MESSAGE), "/".join(news))


def _find_new_repairs(old: Status, new: Status) -> Iterable[Event]:
    known = {(repair.pod, repair.at, repair.action) for repair in old.last_repairs}
    for repair in new.last_repairs:
        if (repair.pod, repair.at, repair.action) in known:
            continue
        found = ", ".join(f"{count} {kind}" for kind, count in api.render(repair.drift).items() if count) or "no row differed"
        failed = repair.result != "repaired"
        reason = ProofReason.REPAIR_FAILED if failed else Reason.REPAIRED
        text = f"{repair.pod}: {repair.action} {'failed' if failed else 'done and compared again'}; found {found}"
        identity = f"repair/{repair.pod}/{repair.at}/{repair.action}"
        yield Event("Warning" if failed else "Normal", reason, _clean(text, MAX_MESSAGE), identity)


def _find_rare_checks(index: VectorIndex, new: Status) -> Iterable[Event]:
    spec = index.spec
    if spec is None:
        return
    limit = spec.consistency.max_staleness_seconds
    slow = [member for member in new.members if (member.attainable_period_seconds or 0) > limit]
    before = any((member.attainable_period_seconds or 0) > limit for member in index.status.members)
    if slow and not before:
        text = (
            f"{slow[0].pod}: {TOO_RARE.removeprefix('but ')}: every {slow[0].attainable_period_seconds} s at best, {limit} s are allowed. "
            "Raise one of the two, or give the table digest columns"
        )
        yield Event("Warning", Reason.PERIOD_UNATTAINABLE, text, f"period/{index.generation}")


def find_malformed_wishes(index: VectorIndex) -> list[Event]:
    """Return one event for each wish that is no RFC 3339 time or no list of plans; what can't be read of it is ignored."""
    wishes = ((names.VALIDATE_REQUESTED_AT, index.validate_wish), (names.REBUILD_REQUESTED_AT, index.rebuild_wish))
    text = "{}: expected an RFC 3339 time such as 2026-11-25T09:00:00Z; ignored"
    wrong = [(name, wish, text.format(name)) for name, wish in wishes if wish and not api.parse_time(wish)]
    if index.approve_wish and not api.is_list_of_plans(index.approve_wish):
        text = "{}: expected at most {} plan ids of 16 hex digits, separated by commas; all else is ignored"
        wrong.append((names.APPROVE_PLAN, index.approve_wish, text.format(names.APPROVE_PLAN, api.MOST_PLANS)))
    return [Event("Warning", Reason.MALFORMED_WISH, told, f"wish/{name}/{api.short_hash(wish)}") for name, wish, told in wrong]
