"""An alert is judged by the payload and the index alone, so every replica comes to the same, and so does a repetition."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.notifications import ALERT, make_alert, make_grafana_payload, make_payload
from tests.support.vector_index import make_manifest
from vectorindex_operator import api, heal, names
from vectorindex_operator.errors import PayloadError
from vectorindex_operator.heal import Budget, Call, Rules, Standing, decide, find_calls, parse_payload, parse_standing
from vectorindex_operator.names import HealOutcome, Key

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
RULES = Rules(alerts=frozenset({ALERT}), namespaces=("search", "shop"))
DOCS = Key("search", "docs")
SINCE = "2026-11-25T11:55:00.123456Z"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def heard(*alerts: api.Json, rules: Rules = RULES) -> tuple[list[Call], dict[str, int]]:
    calls, outcomes = find_calls(parse_payload(json.dumps(make_payload(*alerts)).encode()), rules, NOW)
    return calls, {str(outcome): count for outcome, count in outcomes.items()}


# --- payloads


@pytest.mark.parametrize(
    "payload", [make_payload(make_alert(SINCE)), make_grafana_payload(make_alert(SINCE))], ids=["Alertmanager", "Grafana"]
)
def test_what_alertmanager_and_grafana_post_is_understood(payload: Any) -> None:
    calls, outcomes = find_calls(parse_payload(json.dumps(payload).encode()), RULES, NOW)
    assert calls == [Call(DOCS, ALERT, datetime(2026, 11, 25, 11, 55, 0, 123456, tzinfo=UTC))]
    assert not outcomes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version":"4","alerts":[],"unknown":' + b"[" * 100_000,
        json.dumps(make_payload(version="3")).encode(),
        json.dumps(make_payload(version="1")).encode(),  # Grafana's has an orgId
        json.dumps(make_payload(version=4)).encode(),
        json.dumps({"alerts": []}).encode(),
        json.dumps({"version": "4"}).encode(),
        json.dumps(make_payload(alerts={})).encode(),
        json.dumps(make_payload(alerts=[{"labels": {}}])).encode(),
        json.dumps(make_payload(alerts=[{"status": "firing", "labels": {"a": 1}}])).encode(),
        json.dumps(make_payload(alerts=[None])).encode(),
        json.dumps(make_payload(make_alert(SINCE))).encode()[:-1],
    ],
)
def test_what_is_no_payload_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        parse_payload(body)


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        parse_payload(body)


# --- which index is meant


@pytest.mark.parametrize(
    ("alert", "outcome"),
    [
        (make_alert(SINCE, status="resolved"), "resolved"),
        (make_alert(SINCE, heal=""), "ignored"),
        (make_alert(SINCE, heal="rebuild"), "ignored"),
        (make_alert(SINCE, name="Watchdog"), "ignored"),
        (make_alert(SINCE, name=""), "ignored"),
        (make_alert(SINCE, namespace=""), "unmatched"),
        (make_alert(SINCE, index=""), "unmatched"),
        (make_alert(SINCE, namespace="other"), "unmatched"),  # not served
        (make_alert(SINCE, namespace="search/../shop"), "unmatched"),
        (make_alert(SINCE, index="docs/status"), "unmatched"),
        (make_alert(SINCE, index="docs\n"), "unmatched"),
        (make_alert(SINCE, index="d" * 47), "unmatched"),
        (make_alert("yesterday"), "untimely"),
        (make_alert(""), "untimely"),
        (make_alert("0001-01-01T00:00:00Z"), "untimely"),
        (make_alert("2026-11-25T12:02:00Z"), "untimely"),  # ahead of us
        (make_alert("2026-11-10T12:00:00Z"), "untimely"),
        (make_alert("2026-11-25T11:55:00"), "untimely"),  # of which place on earth?
    ],
)
def test_an_alert_that_asks_for_nothing_is_counted_by_its_reason(alert: api.Json, outcome: str) -> None:
    assert heard(alert) == ([], {outcome: 1})


def test_a_clock_that_is_a_little_ahead_is_borne() -> None:
    (call,), _ = heard(make_alert("2026-11-25T12:00:59Z"))
    assert call.since > NOW


def test_labels_that_name_the_index_are_a_choice() -> None:
    rules = Rules(alerts=frozenset({ALERT}), namespace_label="exported_namespace", index_label="vidx")
    (call,), _ = heard(make_alert(SINCE, exported_namespace="shop", vidx="goods"), rules=rules)
    assert call.key == Key("shop", "goods")


def test_alerts_about_one_index_are_one_call_of_the_youngest() -> None:
    young, old = "2026-11-25T11:58:00Z", "2026-11-25T11:50:00Z"
    calls, outcomes = heard(make_alert(old, pod="docs-index-0"), make_alert(young, pod="docs-index-1"), make_alert(old, index="other"))
    assert [(call.key.name, call.since) for call in calls] == [("docs", at(-2)), ("other", at(-10))]
    assert outcomes == {"repeated": 1}


def test_one_payload_is_about_so_many_alerts_and_indexes_only() -> None:
    calls, outcomes = heard(*(make_alert(SINCE, index=f"docs-{number}") for number in range(1500)))
    assert len(calls) == heal.MOST_INDEXES
    assert outcomes == {"throttled": 1400}


# --- what becomes of it


def call(minutes: float) -> Call:
    return Call(DOCS, ALERT, at(minutes))


@pytest.mark.parametrize(
    ("standing", "outcome"),
    [
        (None, "unmatched"),
        (Standing(deleting=True), "unmatched"),
        (Standing(), "accepted"),
        (Standing(wish=at(-30)), "accepted"),
        (Standing(wish=at(-5)), "repeated"),  # the very alert
        (Standing(wish=at(-4)), "repeated"),  # somebody asked after it began: that check sees what it is about
        (Standing(echo=at(-5)), "repeated"),  # even if the annotation is gone
        (Standing(wish=at(-30), set_at=at(-3)), "cooling"),  # told late, and so set late
        (Standing(wish=at(-30), set_at=at(-5)), "accepted"),
    ],
)
def test_an_index_tells_itself_whether_an_alert_is_news(standing: Standing | None, outcome: str) -> None:
    assert decide(call(-5), standing, RULES, NOW) == outcome


def test_an_alert_that_came_too_soon_is_accepted_when_it_is_told_again() -> None:
    standing = Standing(wish=at(-6), set_at=at(-4))
    assert decide(call(-3), standing, RULES, NOW) == "cooling"
    assert decide(call(-3), standing, RULES, at(1)) == "accepted"


MOMENTS = st.none() | st.integers(-10_000, 90).map(lambda seconds: NOW + timedelta(seconds=seconds))
STANDINGS = st.builds(Standing, wish=MOMENTS, echo=MOMENTS, set_at=MOMENTS)
SINCES = st.integers(-600_000, 60).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(st.lists(SINCES, max_size=20), STANDINGS, st.integers(0, 600))
def test_whatever_is_told_how_often_a_wish_only_moves_forward_and_never_too_soon(
    told: list[datetime], standing: Standing, step: int
) -> None:
    """Tell alerts in any order, each twice, as time goes on; what stands in the index is all that is known."""
    now, set_before = NOW, standing.set_at
    for since in told:
        for _ in range(2):
            outcome = decide(Call(DOCS, ALERT, since), standing, RULES, now)
            if outcome is HealOutcome.ACCEPTED:
                assert standing.wish is None or since > standing.wish
                assert standing.echo is None or since > standing.echo
                assert set_before is None or set_before > now or now - set_before >= RULES.cooldown
                standing, set_before = Standing(wish=since, echo=standing.echo, set_at=now), now
                assert decide(Call(DOCS, ALERT, since), standing, RULES, now) is HealOutcome.REPEATED
            elif standing.wish is not None and since <= standing.wish:
                assert outcome is HealOutcome.REPEATED
        now += timedelta(seconds=step)


@given(SINCES)
def test_a_wish_is_read_back_as_what_was_written(since: datetime) -> None:
    for moment in (since, since.replace(microsecond=1)):
        assert api.parse_time(heal.format_wish(moment)) == moment
        assert decide(Call(DOCS, ALERT, moment), Standing(wish=api.parse_time(heal.format_wish(moment))), RULES, NOW) == "repeated"


def test_an_index_tells_of_wishes_and_of_when_alerts_set_the_last() -> None:
    body = make_manifest()
    body["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "annotations": {names.VALIDATE_REQUESTED_AT: "2026-11-25T11:00:00Z"},
        "managedFields": [
            {"manager": "kubectl-annotate", "operation": "Update", "time": "2026-11-25T10:00:00Z"},
            {"manager": names.STATUS_MANAGER, "operation": "Apply", "subresource": "status", "time": "2026-11-25T11:30:00Z"},
            {"manager": names.WEBHOOK_MANAGER, "operation": "Update", "time": "2026-11-25T11:01:00Z"},
        ],
    }
    body["status"] = {"observedGeneration": 1, "validateRequestedAt": "2026-11-25T10:59:00Z"}
    assert parse_standing(body) == Standing(wish=at(-60), echo=at(-61), set_at=at(-59))
    assert parse_standing(make_gone(body)).deleting


def make_gone(body: api.Json) -> api.Json:
    return {**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-11-25T11:59:00Z"}}


def test_a_wish_that_is_no_time_is_none() -> None:
    body = make_manifest()
    body["metadata"] |= {"uid": "u", "resourceVersion": "7", "annotations": {names.VALIDATE_REQUESTED_AT: "soon"}}
    assert parse_standing(body) == Standing()


def test_the_budget_is_full_at_first_and_fills_steadily() -> None:
    budget = Budget(3, timedelta(seconds=30), 100.0)
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(at) for at in (109.0, 110.0, 110.0, 120.0)] == [False, True, False, True]
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]  # never more than at first
