"""What the operator tells: each rule of the conditions, and when it is worth a write or an event."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as change
from prometheus_client import REGISTRY

from tests.support.vector_index import NOW, make_index, make_observed, make_pod, make_report, make_stateful_set, plan_of
from vectorindex_operator import api, metrics, status
from vectorindex_operator.api import Json, Status, VectorIndex
from vectorindex_operator.errors import ReportError
from vectorindex_operator.names import ConditionType
from vectorindex_operator.plan import Observed
from vectorindex_operator.reports import Report

READY, CONSISTENT, SOURCE = ConditionType.READY, ConditionType.CONSISTENT, ConditionType.SOURCE_AVAILABLE


def render(observed: Observed, refusal: str = "") -> Status:
    return status.render_status(observed, plan_of(observed), refusal, NOW)


def says(rendered: Status, kind: ConditionType) -> tuple[str, str]:
    condition = rendered.condition(kind)
    assert condition is not None
    return str(condition.status), condition.reason


def told(observed: Observed, kind: ConditionType) -> tuple[str, str]:
    return says(render(observed), kind)


def with_reports(index: VectorIndex | None = None, ready: bool = True, **changes: Any) -> Observed:
    """Two members, of which the first says what is given."""
    index = index or make_index()
    observed = make_observed(index)
    reports = {**observed.reports, "docs-index-0": make_report(index, "pod-0", **changes)}
    return replace(observed, reports=reports, pods=(make_pod(0, ready=ready), make_pod(1, ready=ready)))


def test_an_index_that_serves_proven_answers_says_so() -> None:
    rendered = render(make_observed())
    assert [(c.type.value, c.status.value, c.reason) for c in rendered.conditions] == [
        ("Ready", "True", "Serving"),
        ("Consistent", "True", "Proven"),
        ("SourceAvailable", "True", "Reachable"),
    ]
    assert (rendered.rows, rendered.drift, rendered.replicas, rendered.ready_replicas) == (9500, 0, 2, 2)
    assert rendered.root_digest == "9500:0123456789abcdef-fedcba9876543210"
    assert rendered.as_of == "2026-11-25T09:00:01.250Z"
    assert rendered.selector == "vectorindex.dev/index=docs,app.kubernetes.io/component=indexer"
    assert rendered.source == "pg.search.svc:5432/app public.embeddings"


@pytest.mark.parametrize(
    ("replicas", "serving", "expected"),
    [
        (1, 1, ("True", "Serving")),
        (1, 0, ("False", "Starting")),
        (2, 2, ("True", "Serving")),
        (2, 1, ("True", "Degraded")),
        (2, 0, ("False", "Starting")),
        (5, 4, ("True", "Degraded")),
        (5, 3, ("False", "Starting")),
    ],
)
def test_ready_needs_all_replicas_but_one_and_at_least_one(replicas: int, serving: int, expected: tuple[str, str]) -> None:
    index = make_index(replicas=replicas)
    pods = tuple(make_pod(number, ready=number < serving) for number in range(replicas))
    reports = {pod.name: make_report(index, pod.uid, state="Loading") for pod in pods}
    assert told(Observed(index, {}, (), pods, reports), READY) == expected


def test_too_few_replicas_are_explained_by_what_hinders_them() -> None:
    index = make_index()
    unknown = {"proof": {"result": "unknown", "reason": "ModelKeyNotFound", "message": "the table has: m1"}}
    pods = (make_pod(0, ready=False), make_pod(1, ready=False))
    blind = Observed(index, {}, (), pods, {"docs-index-0": make_report(index, "pod-0", **unknown)})
    ready = render(blind).condition(READY)
    assert ready is not None
    assert ready.reason == "NotProven"
    assert ready.message == "0 of 2 replicas serve. docs-index-0: ModelKeyNotFound: the table has: m1"
    crashing = replace(blind, pods=(make_pod(0, ready=False, trouble="CrashLoopBackOff"), pods[1]))
    assert told(crashing, READY) == ("False", "PodsFailing")
    assert told(replace(blind, pods=()), READY) == ("False", "NoPods")


def test_the_one_replica_that_does_not_serve_is_named_where_a_rollout_stands_still_for_it() -> None:
    index = make_index()
    unknown = {"proof": {"result": "unknown", "reason": "ModelKeyNotFound", "message": "the table has: m1"}}
    reports = {"docs-index-0": make_report(index, "pod-0"), "docs-index-1": make_report(index, "pod-1", **unknown)}
    ready = render(Observed(index, {}, (), (make_pod(0), make_pod(1, ready=False)), reports)).condition(READY)
    assert ready is not None
    assert (ready.status, ready.reason) == ("True", "Degraded")
    assert ready.message == "1 of 2 replicas serve. docs-index-1: ModelKeyNotFound: the table has: m1"


def test_a_replica_that_only_starts_changes_no_message_at_each_step() -> None:
    index = make_index()
    pods = (make_pod(0), make_pod(1, ready=False))
    for state in ("Loading", "Proving"):
        ready = render(Observed(index, {}, (), pods, {"docs-index-1": make_report(index, "pod-1", state=state)})).condition(READY)
        assert ready is not None
        assert ready.message == "1 of 2 replicas serve"


def test_a_terminating_pod_does_not_serve() -> None:
    observed = replace(make_observed(), pods=(make_pod(0, terminating=True), make_pod(1, terminating=True)))
    assert told(observed, READY)[0] == "False"
    assert render(observed).ready_replicas == 0


UNPROVEN: Json = {"proven": False}
CASES: dict[str, tuple[Json, tuple[str, str]]] = {
    "drift": ({**UNPROVEN, "proof": {"result": "drift", "reason": "DriftFound"}, "drift": {"ghost": 3}}, ("False", "DriftFound")),
    "repairing": (
        {**UNPROVEN, "state": "Repairing", "proof": {"result": "drift", "reason": "DriftFound"}, "drift": {"missing": 1}},
        ("False", "Repairing"),
    ),
    "repair failed": (
        {**UNPROVEN, "proof": {"result": "drift", "reason": "RepairFailed"}, "drift": {"missing": 1}},
        ("False", "RepairFailed"),
    ),
    "repaired in the same check": ({"proof": {"result": "drift", "reason": "DriftFound"}}, ("True", "Proven")),
    "model key": ({"proof": {"result": "unknown", "reason": "ModelKeyNotFound"}}, ("Unknown", "ModelKeyNotFound")),
    "no rows": ({"proof": {"result": "unknown", "reason": "NoLiveRows"}}, ("Unknown", "NoLiveRows")),
    "source away": ({"proof": {"result": "unknown", "reason": "HostUnreachable"}}, ("Unknown", "HostUnreachable")),
    "a reason that is not in the list": ({"proof": {"result": "unknown", "reason": "Whatever"}}, ("Unknown", "InternalError")),
    "pending while suspended": (
        {"suspended": True, "pending": 4, "proof": {"result": "drift", "reason": "PendingSuspended"}, **UNPROVEN},
        ("False", "Suspended"),
    ),
    "drift while suspended": (
        {"suspended": True, "proof": {"result": "drift", "reason": "DriftSuspended"}, "drift": {"ghost": 1}, **UNPROVEN},
        ("False", "Suspended"),
    ),
    "suspended and equal": ({"suspended": True}, ("True", "Proven")),
    "never proven": ({**UNPROVEN, "proof": {"provenAt": ""}}, ("Unknown", "NotChecked")),
    "proof too old": ({"proof": {"provenAt": "2026-11-25T08:55:00Z"}}, ("Unknown", "ProofTooOld")),
    "proof old enough to count": ({"proof": {"provenAt": "2026-11-25T08:55:30Z"}}, ("True", "Proven")),
    "previous source": ({"identity": {"identityHash": "00"}}, ("Unknown", "RollingOut")),
    "other digest, same snapshot": ({"proof": {"rootDigest": "9500:0000000000000000-0000000000000000"}}, ("False", "ReplicasDisagree")),
    "one digest only, same snapshot": ({"proof": {"rootDigest": ""}}, ("True", "Proven")),
    "other digest, other snapshot": (
        {"proof": {"rootDigest": "9501:0000000000000000-0000000000000000", "snapshot": "740:740:"}},
        ("True", "Proven"),
    ),
}


@pytest.mark.parametrize(("told_by_first", "expected"), CASES.values(), ids=CASES.keys())
def test_consistent_is_what_the_worst_serving_replica_says(told_by_first: Json, expected: tuple[str, str]) -> None:
    assert told(with_reports(**told_by_first), CONSISTENT) == expected


def test_that_replicas_disagree_is_a_metric_of_its_own() -> None:
    def shown(observed: Observed) -> float | None:
        metrics.show_status(observed.index.key, render(observed))
        key = {"namespace": observed.index.key.namespace, "name": observed.index.key.name}
        try:
            return REGISTRY.get_sample_value("vectorindex_operator_replicas_disagree", key)
        finally:
            metrics.forget(observed.index.key)
            assert REGISTRY.get_sample_value("vectorindex_operator_replicas_disagree", key) is None

    assert shown(with_reports()) == 0
    assert shown(with_reports(proof={"result": "drift", "reason": "DriftFound"}, drift={"ghost": 3})) == 0
    assert shown(with_reports(proof={"rootDigest": "9500:0000000000000000-0000000000000000"})) == 1


def test_a_replica_that_does_not_serve_does_not_spoil_those_that_do() -> None:
    observed = with_reports(**UNPROVEN, proof={"result": "drift", "reason": "DriftFound"}, drift={"ghost": 3})
    observed = replace(observed, pods=(make_pod(0, ready=False), make_pod(1)))
    assert told(observed, CONSISTENT) == ("True", "Proven")
    assert render(observed).drift == 3


def test_without_serving_replicas_consistent_tells_what_hinders_them() -> None:
    told_by_first: Json = {"proof": {"result": "unknown", "reason": "ModelKeyNotFound", "message": "no row has key a:b; the table has a"}}
    rendered = render(with_reports(ready=False, **told_by_first))
    assert says(rendered, CONSISTENT) == ("Unknown", "ModelKeyNotFound")
    condition = rendered.condition(CONSISTENT)
    assert condition is not None
    assert condition.message == "docs-index-0: no row has key a:b; the table has a"


def test_nothing_is_consistent_while_nothing_serves() -> None:
    assert told(with_reports(ready=False), CONSISTENT) == ("Unknown", "NoServingReplica")
    assert told(replace(make_observed(), pods=(), reports={}), CONSISTENT) == ("Unknown", "NoPods")


def test_a_serving_replica_without_an_answer_makes_consistent_unknown() -> None:
    observed = make_observed()
    observed = replace(observed, reports={**observed.reports, "docs-index-1": ReportError("it can't be reached")})
    assert told(observed, CONSISTENT) == ("Unknown", "MembersUnreachable")
    assert render(observed).members[1].state == "Unreachable"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"reachable": False, "reason": "AuthenticationFailed", "message": "role reader was refused"}, ("False", "AuthenticationFailed")),
        ({"reachable": False, "reason": "HostUnreachable", "message": ""}, ("False", "HostUnreachable")),
        ({"reachable": False, "reason": "NotTried", "message": ""}, ("True", "Reachable")),
    ],
)
def test_the_source_is_available_if_all_replicas_that_tried_reach_it(source: Json, expected: tuple[str, str]) -> None:
    assert told(with_reports(source=source), SOURCE) == expected


def test_reconciling_and_stalled_are_there_only_while_true() -> None:
    observed = make_observed()
    rolling = make_stateful_set(observed.index, 2, updatedReplicas=1)
    observed = replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): rolling})
    assert told(observed, ConditionType.RECONCILING) == ("True", "RollingOut")
    last = make_stateful_set(observed.index, 2, currentRevision="a", updateRevision="b")  # all are replaced, the last is not ready yet
    assert told(replace(observed, children={**observed.children, ("StatefulSet", "docs-index"): last}), ConditionType.RECONCILING) == (
        "True",
        "RollingOut",
    )
    foreign: Json = {"metadata": {"name": "docs-index", "uid": "x", "resourceVersion": "1"}}
    stuck = render(replace(observed, children={**observed.children, ("Service", "docs-index"): foreign}))
    assert says(stuck, ConditionType.STALLED) == ("True", "NameConflict")
    assert stuck.condition(ConditionType.RECONCILING) is None
    assert says(render(observed, "POST .../statefulsets: quota (HTTP 403)"), ConditionType.STALLED) == ("True", "Refused")
    assert told(replace(observed, index=replace(observed.index, spec=None, problem="spec: x")), ConditionType.STALLED) == (
        "True",
        "InvalidSpec",
    )


def test_drift_under_repair_keeps_ready_and_does_not_reconcile() -> None:
    rendered = render(with_reports(**CASES["repairing"][0]))
    assert says(rendered, READY) == ("True", "Serving")
    assert rendered.condition(ConditionType.RECONCILING) is None


def test_rows_and_digest_are_published_only_while_all_serving_replicas_agree() -> None:
    later = with_reports(proof={"asOf": "2026-11-25T09:00:20Z"})
    assert render(later).as_of == "2026-11-25T09:00:01.250Z"
    differ = render(with_reports(proof={"rootDigest": "9501:0000000000000000-0000000000000000"}, view={"rows": 9501}))
    assert (differ.rows, differ.root_digest, differ.as_of) == (None, None, None)
    without = render(with_reports(proof={"rootDigest": ""}))
    assert (without.rows, without.root_digest, without.as_of) == (9500, None, None)
    assert [member.rows for member in differ.members] == [9501, 9500]


def test_a_wish_is_answered_when_all_members_answer_it_and_never_unanswered_again() -> None:
    early, late = "2026-11-25T09:00:00Z", "2026-11-25T09:05:00Z"
    assert render(with_reports(identity={"validateRequestedAt": late})).validate_requested_at == early
    assert render(with_reports(identity={"validateRequestedAt": ""})).validate_requested_at is None
    known = make_index(status=Status(observed_generation=1, validate_requested_at=late))
    assert render(with_reports(known)).validate_requested_at == late
    assert render(with_reports(known, identity={"validateRequestedAt": ""})).validate_requested_at == late


def test_text_of_a_member_is_bounded_and_has_no_control_characters() -> None:
    rendered = render(with_reports(proof={"result": "unknown", "reason": "SourceError", "message": "a\u001b[31m\n" + "x" * 9000}))
    condition, message = rendered.condition(CONSISTENT), rendered.members[0].message
    assert condition is not None
    assert message is not None
    for text, limit in ((condition.message, 1024), (message, 512)):
        assert len(text) <= limit
        assert text.isprintable()


def test_a_very_long_snapshot_is_published_as_its_lower_end() -> None:
    long = "700:900:" + ",".join(str(number) for number in range(700, 899))
    assert render(with_reports(proof={"snapshot": long})).members[0].snapshot == "700:700:"


def test_repairs_are_kept_newest_first_and_bounded() -> None:
    repairs = [_repair(f"2026-11-25T08:{minute:02}:00Z") for minute in range(10)]
    known = make_index(status=Status(observed_generation=1, last_repairs=[_known("2026-11-25T07:00:00Z"), _known("2026-11-25T08:59:00Z")]))
    kept = render(with_reports(known, repairs=repairs)).last_repairs
    assert len(kept) == 10
    assert [repair.at for repair in kept[:2]] == ["2026-11-25T08:59:00Z", "2026-11-25T08:09:00Z"]


def _repair(at: str) -> Json:
    drift = {"missing": 2, "ghost": 1, "changed": 0, "duplicate": 0}
    roots = {"rootBefore": "", "rootAfter": ""}
    return {
        "at": at,
        "action": "patch",
        "trigger": "check",
        "result": "repaired",
        "drift": drift,
        "sampleIds": ["1"],
        "seconds": 0.25,
        **roots,
    }


def _known(at: str) -> api.Repair:
    return api.Repair("docs-index-9", at, "rebuild", "check", "repaired", api.Drift())


# --- writes and events ---


def written(observed: Observed) -> Observed:
    """Return the observation after its status was written and read back."""
    rendered = msgspec.json.decode(msgspec.json.encode(api.render(render(observed))))
    return replace(observed, index=replace(observed.index, status=api.parse_status(rendered)))


def test_a_status_written_and_read_back_is_not_written_again() -> None:
    observed = written(make_observed())
    assert observed.index.status == render(observed)
    assert not status.is_worth_writing(observed.index.status, render(observed), timedelta(days=9), observed.index.spec)
    assert status.find_events(observed.index, render(observed)) == []


@pytest.mark.parametrize(
    ("told_by_first", "since", "worth"),
    [
        ({"proof": {"asOf": "2026-11-25T09:00:20Z"}}, 149, False),
        ({"proof": {"asOf": "2026-11-25T09:00:20Z"}}, 150, True),
        ({"proof": {"message": "9501 rows", "rootDigest": "9501:0000000000000000-0000000000000000", "snapshot": "9:9:"}}, 149, False),
        ({"drift": {"ghost": 1}}, 0, True),
        ({"proof": {"result": "unknown", "reason": "NoLiveRows"}}, 0, True),
        ({"quarantine": {"NullVector": 2}}, 0, True),
        ({"repairs": [_repair("2026-11-25T08:59:30Z")]}, 0, True),
        ({"view": {"generation": 4}}, 0, True),
        ({"driftSamples": {"ghost": ["7"]}}, 149, False),  # with the same counts, and counts are told at once
        ({"progress": {"generation": 4}}, 0, True),
    ],
)
def test_what_moves_with_the_database_is_written_now_and_then_all_else_at_once(told_by_first: Json, since: int, worth: bool) -> None:
    index = written(make_observed()).index
    new = render(with_reports(index, **told_by_first))
    assert status.is_worth_writing(index.status, new, timedelta(seconds=since), index.spec) is worth


@pytest.mark.parametrize(
    ("done", "since", "worth"), [(100, 900, False), (1099, 2, False), (1100, 1, False), (1100, 2, True), (101, 14, False), (101, 15, True)]
)
def test_progress_is_written_for_who_watches_it_but_at_a_bounded_rate(done: int, since: int, worth: bool) -> None:
    def building(rows: int) -> Json:
        return {"progress": {"generation": 4, "done": rows, "expected": 10_000}}

    index = written(with_reports(**building(100))).index
    new = render(with_reports(index, **building(done)))
    assert status.is_worth_writing(index.status, new, timedelta(seconds=since), index.spec) is worth
    assert status.is_worth_writing(index.status, render(make_observed(index)), timedelta(0), index.spec)  # it has ended


@settings(max_examples=40)
@given(
    looks=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100), st.integers(0, 3)), min_size=2, max_size=20),
    expected=st.sampled_from([0, 100]),
)
def test_however_a_build_and_its_proofs_move_writes_are_few(looks: list[tuple[int, int, int]], expected: int) -> None:
    """One in 15 s, or one for each tenth of the rows; without a build, one in half of maxStalenessSeconds."""

    def count_writes(building: bool) -> int:
        index, writes, written_at, now = written(make_observed()).index, 0, 0, 0
        for place, (seconds, rows, ghost) in enumerate(looks):
            told: Json = {"driftSamples": {"ghost": [str(ghost)]}, "proof": {"asOf": f"2026-11-25T09:00:{place:02}Z"}}
            told |= {"progress": {"generation": 4, "done": rows, "expected": expected}} if building else {}
            observed, now = with_reports(index, **told), now + seconds
            if status.is_worth_writing(index.status, render(observed), timedelta(seconds=now - written_at), index.spec):
                index, writes, written_at = written(observed).index, writes + 1, now
        return writes

    time = sum(seconds for seconds, _, _ in looks)
    rows = [rows for _, rows, _ in looks]
    gained = sum(max(0, after - before) for before, after in itertools.pairwise(rows)) if expected else 0
    assert count_writes(building=False) <= time / 150
    assert count_writes(building=True) <= 1 + time / 15 + gained / 10  # the first tells that it has begun


def test_progress_and_rows_that_differ_reach_the_status_and_nothing_of_an_earlier_image() -> None:
    told = with_reports(driftSamples={"ghost": ["7", "9"]}, progress={"generation": 4, "done": 5, "expected": 9})
    member = api.render(render(told).members[0])
    assert member["driftSamples"] == {"ghost": ["7", "9"]}
    assert member["progress"] == {"generation": 4, "rowsDone": 5, "rowsExpected": 9}
    earlier = api.render(render(with_reports(driftSamples=None, progress={"generation": None, "done": 9, "expected": 9})).members[0])
    assert {"driftSamples", "progress"}.isdisjoint(earlier)


def test_how_much_waits_while_suspended_is_written_now_and_then() -> None:
    def waiting(index: VectorIndex, rows: int) -> Observed:
        proof = {"result": "drift", "reason": "PendingSuspended", "message": f"{rows} upstream changes wait"}
        return with_reports(index, suspended=True, pending=rows, proof=proof)

    index = written(waiting(make_observed().index, 3)).index
    new = render(waiting(index, 4))
    assert new != index.status
    assert not status.is_worth_writing(index.status, new, timedelta(seconds=149), index.spec)
    assert status.is_worth_writing(index.status, new, timedelta(seconds=150), index.spec)


def test_each_transition_is_one_event_and_a_proof_that_ages_is_none() -> None:
    index = written(make_observed()).index
    drifted = render(with_reports(index, **CASES["drift"][0]))
    (event,) = status.find_events(index, drifted)
    assert (event.kind, event.reason) == ("Warning", "DriftFound")
    moved = render(with_reports(index, proof={"asOf": "2026-11-25T09:00:20Z"}))
    assert status.find_events(index, moved) == []


def test_a_repair_is_one_event_that_says_what_was_found() -> None:
    index = written(make_observed()).index
    (event,) = status.find_events(index, render(with_reports(index, repairs=[_repair("2026-11-25T08:59:30Z")])))
    assert (event.kind, event.reason) == ("Normal", "Repaired")
    assert event.message == "docs-index-0: patch done and compared again; found 2 missing, 1 ghost"


def test_how_every_index_starts_is_no_news_and_what_comes_of_it_is() -> None:
    empty = Observed(make_index())
    assert status.find_events(empty.index, render(empty)) == []
    waiting = written(empty).index
    pods = Observed(waiting, pods=(make_pod(ready=False, ip=""),))
    assert render(pods).condition(READY) != waiting.status.condition(READY)
    assert status.find_events(waiting, render(pods)) == []
    serving = replace(make_observed(), index=written(pods).index)
    assert {"Serving", "Proven"} <= {event.reason for event in status.find_events(serving.index, render(serving))}


def test_a_replica_that_goes_away_later_is_news() -> None:
    degraded = make_observed(written(make_observed()).index, pods=1)
    assert "Degraded" in {event.reason for event in status.find_events(degraded.index, render(degraded))}


def test_transition_time_moves_with_the_status_only() -> None:
    observed = written(make_observed())
    old = observed.index.status.condition(CONSISTENT)
    assert old is not None
    aged = change(observed.index.status, conditions=[change(old, last_transition_time="2026-01-01T00:00:00Z", reason="Other")])
    rendered = render(replace(observed, index=replace(observed.index, status=aged)))
    kept, fresh = rendered.condition(CONSISTENT), rendered.condition(READY)
    assert kept is not None
    assert fresh is not None
    assert (kept.last_transition_time, kept.reason) == ("2026-01-01T00:00:00Z", "Proven")
    assert fresh.last_transition_time == api.format_time(NOW)


@pytest.mark.parametrize(
    ("wish", "events"), [("", 0), ("2026-11-25T09:00:00Z", 0), ("2026-11-25T10:00:00+01:00", 0), ("now", 1), ("2026-11-25", 1)]
)
def test_a_wish_that_is_no_time_is_told_once(wish: str, events: int) -> None:
    index = make_index({"vectorindex.dev/validate-requested-at": wish})
    assert len(status.find_malformed_wishes(index)) == events


def test_the_golden_report_reaches_the_status() -> None:
    observed = make_observed()
    report = observed.reports["docs-index-0"]
    assert isinstance(report, Report)
    member = api.render(render(observed).members[0])
    assert member == {
        "pod": "docs-index-0",
        "podUid": "pod-0",
        "state": "Serving",
        "generation": 3,
        "rows": 9500,
        "rootDigest": "9500:0123456789abcdef-fedcba9876543210",
        "asOf": "2026-11-25T09:00:01.250Z",
        "incarnation": "7390000000000000001/primary/1",
        "snapshot": "731:735:732",
        "digestSpec": "sha256-128/int8/bytea/1c2d3e4f",
        "provenAt": "2026-11-25T09:00:01.300Z",
        "result": "ok",
        "reason": "Proven",
        "message": "9500 live rows, all equal",
        "drift": {"missing": 0, "ghost": 0, "changed": 0, "duplicate": 0},
        "quarantine": {"NullVector": 1},
        "recallPerMillion": 998000,
        "attainablePeriodSeconds": 1,
        "oldestComparedAt": "2026-11-25T08:30:00.000Z",
    }
