"""What a real API server makes of the definition: explains it, fills in defaults, refuses what is wrong and names the field."""

import json
from typing import Any

import pytest

from tests.support.cluster import RunningCluster
from tests.support.vector_index import make_manifest, merge
from vectorindex_operator.api import Json

INJECTED = 'x"; drop table y; --'


def source(**changes: Any) -> Json:
    return {"source": changes}


def test_explain_tells_what_fields_are_for(cluster: RunningCluster) -> None:
    text = cluster.kubectl("explain", "vidx.spec.source")
    assert "Which rows are indexed" in text
    assert "The model key: only rows with exactly this value" in text
    assert "<no description>" not in cluster.kubectl("explain", "vidx", "--recursive")


def test_defaults_are_filled_in(cluster: RunningCluster, namespace: str) -> None:
    made = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", text=json.dumps(make_manifest(namespace=namespace))))
    spec = made["spec"]
    assert (spec["replicas"], spec["suspend"], spec["index"]) == (2, False, {"dimension": 8, "metric": "Cosine", "type": "HNSW"})
    assert spec["source"]["table"] == {"schema": "public", "name": "embeddings"}
    assert spec["consistency"] == {
        "periodSeconds": 30,
        "contentSweepSeconds": 86400,
        "maxStalenessSeconds": 300,
        "whenUnverified": "Serve",
    }
    assert made["status"] == {"observedGeneration": -1}


TABLE = {"table": {"name": "t"}, "id": "a", "deleted": "b"}
REFUSED: dict[str, tuple[Json, str]] = {
    "unknown enum": ({"index": {"metric": "Manhattan"}}, "spec.index.metric"),
    "dimension 0": ({"index": {"dimension": 0}}, "spec.index.dimension"),
    "dimension 5000": ({"index": {"dimension": 5000}}, "spec.index.dimension"),
    "no dimension": ({"index": {"dimension": None}}, "spec.index.dimension"),
    "two tombstone rules": (source(tombstone={"column": "deleted", "metadata": TABLE}), "spec.source.tombstone"),
    "empty tombstone rule": (source(tombstone={}), "spec.source.tombstone"),
    "injected table": (source(table={"name": INJECTED}), "spec.source.table.name"),
    "injected schema": (source(table={"schema": INJECTED}), "spec.source.table.schema"),
    "injected id": (source(columns={"id": INJECTED}), "spec.source.columns.id"),
    "injected tombstone": (source(tombstone={"column": INJECTED}), "spec.source.tombstone.column"),
    "injected metadata": (source(tombstone={"metadata": merge(TABLE, {"id": INJECTED})}), "spec.source.tombstone.metadata.id"),
    "connection string as host": (source(postgres={"host": "postgres://u:p@h/db"}), "spec.source.postgres.host"),
    "two hosts": (source(postgres={"host": "a,b"}), "spec.source.postgres.host"),
    "model key without column": (source(model="m"), "spec.source"),
    "model column without key": (source(columns={"model": "m"}), "spec.source"),
    "metadata model without key": (source(tombstone={"metadata": merge(TABLE, {"model": "m"})}), "spec.source"),
    "control character in model key": (source(model="a\nb", columns={"model": "m"}), "spec.source.model"),
    "hnsw with Flat": ({"index": {"type": "Flat", "hnsw": {"m": 16}}}, "spec.index.hnsw"),
    "no authority to verify": (source(postgres={"sslMode": "VerifyFull"}), "spec.source.postgres.caConfigMapRef"),
    "an authority nobody asks": (source(postgres={"caConfigMapRef": {"name": "ca"}}), "spec.source.postgres.caConfigMapRef"),
    "proofs older than allowed": ({"consistency": {"periodSeconds": 300}}, "spec.consistency.maxStalenessSeconds"),
    "no replica": ({"replicas": 0}, "spec.replicas"),
    "too many replicas": ({"replicas": 21}, "spec.replicas"),
    "a size in words": ({"storage": {"size": "plenty"}}, "spec.storage.size"),
    "no such range": ({"network": {"source": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}}, "spec.network.source[0].ipBlock.cidr"),
    "an empty peer": ({"network": {"clients": [{}]}}, "spec.network.clients[0]"),
    "an unknown field": (source(where="1=1"), "spec.source.where"),
}


@pytest.mark.parametrize(("spec", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_manifest_is_refused_with_the_field_named(cluster: RunningCluster, namespace: str, spec: Json, field: str) -> None:
    result = cluster.try_kubectl("apply", "-f", "-", text=json.dumps(make_manifest("bad", namespace, **spec)))
    assert result.returncode != 0
    assert field in result.stderr


@pytest.mark.parametrize("name", ["x" * 47, "9lives", "a.b"])
def test_a_name_from_which_no_pod_can_be_named_is_refused(cluster: RunningCluster, namespace: str, name: str) -> None:
    result = cluster.try_kubectl("apply", "-f", "-", text=json.dumps(make_manifest(name, namespace)))
    assert result.returncode != 0
    assert "metadata.name" in result.stderr


FIXED: dict[str, tuple[Json, Json]] = {
    "dimension": ({}, {"index": {"dimension": 9}}),
    "metric": ({}, {"index": {"metric": "L2"}}),
    "metric by leaving it out": ({"index": {"metric": "L2"}}, {"index": {"metric": None}}),
    "table": ({}, source(table={"name": "other"})),
    "schema": ({}, source(table={"schema": "other"})),
    "storage added": ({}, {"storage": {"size": "1Gi"}}),
    "storage removed": ({"storage": {"size": "1Gi"}}, {"storage": None}),
    "storage resized": ({"storage": {"size": "1Gi"}}, {"storage": {"size": "2Gi"}}),
}


@pytest.mark.parametrize(("before", "change"), FIXED.values(), ids=FIXED.keys())
def test_what_is_fixed_at_creation_stays_fixed_even_by_removing_it_first(
    cluster: RunningCluster, namespace: str, before: Json, change: Json
) -> None:
    manifest = make_manifest("docs", namespace, **before)
    cluster.kubectl("create", "-f", "-", text=json.dumps(manifest))
    changed = merge(manifest, {"spec": change})
    result = cluster.try_kubectl("replace", "-f", "-", text=json.dumps(changed))
    assert result.returncode != 0
    assert "is fixed when the index is created" in result.stderr


@pytest.mark.parametrize("path", ["/spec/index/dimension", "/spec/source/table", "/spec/index", "/spec/source", "/spec"])
def test_what_must_not_change_can_not_be_taken_away(cluster: RunningCluster, namespace: str, path: str) -> None:
    cluster.kubectl("create", "-f", "-", text=json.dumps(make_manifest("docs", namespace)))
    patch = json.dumps([{"op": "remove", "path": path}])
    assert cluster.try_kubectl("patch", "vidx", "docs", "-n", namespace, "--type=json", "-p", patch).returncode != 0


def test_what_may_change_can_be_changed(cluster: RunningCluster, namespace: str) -> None:
    manifest = make_manifest("docs", namespace)
    cluster.kubectl("apply", "-f", "-", text=json.dumps(manifest))
    change = {"replicas": 3, "index": {"type": "Flat"}, "source": {"postgres": {"host": "other"}, "columns": {"model": "m"}, "model": "k"}}
    cluster.kubectl("apply", "-f", "-", text=json.dumps(merge(manifest, {"spec": change})))
