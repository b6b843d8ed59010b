"""From drift to repair through a real Prometheus and a real Alertmanager: the chart's rules fire, its webhook hears, replicas repair.

Checks are an hour apart, so that nothing but the alert brings them about.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

import numpy as np
import pytest

from examples.wordnet.steps import members, monitoring, story, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import expect, wait_until
from examples.wordnet.steps.searching import search, search_url
from examples.wordnet.steps.world import RELEASE, SEARCH, SYSTEM, World
from tests.support import memory, scenes
from vectorindex_indexer.config import Metric
from vectorindex_indexer.index import encode

T = TypeVar("T")
log = logging.getLogger(__name__)
pytestmark = pytest.mark.skipif(
    os.environ.get("CLUSTER") == "external", reason="puts its own Prometheus into the cluster, and damages memory"
)

PLANNED, AUTOMATIC = "healplan", "healauto"
WISH: Final = "vectorindex.dev/validate-requested-at"
SECRET: Final = "vectorindex-webhook"
SELDOM: Final = {"periodSeconds": 3600, "maxStalenessSeconds": 7200, "maxSourceDutyPercent": 50}
WAIT: Final = 2  # seconds that the rules wait
REPEATED_EVERY: Final = 2
ROUTE: Final[Manifest] = {
    "route": {
        "receiver": "nobody",
        "routes": [
            {
                "matchers": ['heal="validate"'],
                "receiver": "vectorindex",
                "group_by": ["namespace", "index"],
                "group_wait": "1s",
                "group_interval": "1s",
                "repeat_interval": f"{REPEATED_EVERY}s",
            }
        ],
    },
    "receivers": [
        {"name": "nobody"},
        {
            "name": "vectorindex",
            "webhook_configs": [
                {
                    "url": f"http://{RELEASE}-webhook.{SYSTEM}.svc:9091/webhooks/alertmanager",
                    "send_resolved": False,
                    "http_config": {"authorization": {"type": "Bearer", "credentials_file": monitoring.TOKEN_FILE}},
                }
            ],
        },
    ],
}


@dataclass
class Story:
    """What happened when, in seconds since the damage."""

    scene: World
    index: str
    began: float = field(default_factory=time.monotonic)
    moments: list[tuple[str, float]] = field(default_factory=list)

    def see(self, what: str, probe: Callable[[], T | None], seconds: float = 90) -> T:
        """Wait for the next thing to happen and note when it did."""
        found = wait_until(what, probe, seconds, 0.1)
        self.moments.append((what, time.monotonic() - self.began))
        return found

    def show(self) -> str:
        """Return the story in a line."""
        return f"{self.index}: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.moments)


@pytest.fixture(scope="module")
def healing(scene: World) -> Iterator[World]:
    """The cluster of all tests, with the webhook enabled, rules that wait for seconds only, and an Alertmanager that posts."""
    token = secrets.token_hex(16)
    operator = [*scenes.operator_values(scene), "webhook.enabled=true", f"webhook.auth.existingSecret={SECRET}"]
    soon = [f"monitoring.prometheusRule.for.{alert}={WAIT}s" for alert in ("VectorIndexDriftNotRepaired", "VectorIndexDriftRepaired")]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": {"token": token}}
    scene.kubernetes.apply(secret, namespace=SYSTEM)
    settings = monitoring.Settings(chart_values=[*operator, *soon], alertmanager=ROUTE, token=token)
    try:
        side_by_side(lambda: world.install_operator(scene, *operator), lambda: monitoring.install(scene, settings))
        yield scene
    finally:
        former = scenes.operator_values(scene)
        side_by_side(lambda: world.install_operator(scene, *former), lambda: monitoring.remove(scene))
        scene.kubernetes.kubectl("delete", "secret", SECRET, f"--namespace={SYSTEM}", "--ignore-not-found")


def side_by_side(*works: Callable[[], None]) -> None:
    """Do things that have nothing to do with each other."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def wait_for_targets(scene: World, index: str) -> None:
    """Wait until Prometheus scrapes both replicas: their series begin before anything happens."""
    count = f'count(vectorindex_repaired_rows_total{{index="{index}", kind="ghost"}})'
    wait_until(f"two replicas of {index} to be scraped", lambda: [value for _, value in monitoring.query(scene, count)] == [2.0], 60)


