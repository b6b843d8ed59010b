"""Decides what alerts ask of which index: a check at once, or nothing and why. Carried out by `webhook`.

Nothing is remembered here. Whether an alert was heard before tells the index itself: by the wish that it bears, and by when that was set.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from vectorindex_operator import api, names
from vectorindex_operator.api import Event
from vectorindex_operator.errors import PayloadError
from vectorindex_operator.names import HealOutcome, Key, Reason

HEAL_LABEL: Final = "heal"
VALIDATE: Final = "validate"
"""The one value of the label that asks for something: a check at once."""

MOST_ALERTS: Final = 1000
"""Alerts of one payload that are looked at; the rest is throttled."""
MOST_INDEXES: Final = 100
"""Indexes that one payload may be about; each costs a request to the API server."""

AHEAD: Final = timedelta(minutes=1)
"""How far the clock of whoever evaluates the rules may be ahead. A wish of tomorrow would make all of today's seem repeated."""
OLDEST: Final = timedelta(days=7)
"""An alert that has fired for longer was told many times before; whoever tells it now replays something."""

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_INDEX: Final = re.compile(r"[a-z]([-a-z0-9]{0,44}[a-z0-9])?")


class _Alert(msgspec.Struct, rename="camel", frozen=True):
    status: str
    labels: dict[str, str]
    starts_at: str = ""


class _Payload(msgspec.Struct, rename="camel", frozen=True):
    version: str
    alerts: list[_Alert]
    org_id: int | None = None  # only Grafana has it


@dataclass(frozen=True)
class Rules:
    """Which alerts are listened to, and what of an index."""

    alerts: frozenset[str]
    namespace_label: str = "namespace"
    index_label: str = "index"
    namespaces: tuple[str, ...] = ()
    """Those that are served; empty: all."""
    cooldown: timedelta = timedelta(minutes=5)
    """Between two wishes that alerts make for the same index."""


@dataclass(frozen=True)
class Call:
    """An alert that asks for a check of one index, and since when it fires."""

    key: Key
    alert: str
    since: datetime


@dataclass(frozen=True)
class Standing:
    """What an index tells of earlier wishes for a check."""

    wish: datetime | None = None
    echo: datetime | None = None
    set_at: datetime | None = None
    """When this webhook set the wish that stands, by the API server's clock; None when somebody else did."""
    deleting: bool = False


def parse_payload(body: bytes) -> list[_Alert]:
    """Return the alerts of Alertmanager's payload version 4, or of Grafana's 1; raise PayloadError for anything else."""
    try:
        payload = msgspec.json.decode(body, type=_Payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise PayloadError(f"not a payload of Alertmanager: {error}") from error
    if payload.version != "4" and (payload.version, payload.org_id is None) != ("1", False):
        raise PayloadError("expected version 4 of Alertmanager's payload, or version 1 of Grafana's with its orgId")
    return payload.alerts


def find_calls(alerts: Iterable[_Alert], rules: Rules, now: datetime) -> tuple[list[Call], Counter[HealOutcome]]:
    """Return one call for each index that is meant, that of its youngest alert, and what becomes of all other alerts."""
    calls: dict[Key, Call] = {}
    outcomes: Counter[HealOutcome] = Counter()
    for number, alert in enumerate(alerts):
        found = HealOutcome.THROTTLED if number >= MOST_ALERTS else _parse_call(alert, rules, now)
        if isinstance(found, HealOutcome):
            outcomes[found] += 1
        elif found.key in calls:
            outcomes[HealOutcome.REPEATED] += 1
            calls[found.key] = max(calls[found.key], found, key=lambda call: call.since)
        elif len(calls) == MOST_INDEXES:
            outcomes[HealOutcome.THROTTLED] += 1
        else:
            calls[found.key] = found
    return list(calls.values()), outcomes


def _parse_call(alert: _Alert, rules: Rules, now: datetime) -> Call | HealOutcome:
    labels = alert.labels
    if alert.status != "firing":
        return HealOutcome.RESOLVED
    name = labels.get("alertname", "")
    if labels.get(HEAL_LABEL) != VALIDATE or name not in rules.alerts:
        return HealOutcome.IGNORED
    key = Key(labels.get(rules.namespace_label, ""), labels.get(rules.index_label, ""))
    if not _NAMESPACE.fullmatch(key.namespace) or not _INDEX.fullmatch(key.name):
        return HealOutcome.UNMATCHED
    if rules.namespaces and key.namespace not in rules.namespaces:
        return HealOutcome.UNMATCHED
    since = api.parse_time(alert.starts_at)
    if since is None or not now - OLDEST <= since <= now + AHEAD:
        return HealOutcome.UNTIMELY
    return Call(key, name, since)


def parse_standing(body: Mapping[str, Any]) -> Standing:
    """Return what the resource, as the API server tells it, says of wishes for a check."""
    index = api.parse_vector_index(body)
    return Standing(
        wish=api.parse_time(index.validate_wish),
        echo=api.parse_time(index.status.validate_requested_at),
        set_at=next(
            (
                api.parse_time(entry.get("time"))
                for entry in body["metadata"].get("managedFields") or []
                if entry.get("manager") == names.WEBHOOK_MANAGER and not entry.get("subresource")
            ),
            None,
        ),
        deleting=index.deleting,
    )


def decide(call: Call, standing: Standing | None, rules: Rules, now: datetime) -> HealOutcome:
    """Return what is to become of the call; `ACCEPTED` asks for the wish to be set. `standing` is None when there is no such index."""
    if standing is None or standing.deleting:
        return HealOutcome.UNMATCHED
    if any(told is not None and call.since <= told for told in (standing.wish, standing.echo)):
        return HealOutcome.REPEATED
    if any(told is not None and now - min(told, now) < rules.cooldown for told in (standing.wish, standing.set_at)):
        return HealOutcome.COOLING
    return HealOutcome.ACCEPTED


def format_wish(since: datetime) -> str:
    """Return the moment so that it is read back as the same: RFC 3339 in UTC, with as much of a second as it has."""
    return since.astimezone(UTC).isoformat().replace("+00:00", "Z")


def build_event(call: Call) -> Event:
    """Return the event that tells of a wish."""
    since = format_wish(call.since)
    message = f"a check of all rows was asked for by alert {call.alert}, which has fired since {since}"
    return Event("Normal", Reason.VALIDATE_REQUESTED, message, f"wish/{names.VALIDATE_REQUESTED_AT}/{since}")


class Budget:
    """So many wishes within so long over all indexes: a bucket that fills steadily. Full at the start of the process."""

    def __init__(self, wishes: int, within: timedelta, now: float) -> None:
        self._most = float(wishes)
        self._a_second = wishes / within.total_seconds()
        self._left, self._at = self._most, now

    def take(self, now: float) -> bool:
        """Take one, and tell whether there was one."""
        self._left = min(self._most, self._left + (now - self._at) * self._a_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Put back one that was not used."""
        self._left = min(self._most, self._left + 1)
