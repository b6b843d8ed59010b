"""The manifests of the demo: readable by the product, and fit for Pod Security "restricted"."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from examples.wordnet import load
from vectorindex_indexer import config

HERE = load.HERE


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((HERE / name).read_text(encoding="utf-8")))


def test_indexer_reads_the_manifest_as_what_the_loader_loads() -> None:
    identity = config.load_identity(HERE / "vectorindex.yaml")

    assert identity.name == "docs"
    assert identity.index.dimension == load.DIMENSION
    assert identity.source.model == load.MODEL
    assert identity.source.table.name == "embeddings"
    assert isinstance(identity.source.tombstone, config.MetadataTombstone)
    assert identity.source.tombstone.table.name == "faiss_metadata"


def test_manifest_asks_for_a_check_every_five_seconds() -> None:
    behaviour = config.load_behaviour(None, HERE / "vectorindex.yaml")

    assert behaviour.period.total_seconds() == 5


@pytest.mark.parametrize("kind", ["Service", "StatefulSet"])
def test_postgres_manifests_fit_the_kubernetes_schema(kind: str) -> None:
    manifest = next(document for document in documents("postgres.yaml") if document["kind"] == kind)

    kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_postgres_manifests_hold_neither_secret_nor_namespace() -> None:
    manifests = documents("postgres.yaml")

    assert {manifest["kind"] for manifest in manifests} == {"Service", "StatefulSet"}
    assert not any("namespace" in manifest["metadata"] for manifest in manifests)


def test_postgres_pod_passes_pod_security_restricted() -> None:
    (pod,) = (document["spec"]["template"]["spec"] for document in documents("postgres.yaml") if document["kind"] == "StatefulSet")
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(set(volume) - {"name"} <= {"emptyDir", "secret"} for volume in pod["volumes"])


def test_postgres_serves_the_database_and_name_that_the_index_asks_for() -> None:
    postgres = config.load_identity(HERE / "vectorindex.yaml").source.postgres
    service, stateful_set = documents("postgres.yaml")
    environment = {entry["name"]: entry.get("value") for entry in stateful_set["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert (service["metadata"]["name"], service["spec"]["ports"][0]["port"]) == (postgres.host, postgres.port)
    assert environment["POSTGRES_DB"] == postgres.database