def find_alert(scene: World, alert: str, index: str) -> Callable[[], Manifest | None]:
    def find() -> Manifest | None:
        return next((one for one in monitoring.find_alerts(scene, alert) if one["labels"]["index"] == index), None)

    return find


def wish_of(scene: World, index: str) -> str:
    found = scene.kubernetes.get("vidx", index, f"--namespace={SEARCH}")
    return str(found["metadata"].get("annotations", {}).get(WISH, ""))


def heard(scene: World, outcome: str) -> float:
    """Return how many alerts all operators together counted so."""
    found = monitoring.query(scene, f'sum(vectorindex_operator_heal_requests_total{{outcome="{outcome}"}})')
    return sum(value for _, value in found)


def checks(scene: World, index: str) -> dict[str, float]:
    """Return how many checks each replica has made."""
    return {pod: members.metrics(scene, pod).value("vectorindex_checks_total", layer="L0") for pod in members.names(scene, index)}


def see_nothing_twice(scene: World, index: str, wish: str) -> None:
    """Let Alertmanager tell the alert again, twice at least, and see that nothing comes of it."""
    before, made = heard(scene, "repeated"), checks(scene, index)
    wait_until("the alert to be told again", lambda: heard(scene, "repeated") >= before + 2, 60)
    assert wish_of(scene, index) == wish
    assert checks(scene, index) == made


def test_drift_that_waits_for_approval_is_looked_at_again_and_its_alert_ends_with_the_repair(healing: World) -> None:
    scene = healing
    scenes.make_table(scene, PLANNED)
    scenes.serve(scene, scenes.small_index(PLANNED, consistency=SELDOM, healing={"mode": "Plan"}))
    try:
        wait_for_targets(scene, PLANNED)
        before = checks(scene, PLANNED)
        damaged = story.damage_saved_index(scene, f"{PLANNED}-index-1", "index-only")
        told = Story(scene, PLANNED, damaged.started)
        alert = told.see("firing", find_alert(scene, "VectorIndexDriftNotRepaired", PLANNED))
        assert alert["labels"]["pod"] == f"{PLANNED}-index-1"
        wish = told.see("wish", lambda: wish_of(scene, PLANNED))
        waited = (datetime.fromisoformat(wish) - datetime.fromisoformat(alert["activeAt"])).total_seconds()
        assert WAIT - 0.1 <= waited < WAIT + 30, f"expected the moment since when the alert fires, and not {waited} s after it was noticed"
        told.see("checked again", lambda: scenes.status_of(scene, PLANNED).get("validateRequestedAt") == wish)
        assert checks(scene, PLANNED)[f"{PLANNED}-index-0"] > before[f"{PLANNED}-index-0"]  # nothing happened to it
        (event,) = [one for one in scenes.events_of(scene, scenes.uid_of(scene, f"vidx/{PLANNED}")) if one["reason"] == "ValidateRequested"]
        assert "VectorIndexDriftNotRepaired" in event["message"]
        see_nothing_twice(scene, PLANNED, wish)

        (plan,) = told.see("plan", lambda: scenes.status_of(scene, PLANNED).get("heldPlans"))
        approve = f"vectorindex.dev/approve-plan={plan['id']}"
        scene.kubernetes.kubectl("annotate", "vidx", PLANNED, f"--namespace={SEARCH}", approve)
        told.see("approved", lambda: True)
        world.wait_for_condition(scene, PLANNED, "Consistent", 60)
        told.see("repaired", lambda: not members.status(scene, f"{PLANNED}-index-1")["heldPlan"])
        told.see("resolved", lambda: find_alert(scene, "VectorIndexDriftNotRepaired", PLANNED)() is None)
        log.info("%s", told.show())
        log.info("%s", describe_answers(scene))
    finally:
        world.delete_index(scene, PLANNED)


