"""Builders of what the operator works with: resources, pods, reports, observations. Each shows only what matters to a test."""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from vectorindex_operator import api, checks, names, objects
from vectorindex_operator.api import Json, VectorIndex
from vectorindex_operator.errors import ReportError
from vectorindex_operator.plan import Observed, Plan, Pod, make_plan
from vectorindex_operator.reports import Report, parse_report
from vectorindex_operator.settings import Settings

GOLDEN = Path(__file__).resolve().parents[1] / "contract" / "status.json"
NOW = datetime(2026, 11, 25, 9, 0, 30, tzinfo=UTC)
UID = "5e0a4c5e-1111-4c1e-9a51-000000000001"
SETTINGS = Settings(indexer_image="registry.example/indexer@sha256:" + "0" * 64)


def merge(base: Json, changes: Mapping[str, Any]) -> Json:
    """Return `base` with the changes, object by object; None removes."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def make_manifest(name: str = "docs", namespace: str = "search", **spec: Any) -> Json:
    """Return a small valid manifest; `spec` is merged into its spec."""
    base: Json = {
        "source": {
            "postgres": {"host": "pg.search.svc", "database": "app", "sslMode": "Disable", "credentialsSecretRef": {"name": "docs-reader"}},
            "table": {"name": "embeddings"},
            "columns": {"id": "entity_id", "vector": "vector"},
        },
        "index": {"dimension": 8},
    }
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": merge(base, spec)}


def make_index(
    annotations: Mapping[str, str] | None = None, status: api.Status | None = None, generation: int = 1, **spec: Any
) -> VectorIndex:
    """Return a resource as the operator reads it."""
    body = make_manifest(**spec)
    body["metadata"] |= {"uid": UID, "generation": generation, "resourceVersion": "7", "annotations": dict(annotations or {})}
    body["status"] = api.render(status) if status else {"observedGeneration": -1}
    return api.parse_vector_index(body)


def make_pod(number: int = 0, **fields: Any) -> Pod:
    """Return a pod that serves."""
    values: dict[str, Any] = {"name": f"docs-index-{number}", "uid": f"pod-{number}", "ip": f"10.0.0.{number + 1}", "ready": True}
    return Pod(**(values | {"terminating": False} | fields))


def make_report_document(index: VectorIndex, pod_uid: str, **changes: Any) -> Json:
    """Return the golden document as a pod of this index gives it: its files are the newest, its proof is fresh, nothing is held."""
    document: Json = json.loads(GOLDEN.read_text())
    assert index.spec is not None
    desired = objects.build_children(index, index.spec, SETTINGS, None)
    identity = {"podUid": pod_uid, "identityHash": desired.identity_hash, "liveHash": desired.live_hash, "approvedPlans": []}
    return merge(merge(document, {"identity": identity, "repairs": []}) | {"heldPlan": None}, changes)


def make_report(index: VectorIndex, pod_uid: str = "pod-0", **changes: Any) -> Report:
    """Return what `make_report_document` says, parsed."""
    return parse_report(json.dumps(make_report_document(index, pod_uid, **changes)).encode(), pod_uid)


def make_stateful_set(index: VectorIndex, replicas: int, **status: int | str) -> Json:
    """Return the live StatefulSet, rolled out unless `status` says otherwise."""
    assert index.spec is not None
    built = next(m for m in objects.build_children(index, index.spec, SETTINGS, None).manifests if m["kind"] == "StatefulSet")
    live = live_from(built)
    live["status"] = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas} | status
    return live


def live_from(manifest: Json) -> Json:
    """Return a built object as the API server would hold it."""
    live = copy.deepcopy(manifest)
    live["metadata"] |= {"uid": f"uid-of-{manifest['kind']}", "resourceVersion": "11", "generation": 1}
    return live


def make_observed(index: VectorIndex | None = None, pods: int = 2, reports: Mapping[str, Report | ReportError] | None = None) -> Observed:
    """Return an index whose objects are all there and whose pods all serve what they just proved."""
    index = index or make_index()
    assert index.spec is not None
    members = tuple(make_pod(number) for number in range(pods))
    told = dict(reports or {pod.name: make_report(index, pod.uid) for pod in members})
    observed = Observed(index, {}, (), members, told)
    for _ in range(2):  # the second round writes what the first proof adds to the live file
        observed = settle(observed)
    return observed


def settle(observed: Observed) -> Observed:
    """Return what is observed once all planned objects are written; the members have read the newest live file."""
    plan = make_plan(observed, SETTINGS, NOW)
    children = dict(observed.children)
    for action in plan.actions:
        manifest = getattr(action, "manifest", None)
        if manifest:
            children[manifest["kind"], manifest["metadata"]["name"]] = live_from(manifest)
    name = objects.child_name(observed.index.key.name)
    children["StatefulSet", name]["status"] = {
        "observedGeneration": 1,
        "replicas": len(observed.pods),
        "updatedReplicas": len(observed.pods),
    }
    live_hash = api.short_hash(children["ConfigMap", name]["data"]["live.json"])
    reports = {pod: with_live_hash(report, live_hash) for pod, report in observed.reports.items()}
    return Observed(observed.index, children, observed.identities, observed.pods, reports)


def with_live_hash(report: Report | ReportError, live_hash: str) -> Report | ReportError:
    """Return the report of a member that has read this live file."""
    return replace(report, identity=replace(report.identity, live_hash=live_hash)) if isinstance(report, Report) else report


def plan_of(observed: Observed, now: datetime = NOW) -> Plan:
    """Return the plan with the tests' settings."""
    return make_plan(observed, SETTINGS, now)


def owner_of(live: Json) -> checks.Owner:
    """Return whose object it is, seen from the index that `make_index` makes."""
    return checks.find_owner(live, "docs", UID)
