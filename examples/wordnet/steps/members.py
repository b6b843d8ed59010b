"""What the pods say of themselves: `/v1/status` and `/metrics`, asked from inside each pod, as no other may ask."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .report import StepError, wait_until
from .world import SEARCH, SYSTEM, World, leading_operator, pods_of

FETCH = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@dataclass(frozen=True)
class Metrics:
    """Samples of one process."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, /, **labels: str) -> float:
        """Return the sum of all samples of that name which have these labels; raise StepError when there is none."""
        wanted = set(labels.items())
        found = [value for (sample, has), value in self.samples.items() if sample == name and wanted <= has]
        if not found:
            raise StepError(f"no metric {name}{labels or ''}")
        return sum(found)

    def counts(self, name: str, label: str) -> dict[str, int]:
        """Return the values of a metric by one label."""
        return {dict(has)[label]: int(value) for (sample, has), value in self.samples.items() if sample == name and label in dict(has)}


def parse_metrics(text: str) -> Metrics:
    """Parse Prometheus' text format."""
    return Metrics(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


def fetch(world: World, namespace: str, pod: str, path: str) -> str:
    """Return what a pod answers on its ops port."""
    return world.kubernetes.execute(namespace, pod, "python3", "-c", FETCH, f"http://127.0.0.1:9090{path}", timeout_seconds=30)


def status(world: World, pod: str) -> dict[str, Any]:
    """Return the status document of an index pod."""
    document: dict[str, Any] = json.loads(fetch(world, SEARCH, pod, "/v1/status"))
    return document


def statuses(world: World, index: str) -> dict[str, dict[str, Any]]:
    """Return the status documents of all pods of an index, by pod."""
    return {name: status(world, name) for name in names(world, index)}


def names(world: World, index: str) -> list[str]:
    """Return the names of the pods of an index."""
    return [pod["metadata"]["name"] for pod in pods_of(world, index)]


def metrics(world: World, pod: str) -> Metrics:
    """Return the metrics of an index pod."""
    return parse_metrics(fetch(world, SEARCH, pod, "/metrics"))


def operator_metrics(world: World) -> Metrics:
    """Return the metrics of the operator that acts."""
    return parse_metrics(fetch(world, SYSTEM, leading_operator(world), "/metrics"))


def as_of(document: dict[str, Any]) -> datetime:
    """Return the state of Postgres that a pod's answers equal, as a time of Postgres' clock; raise StepError while there is none."""
    text = document["proof"]["asOf"]
    if not text:
        raise StepError(f"{document['identity']['podName']} holds no proven state: {document['proof']}")
    return datetime.fromisoformat(text)


def wait_for_proof(world: World, pod: str, after: datetime, timeout_seconds: float) -> dict[str, Any]:
    """Wait until a pod has proven equality with Postgres as of a time after `after`; return its status then."""

    def proven() -> dict[str, Any] | None:
        document = status(world, pod)
        return document if as_of(document) > after and document["proven"] and document["proof"]["result"] == "ok" else None

    return wait_until(f"{pod} to prove a state later than {after.isoformat(timespec='seconds')}", proven, timeout_seconds)
