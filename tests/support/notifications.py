"""What Alertmanager and Grafana post to a webhook, and somebody who posts it."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vectorindex_operator.api import Json

ALERT = "VectorIndexDriftNotRepaired"
TOKEN = "a token that only Alertmanager knows"


def ago(seconds: float) -> str:
    """Return a moment before now, as Prometheus writes it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def make_alert(since: str, *, name: str = ALERT, status: str = "firing", **labels: str) -> Json:
    """Return one alert about index `docs` in `search`; a label that is given as nothing is left out."""
    named = {"alertname": name, "namespace": "search", "index": "docs", "heal": "validate", "severity": "critical"} | labels
    return {
        "status": status,
        "labels": {label: value for label, value in named.items() if value},
        "annotations": {"summary": "Rows of a replica differ from Postgres and are not repaired."},
        "startsAt": since,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        "fingerprint": "c6eadffa33fcdf37",
    }


def make_payload(*alerts: Json, **changes: Any) -> Json:
    """Return what Alertmanager posts about these alerts, changed."""
    return {
        "version": "4",
        "groupKey": '{}:{namespace="search", index="docs"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "vectorindex",
        "groupLabels": {"namespace": "search", "index": "docs"},
        "commonLabels": {"heal": "validate"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
        **changes,
    }


def make_grafana_payload(*alerts: Json) -> Json:
    """Return what a contact point of Grafana posts: another version, and fields of its own in it and in each alert."""
    own = {
        "silenceURL": "https://grafana.example/alerting/silence/new",
        "dashboardURL": "",
        "panelURL": "",
        "imageURL": "",
        "values": {"B": 44.23943737541908, "C": 1, "D": None},
        "valueString": "[ var='B' labels={} value=44.2 ]",
        "orgId": 1,
    }
    told = [{**alert, "labels": {**alert["labels"], "grafana_folder": "search"}, **own} for alert in alerts]
    title = {"orgId": 1, "title": "[FIRING:1] (docs search)", "state": "alerting", "message": "**Firing**\n\nLabels:\n"}
    return make_payload(*told, version="1", groupKey="{}:{}", **title)


@dataclass(frozen=True)
class Answer:
    """What was answered, and after how long."""

    status: int
    headers: Mapping[str, str]
    document: Json
    seconds: float

    @property
    def outcomes(self) -> Json:
        """What became of the alerts."""
        found: Json = self.document["outcomes"]
        return found


def post(port: int, payload: Json | bytes, *, token: str | None = TOKEN, path: str = "/webhooks/alertmanager") -> Answer:
    """Post as Alertmanager does: on a connection of its own here, with JSON and a bearer token."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "Alertmanager/0.28.1"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    started = time.monotonic()
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        content = response.read()
        return Answer(response.status, dict(response.headers), json.loads(content), time.monotonic() - started)
    finally:
        connection.close()
