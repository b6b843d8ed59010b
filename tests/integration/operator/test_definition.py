"""What a real API server makes of the definition: explains it, fills in defaults, refuses what is wrong and names the field."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import RunningCluster
from tests.support.helm import CHART, helm
from tests.support.manifests import GOOD, WRONG, source
from tests.support.vector_index import make_manifest, merge
from vectorindex_operator.api import Json

ROOT = Path(__file__).resolve().parents[3]


def test_explain_tells_what_fields_are_for(cluster: RunningCluster) -> None:
    text = cluster.kubectl("explain", "vidx.spec.source")
    assert "Which rows are indexed" in text
    assert "The model key: only rows with exactly this value" in text
    assert "<no description>" not in cluster.kubectl("explain", "vidx", "--recursive")


def test_defaults_are_filled_in(cluster: RunningCluster, namespace: str) -> None:
    made = json.loads(cluster.kubectl("create", "-f", "-", "-o", "json", text=json.dumps(make_manifest(namespace=namespace))))
    spec = made["spec"]
    assert (spec["replicas"], spec["suspend"]) == (2, False)
    assert spec["index"] == {"dimension": 8, "metric": "Cosine", "type": "HNSW", "quantization": "None"}
    assert spec["source"]["table"] == {"schema": "public", "name": "embeddings"}
    assert spec["consistency"] == {
        "periodSeconds": 30,
        "contentSweepSeconds": 86400,
        "maxStalenessSeconds": 300,
        "maxSourceDutyPercent": 10,
        "whenUnverified": "Serve",
    }
    assert spec["healing"] == {"mode": "Auto", "maxChangePercent": 20, "cooldownSeconds": 60, "concurrentRebuilds": 1}
    assert made["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD.keys())
def test_a_good_manifest_is_accepted(cluster: RunningCluster, namespace: str, spec: Json) -> None:
    cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(make_manifest("good", namespace, **spec)))


@pytest.mark.parametrize("file", sorted((ROOT / "crds" / "examples").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_is_accepted(cluster: RunningCluster, namespace: str, file: Path) -> None:
    cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", file)


def test_the_index_that_the_readme_shows_and_that_of_the_charts_notes_are_accepted(cluster: RunningCluster) -> None:
    (readme,) = re.findall(r"```yaml\n(apiVersion: vectorindex.dev/.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    notes = helm("install", "vectorindex", str(CHART), "--dry-run=client", "--namespace=default").stdout
    for text in (readme, notes.partition("<<'EOF'\n")[2].partition("  EOF")[0]):
        index = yaml.safe_load(text)
        index["metadata"]["namespace"] = "default"
        cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(index))


@pytest.fixture(scope="module")
def refusals(cluster: RunningCluster) -> dict[str, str]:
    """What the API server says of each wrong manifest; empty where it takes it."""
    said: dict[str, str] = {}
    for name, wrong in WRONG.items():
        manifest = json.dumps(make_manifest("bad", "default", **wrong.spec))
        result = cluster.try_kubectl("create", "--dry-run=server", "-f", "-", text=manifest)
        said[name] = result.stderr if result.returncode else ""
    return said


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_is_refused_with_the_field_named(refusals: dict[str, str], name: str) -> None:
    assert WRONG[name].field in refusals[name]


def test_every_rule_has_a_manifest_that_it_refuses(refusals: dict[str, str]) -> None:
    """So that a rule that is added gets its manifest, and with it its twin in the indexer, which is given the same ones."""
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    messages = [rule["message"] for rule in find_rules(spec) if "oldSelf" not in rule["rule"]]
    assert len(messages) > 10
    assert [message for message in messages if not any(message in said for said in refusals.values())] == []


def find_rules(schema: Json) -> Iterator[Json]:
    yield from schema.get("x-kubernetes-validations", [])
    for part in (*schema.get("properties", {}).values(), schema.get("items")):
        if isinstance(part, dict):
            yield from find_rules(part)


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
    change = {
        "replicas": 3,
        "index": {"type": "IVFFlat", "quantization": "SQ8", "ivf": {"nlist": 16}},
        "source": {"postgres": {"host": "other"}, "columns": {"model": "m"}, "model": "k", "digests": {"columns": ["d1", "d2"]}},
        "healing": {"mode": "Plan"},
    }
    cluster.kubectl("apply", "-f", "-", text=json.dumps(merge(manifest, {"spec": change})))