def test_what_one_replica_found_makes_the_others_look_and_repair_what_nobody_knew_of(healing: World) -> None:
    """Memory of a node is damaged under replica 1, which would look again in an hour. Replica 0 finds other damage as it starts."""
    scene = healing
    scenes.make_table(scene, AUTOMATIC)
    scenes.serve(scene, scenes.small_index(AUTOMATIC, consistency=SELDOM))
    try:
        wait_for_targets(scene, AUTOMATIC)
        row, vector = read_row(scene, AUTOMATIC)
        victim = f"{AUTOMATIC}-index-1"
        turn_over(scene, victim, vector)
        told = Story(scene, AUTOMATIC)
        assert not is_found(scene, row, vector)
        story.damage_saved_index(scene, f"{AUTOMATIC}-index-0", "index-only")
        told.see("found elsewhere", lambda: scenes.status_of(scene, AUTOMATIC).get("lastRepairs"))
        told.see("firing", find_alert(scene, "VectorIndexDriftRepaired", AUTOMATIC))
        wish = told.see("wish", lambda: wish_of(scene, AUTOMATIC))

        def repair() -> Manifest | None:
            repairs = scenes.status_of(scene, AUTOMATIC)["lastRepairs"]
            return next((one for one in repairs if one["pod"] == victim), None)

        found = told.see("repaired", repair)
        assert (found["trigger"], found["result"], found["drift"]) == ("check", "repaired", {**dict.fromkeys(story.KINDS, 0), "changed": 1})
        assert found["sampleIds"] == [str(row)]
        assert datetime.fromisoformat(found["at"]) > datetime.fromisoformat(wish), "somebody looked before the alert fired"
        assert is_found(scene, row, vector)
        told.see("checked again", lambda: scenes.status_of(scene, AUTOMATIC).get("validateRequestedAt") == wish)
        world.wait_for_condition(scene, AUTOMATIC, "Consistent", 60)
        log.info("%s", told.show())
        log.info("%s", describe_answers(scene))
    finally:
        world.delete_index(scene, AUTOMATIC)


def read_row(scene: World, table: str) -> tuple[int, np.ndarray]:
    """Return a row's id and vector."""
    ((row, vector),) = scene.upstream.execute(f"SELECT entity_id, vector FROM {table} ORDER BY entity_id OFFSET 100 LIMIT 1")
    return int(row), np.frombuffer(vector, "<f4")


def turn_over(scene: World, pod: str, vector: np.ndarray) -> None:
    """Turn a vector over in the memory of a pod, wherever it lies as the index stores it."""
    code = encode(vector[None], Metric.COSINE)
    (process,) = memory.find_processes(scenes.uid_of(scene, f"pod/{pod}"), "vectorindex-indexer")
    assert memory.overwrite(process, code.tobytes(), (-code).tobytes())


def is_found(scene: World, row: int, vector: np.ndarray) -> bool:
    """Tell whether replica 1 finds a row by its own vector."""
    hits = search(scene, vector[None], k=1, url=search_url(AUTOMATIC, pod=1))
    return bool(hits.ids[0, 0] == row)


def describe_answers(scene: World) -> str:
    """Return how fast the webhook answered, as Alertmanager and as the operators measured it."""
    path = f"/api/v1/namespaces/{monitoring.MONITORING}/services/{monitoring.ALERTMANAGER}:web/proxy/metrics"
    shown = members.parse_metrics(scene.kubernetes.kubectl("get", "--raw", path))
    name, webhook = "alertmanager_notification_latency_seconds", {"integration": "webhook"}
    count = shown.value(f"{name}_count", **webhook)
    failed = shown.value("alertmanager_notifications_failed_total", **webhook)
    expect(failed == 0, f"expected no notification to fail, got {failed}")
    mean = shown.value(f"{name}_sum", **webhook) / count
    quantiles = []
    for share in (0.5, 0.99):
        expression = f"histogram_quantile({share}, sum by (le) (vectorindex_operator_heal_duration_seconds_bucket))"
        quantiles += [f"p{100 * share:g} {1000 * value:.0f} ms" for _, value in monitoring.query(scene, expression)]
    return f"{count:.0f} notifications, on average {1000 * mean:.1f} ms as Alertmanager sees it; in the operator {', '.join(quantiles)}"
