"""Of whatever is observed: status, metrics and events say the same, nothing is told twice, and what is told fits the schema."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.vector_index import NOW, make_index, make_observed, make_pod, make_report, make_stateful_set, plan_of
from vectorindex_operator import api, metrics, names, status
from vectorindex_operator.api import Json, Status
from vectorindex_operator.errors import ReportError
from vectorindex_operator.names import ConditionStatus, ConditionType, DriftKind, ProofReason, QuarantineReason, Reason, SourceReason, State
from vectorindex_operator.plan import Observed

ROOT = Path(__file__).resolve().parents[3]
(VERSION,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
SCHEMA: Json = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ALWAYS = {ConditionType.READY, ConditionType.CONSISTENT, ConditionType.SOURCE_AVAILABLE}
WORDS = {*Reason, *SourceReason, *ProofReason}
ORDINARY = {  # how every index starts, and so no news
    *(Reason.NO_PODS, Reason.STARTING, Reason.NO_SERVING_REPLICA, Reason.ROLLING_OUT),
    *(SourceReason.NOT_TRIED, ProofReason.NOT_CHECKED),
}
EARLIER = NOW - timedelta(minutes=7)
PLANS = ("1111111111111111", "2222222222222222")
TEXT = st.text(max_size=40) | st.just("x" * 9000)
TIMES = st.sampled_from(["", "2026-11-25T08:00:00Z", "2026-11-25T09:00:00Z", "2026-11-25T09:00:20.5Z"])
COUNTS = st.sampled_from([0, 1, 7, 2**62])
DRIFTS = st.fixed_dictionaries({kind.value: COUNTS for kind in DriftKind})

PROOFS = st.fixed_dictionaries(
    {
        "result": st.sampled_from(["ok", "drift", "unknown"]),
        "reason": st.sampled_from([*ProofReason, *SourceReason, "UnheardOf"]),
        "message": TEXT,
        "provenAt": TIMES,
        "asOf": TIMES,
        "rootDigest": st.sampled_from(["", "9500:0123456789abcdef-fedcba9876543210", "1:0000000000000000-0000000000000000"]),
        "snapshot": st.sampled_from(["731:735:732", "7:9:" + ",".join(map(str, range(900)))]),
        "attainablePeriodSeconds": st.sampled_from([0.0, 0.4, 900.0]),
    }
)
HELD = st.none() | st.fixed_dictionaries(
    {
        "id": st.sampled_from(PLANS),
        "reason": st.sampled_from(["ChangeHeld", "SourceRegressed", "RepairHeld", "UnheardOf"]),
        "action": st.sampled_from(["patch", "rebuild", "replace"]),
        "removes": COUNTS,
        "replaces": COUNTS,
        "adds": COUNTS,
        "sampleIds": st.lists(st.sampled_from(["7", "ä 🙂"]), max_size=2),
        "heldAt": TIMES,
    }
)
REPAIRS = st.lists(
    st.fixed_dictionaries(
        {
            "at": TIMES,
            "action": st.sampled_from(["patch", "rebuild", "magic"]),
            "trigger": st.just("check"),
            "result": st.sampled_from(["repaired", "failed", "lost"]),
            "drift": DRIFTS,
            "sampleIds": st.just(["1"]),
            "rootBefore": st.just(""),
            "rootAfter": st.just(""),
            "seconds": st.sampled_from([0.0, 1.5]),
        }
    ),
    max_size=3,
)
SAYINGS = st.fixed_dictionaries(
    {
        "state": st.sampled_from([*State]),
        "proven": st.booleans(),
        "suspended": st.booleans(),
        "pending": COUNTS,
        "proof": PROOFS,
        "drift": DRIFTS,
        "heldPlan": HELD,
        "repairs": REPAIRS,
        "source": st.fixed_dictionaries(
            {"reachable": st.booleans(), "reason": st.sampled_from([*SourceReason, "UnheardOf"]), "message": TEXT}
        ),
        "view": st.fixed_dictionaries({"rows": COUNTS, "fallback": st.sampled_from(["", "TooFewRowsToTrain"])}),
        "quarantine": st.dictionaries(st.sampled_from([*QuarantineReason]), COUNTS, max_size=2),
        "identity": st.fixed_dictionaries(
            {},
            optional={
                "identityHash": st.just("00"),
                "approvedPlans": st.lists(st.sampled_from(PLANS), unique=True),
                "validateRequestedAt": TIMES,
            },
        ),
    }
)
PODS = st.fixed_dictionaries(
    {
        "ready": st.booleans(),
        "terminating": st.booleans(),
        "trouble": st.sampled_from(["", "", "CrashLoopBackOff"]),
    }
)
INDEXES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "annotations": st.fixed_dictionaries(
            {},
            optional={
                names.VALIDATE_REQUESTED_AT: st.sampled_from(["2026-11-25T09:00:00Z", "soon"]),
                names.REBUILD_REQUESTED_AT: st.sampled_from(["2026-11-25T09:00:00Z", "soon"]),
                names.APPROVE_PLAN: st.sampled_from([PLANS[0], ",".join(PLANS), "soon"]),
            },
        ),
        "generation": st.sampled_from([1, 2]),
        "replicas": st.sampled_from([1, 2, 5]),
        "suspend": st.booleans(),
        "healing": st.fixed_dictionaries({"mode": st.sampled_from(["Auto", "Plan", "Observe"])}),
    }
)
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
CHILDREN = make_observed().children
FOREIGN: Json = {"metadata": {"name": "docs-index", "uid": "x", "resourceVersion": "1"}}


@st.composite
def observations(draw: st.DrawFn) -> tuple[Observed, str]:
    """An index in any state, and what the API server refused, if it did."""
    index = make_index(**draw(INDEXES))
    pods, reports = [], {}
    for number in range(draw(st.integers(0, 3))):
        pod = make_pod(number, **draw(PODS))
        pods.append(pod)
        said = draw(st.none() | st.just(ReportError("it gives no answer")) | SAYINGS)
        if said is not None:
            reports[pod.name] = said if isinstance(said, ReportError) else make_report(index, pod.uid, **said)
    observed = Observed(index, CHILDREN, (), tuple(pods), reports)
    trouble = draw(st.sampled_from(["", "", "rolling", "foreign", "nothing there", "no spec"]))
    return _trouble(observed, trouble), draw(st.sampled_from(["", "", "POST …/statefulsets: quota (HTTP 403)"]))


def _trouble(observed: Observed, trouble: str) -> Observed:
    children = dict(observed.children)
    if trouble == "rolling":
        children["StatefulSet", "docs-index"] = make_stateful_set(observed.index, len(observed.pods), updatedReplicas=0)
    if trouble == "foreign":
        children["Service", "docs-index"] = FOREIGN
    if trouble == "nothing there":
        children = {}
    index = replace(observed.index, spec=None, problem="spec: wrong") if trouble == "no spec" else observed.index
    return replace(observed, children=children, index=index)


def render(observed: Observed, refusal: str, now: Any = NOW) -> Status:
    return status.render_status(observed, plan_of(observed, now), refusal, now)


def read_back(rendered: Status) -> Status:
    """Return the status as it comes back from the API server."""
    return api.parse_status(msgspec.json.decode(msgspec.json.encode(api.render(rendered))))


def knowing(observed: Observed, old: Status) -> Observed:
    return replace(observed, index=replace(observed.index, status=read_back(old)))


@FEW
@given(observations())
def test_conditions_are_those_that_must_be_there_in_words_of_the_closed_list(seen: tuple[Observed, str]) -> None:
    observed, refusal = seen
    rendered = render(observed, refusal)
    kinds = [condition.type for condition in rendered.conditions]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) >= ALWAYS
    extra = set(kinds) - ALWAYS
    assert len(extra) <= 1  # what stands still is not on its way
    for condition in rendered.conditions:
        assert condition.type in ALWAYS or condition.status is ConditionStatus.TRUE
        assert condition.reason in WORDS
        assert condition.observed_generation == rendered.observed_generation == observed.index.generation


@FEW
@given(observations())
def test_what_is_told_fits_the_schema(seen: tuple[Observed, str]) -> None:
    """Else the API server would refuse the whole status, and nobody would be told anything."""
    VALIDATOR.validate(msgspec.json.decode(msgspec.json.encode(api.render(render(*seen)))))


@FEW
@given(observations())
def test_what_was_told_is_not_told_again(seen: tuple[Observed, str]) -> None:
    observed, refusal = seen
    first = render(observed, refusal)
    later = knowing(observed, first)
    again = render(later, refusal, NOW + timedelta(seconds=1))
    assert again == later.index.status
    assert not status.is_worth_writing(later.index.status, again, timedelta(days=9), later.index.spec)
    assert status.find_events(later.index, again) == []


@FEW
@given(observations(), observations())
def test_times_of_transition_move_with_the_status_alone(before: tuple[Observed, str], seen: tuple[Observed, str]) -> None:
    old = render(*before, EARLIER)
    observed, refusal = seen
    rendered = render(knowing(observed, old), refusal)
    for condition in rendered.conditions:
        former = old.condition(condition.type)
        moved = former is None or former.status != condition.status
        assert condition.last_transition_time == api.format_time(NOW if moved else EARLIER)


@FEW
@given(observations(), observations())
def test_each_change_of_a_condition_is_one_event_that_says_the_same(before: tuple[Observed, str], seen: tuple[Observed, str]) -> None:
    old = render(*before, EARLIER)
    observed = knowing(seen[0], old)
    rendered = render(observed, seen[1])
    events = status.find_events(observed.index, rendered)
    assert len({event.identity for event in events}) == len(events)
    for condition in rendered.conditions:
        former = old.condition(condition.type)
        same = former is not None and (former.status, former.reason) == (condition.status, condition.reason)
        start = former is not None and {former.reason, condition.reason} <= ORDINARY
        silent = same or start or (former is None and condition.status is ConditionStatus.UNKNOWN)
        told = [event for event in events if event.message.startswith(f"{condition.type} ")]
        assert [event.reason for event in told] == ([] if silent else [condition.reason])
    assert {event.reason for event in events} <= WORDS


@FEW
@given(observations())
def test_metrics_say_what_the_status_says(seen: tuple[Observed, str]) -> None:
    observed, refusal = seen
    rendered = render(observed, refusal)
    key = observed.index.key
    metrics.show_status(key, rendered)
    try:
        for kind in ConditionType:
            condition = rendered.condition(kind)
            shown = [value for value in ConditionStatus if read(metrics.CONDITION, *key, kind, value)]
            assert shown == [condition.status if condition else ConditionStatus.FALSE]
        assert read(metrics.MEMBERS, *key, "true") == rendered.ready_replicas
        assert sum(read(metrics.MEMBERS, *key, serving) or 0 for serving in ("true", "false")) == rendered.replicas
        assert sum(read(metrics.DRIFT_ROWS, *key, kind) or 0 for kind in DriftKind) == float(rendered.drift or 0)
        assert read(metrics.ROWS, *key) == rendered.rows
        consistent = rendered.condition(ConditionType.CONSISTENT)
        assert read(metrics.DISAGREE, *key) == float(consistent is not None and consistent.reason == "ReplicasDisagree")
        assert read(metrics.HELD_PLANS, *key) == sum(not plan.approved for plan in rendered.held_plans)
    finally:
        metrics.forget(key)


def read(gauge: Any, *labels: str) -> float | None:
    """Return the value of a gauge with these labels, or None when there is none."""
    for family in gauge.collect():
        for sample in family.samples:
            if tuple(sample.labels.values()) == tuple(map(str, labels)):
                return float(sample.value)
    return None
