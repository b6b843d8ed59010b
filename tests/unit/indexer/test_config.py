"""Reading the manifest, the live file and the credentials."""

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_indexer import names
from vectorindex_indexer.config import (
    Behaviour,
    ColumnTombstone,
    Healing,
    HealingMode,
    Hnsw,
    Identity,
    IndexType,
    MetadataTombstone,
    Metric,
    Missing,
    SslMode,
    TableName,
    WhenUnverified,
    Wishes,
    load_behaviour,
    load_identity,
    parse_plans,
    parse_time,
    read_credentials,
)
from vectorindex_indexer.errors import ConfigError, SourceError

LIVE = Path(__file__).parents[2] / "contract" / "live.json"
FORBIDDEN_TEXTS = ("", "a\nb", "a\x00b", "x" * 254)
FORBIDDEN_IDENTIFIERS = ('x"; drop table y; --', "a b", "1a", "", "a" * 64, "a\n", "naïve", "a.b", "a\x00", "\uff41", "a-b", "$1", "a;")


def make_manifest() -> dict[str, Any]:
    return {
        "apiVersion": "vectorindex.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": {"name": "docs", "namespace": "search"},
        "spec": {
            "source": {
                "postgres": {
                    "host": "pg.search.svc",
                    "database": "app",
                    "sslMode": "Disable",
                    "credentialsSecretRef": {"name": "docs-reader"},
                },
                "table": {"name": "embeddings"},
                "columns": {"id": "entity_id", "vector": "vector"},
            },
            "index": {"dimension": 4},
        },
    }


def make_full_manifest() -> dict[str, Any]:
    """A manifest as a cluster gives it back: every field, and what Kubernetes adds."""
    manifest = make_manifest()
    manifest["metadata"] |= {
        "uid": "5e0a4c5e-1111-4c1e-9a51-000000000001",
        "labels": {"a": "b"},
        "annotations": {names.VALIDATE_REQUESTED_AT: "2026-11-25T10:00:00+01:00"},
        "resourceVersion": "12",
        "generation": 1,
        "creationTimestamp": "2026-11-25T09:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }
    manifest["status"] = {"observedGeneration": -1, "conditions": []}
    manifest["spec"] |= {
        "replicas": 3,
        "suspend": True,
        "consistency": {"periodSeconds": 5, "contentSweepSeconds": 60, "maxStalenessSeconds": 50, "whenUnverified": "Refuse"},
        "storage": {"size": "10Gi", "storageClassName": "fast"},
        "network": {"clients": [{"podSelector": {}}], "source": [], "sourcePort": 5432},
        "pod": {"resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {}, "tolerations": [], "priorityClassName": "high"},
    }
    manifest["spec"]["source"] |= {
        "postgres": {
            "host": "2001:db8::1",
            "port": 6432,
            "database": "app",
            "sslMode": "VerifyCA",
            "credentialsSecretRef": {"name": "docs-reader"},
            "caConfigMapRef": {"name": "pg-ca"},
        },
        "table": {"schema": "s", "name": "embeddings"},
        "columns": {"id": "entity_id", "vector": "vector", "model": "model_name"},
        "model": "Qwen/Qwen3-Embedding-0.6B",
        "tombstone": {"metadata": {"table": {"name": "faiss_metadata"}, "id": "entity_id", "deleted": "deleted", "model": "model_name"}},
    }
    manifest["spec"]["index"] = {"dimension": 1024, "metric": "L2", "type": "HNSW", "hnsw": {"m": 16}}
    return manifest


def set_at(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        document = document.setdefault(name, {})
    document[last] = value


def delete_at(document: dict[str, Any], path: str) -> None:
    *parents, last = path.split(".")
    for name in parents:
        document = document[name]
    del document[last]


def load(folder: Path, manifest: object) -> Identity:
    path = folder / "vectorindex.yaml"
    path.write_text(json.dumps(manifest))
    return load_identity(path)


def load_both(folder: Path, manifest: object) -> Behaviour:
    load(folder, manifest)
    return load_behaviour(None, folder / "vectorindex.yaml")


def test_absent_fields_have_their_defaults(tmp_path: Path) -> None:
    identity = load(tmp_path, make_manifest())
    assert identity.uid == "local-docs"
    assert identity.source.postgres.port == 5432
    assert identity.source.table == TableName("public", "embeddings")
    assert (identity.source.model_column, identity.source.model, identity.source.tombstone) == (None, None, None)
    assert (identity.index.metric, identity.index.type, identity.index.hnsw) == (Metric.COSINE, IndexType.HNSW, Hnsw(32, 80, 64))


def test_ssl_is_verified_unless_said_otherwise(tmp_path: Path) -> None:
    manifest = make_manifest()
    del manifest["spec"]["source"]["postgres"]["sslMode"]
    manifest["spec"]["source"]["postgres"]["caConfigMapRef"] = {"name": "pg-ca"}
    assert load(tmp_path, manifest).source.postgres.ssl_mode is SslMode.VERIFY_FULL


def test_a_manifest_with_every_field_is_read(tmp_path: Path) -> None:
    identity = load(tmp_path, make_full_manifest())
    assert (identity.name, identity.namespace, identity.uid) == ("docs", "search", "5e0a4c5e-1111-4c1e-9a51-000000000001")
    assert identity.source.model == "Qwen/Qwen3-Embedding-0.6B"
    table = TableName("public", "faiss_metadata")
    assert identity.source.tombstone == MetadataTombstone(table, "entity_id", "deleted", "model_name", Missing.DEAD)
    assert identity.index.hnsw == Hnsw(16, 80, 64)


def test_a_column_tombstone_is_read(tmp_path: Path) -> None:
    manifest = make_manifest()
    manifest["spec"]["source"]["tombstone"] = {"column": "deleted"}
    assert load(tmp_path, manifest).source.tombstone == ColumnTombstone("deleted")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("kind", "Pod", "kind"),
        ("apiVersion", "vectorindex.dev/v1", "apiVersion"),
        ("typo", 1, "typo"),
        ("metadata.name", "Docs", "metadata.name"),
        ("metadata.name", "d" * 47, "metadata.name"),
        ("spec.replicas", 0, "spec.replicas"),
        ("spec.replicas", 21, "spec.replicas"),
        ("spec.suspend", "yes", "spec.suspend"),
        ("spec.source.typo", 1, "spec.source.typo"),
        ("spec.source.postgres.dsn", "x", "spec.source.postgres.dsn"),
        ("spec.source.postgres.port", 0, "spec.source.postgres.port"),
        ("spec.source.postgres.port", 65536, "spec.source.postgres.port"),
        ("spec.source.postgres.port", True, "spec.source.postgres.port"),
        ("spec.source.postgres.port", "5432", "spec.source.postgres.port"),
        ("spec.source.postgres.host", "a b", "spec.source.postgres.host"),
        ("spec.source.postgres.host", "/tmp", "spec.source.postgres.host"),
        ("spec.source.postgres.host", "a,b", "spec.source.postgres.host"),
        ("spec.source.postgres.sslMode", "prefer", "spec.source.postgres.sslMode"),
        ("spec.source.postgres.sslMode", "VerifyFull", "spec.source.postgres.caConfigMapRef"),
        ("spec.source.postgres.caConfigMapRef", {"name": "pg-ca"}, "spec.source.postgres.caConfigMapRef"),
        ("spec.source.tombstone", {}, "spec.source.tombstone"),
        ("spec.source.tombstone.column", 1, "spec.source.tombstone.column"),
        ("spec.source.tombstone.metadata", {"id": "a", "deleted": "b"}, "spec.source.tombstone.metadata.table"),
        ("spec.source.model", "m", "spec.source.model"),
        ("spec.source.columns.model", "m", "spec.source.model"),
        ("spec.index.dimension", 0, "spec.index.dimension"),
        ("spec.index.dimension", -1, "spec.index.dimension"),
        ("spec.index.dimension", 4097, "spec.index.dimension"),
        ("spec.index.dimension", 4.5, "spec.index.dimension"),
        ("spec.index.metric", "cosine", "spec.index.metric"),
        ("spec.index.type", "IVF", "spec.index.type"),
        ("spec.index.hnsw.m", 1, "spec.index.hnsw.m"),
        ("spec.index.hnsw.m", 129, "spec.index.hnsw.m"),
        ("spec.index.hnsw.efConstruction", 7, "spec.index.hnsw.efConstruction"),
        ("spec.index.hnsw.efSearch", 4097, "spec.index.hnsw.efSearch"),
        ("spec.index", {"dimension": 4, "type": "Flat", "hnsw": {}}, "spec.index.hnsw"),
        ("spec.index.quantization", "SQ4", "spec.index.quantization"),
        ("spec.index.ivf", {}, "spec.index.ivf"),
        ("spec.index", {"dimension": 4, "type": "IVFFlat", "ivf": {"nlist": 0}}, "spec.index.ivf.nlist"),
        ("spec.index", {"dimension": 4, "type": "IVFFlat", "ivf": {"nprobe": 65537}}, "spec.index.ivf.nprobe"),
        ("spec.source.digests.columns", ["d1"], "spec.source.digests.columns"),
        ("spec.source.digests.columns", ["d1", "d1"], "spec.source.digests.columns"),
        ("spec.source.digests.columns", ["d1", 'd"2'], "spec.source.digests.columns[1]"),
        ("spec.source.postgres.caSecretRef", {"name": "pg-ca"}, "spec.source.postgres.caConfigMapRef"),
        ("spec.source.postgres.clientCertificateSecretRef", {"name": "me"}, "spec.source.postgres.clientCertificateSecretRef"),
        ("spec.healing.mode", "Off", "spec.healing.mode"),
        ("spec.healing.maxChangePercent", -1, "spec.healing.maxChangePercent"),
        ("spec.consistency.periodSeconds", 0, "spec.consistency.periodSeconds"),
        ("spec.consistency.contentSweepSeconds", 9, "spec.consistency.contentSweepSeconds"),
        ("spec.consistency.maxStalenessSeconds", 604801, "spec.consistency.maxStalenessSeconds"),
        ("spec.consistency.maxStalenessSeconds", 30, "spec.consistency.maxStalenessSeconds"),
        ("spec.consistency.whenUnverified", "Maybe", "spec.consistency.whenUnverified"),
    ],
)
def test_what_is_wrong_is_refused_with_file_and_field(tmp_path: Path, path: str, value: object, field: str) -> None:
    manifest = make_manifest()
    set_at(manifest, path, value)
    with pytest.raises(ConfigError) as error:
        load(tmp_path, manifest)
    assert str(error.value).startswith(f"{tmp_path / 'vectorindex.yaml'}: {field}: ")


@pytest.mark.parametrize(
    "path",
    [
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "spec",
        "spec.source",
        "spec.source.postgres",
        "spec.source.postgres.host",
        "spec.source.postgres.database",
        "spec.source.postgres.credentialsSecretRef",
        "spec.source.table",
        "spec.source.table.name",
        "spec.source.columns.id",
        "spec.source.columns.vector",
        "spec.index",
        "spec.index.dimension",
    ],
)
def test_a_missing_field_is_named(tmp_path: Path, path: str) -> None:
    manifest = make_manifest()
    delete_at(manifest, path)
    with pytest.raises(ConfigError, match=f": {path}: required"):
        load(tmp_path, manifest)


@pytest.mark.parametrize(
    "path",
    [
        "spec.source.table.name",
        "spec.source.table.schema",
        "spec.source.columns.id",
        "spec.source.columns.vector",
        "spec.source.columns.model",
        "spec.source.tombstone.metadata.table.name",
        "spec.source.tombstone.metadata.id",
        "spec.source.tombstone.metadata.deleted",
        "spec.source.tombstone.metadata.model",
    ],
)
@pytest.mark.parametrize("identifier", FORBIDDEN_IDENTIFIERS)
def test_no_identifier_can_carry_anything_but_a_name(tmp_path: Path, path: str, identifier: str) -> None:
    manifest = make_full_manifest()
    set_at(manifest, path, identifier)
    with pytest.raises(ConfigError, match=f": {path}: "):
        load(tmp_path, manifest)


@pytest.mark.parametrize("model", FORBIDDEN_TEXTS)
def test_a_model_key_is_one_short_line(tmp_path: Path, model: str) -> None:
    manifest = make_full_manifest()
    manifest["spec"]["source"]["model"] = model
    with pytest.raises(ConfigError, match=r": spec.source.model: "):
        load(tmp_path, manifest)


def test_two_tombstone_rules_are_refused(tmp_path: Path) -> None:
    manifest = make_full_manifest()
    manifest["spec"]["source"]["tombstone"]["column"] = "deleted"
    with pytest.raises(ConfigError, match=r": spec.source.tombstone: exactly one"):
        load(tmp_path, manifest)


def test_a_metadata_model_column_needs_a_model(tmp_path: Path) -> None:
    manifest = make_full_manifest()
    del manifest["spec"]["source"]["model"], manifest["spec"]["source"]["columns"]["model"]
    with pytest.raises(ConfigError, match=r": spec.source.tombstone.metadata.model: "):
        load(tmp_path, manifest)


@pytest.mark.parametrize(
    "text", ["", "[", "a: b: c", "- 1", "\x00", "a: &a [*a]", "[" * 5000, "42", "{}\n---\n{}", "!!python/object:os.system {}"]
)
def test_what_is_no_manifest_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vectorindex.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_identity(path)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectorindex.yaml"
    path.write_text(yaml.safe_dump(make_manifest()).replace("dimension: 4", "dimension: 4\n    dimension: 5"))
    with pytest.raises(ConfigError, match="'dimension' is there twice"):
        load_identity(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: No such file"):
        load_identity(tmp_path / "nowhere.yaml")


@settings(max_examples=30)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)
)
def test_any_document_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    folder = tmp_path_factory.getbasetemp()
    for path in ("spec", "spec.source.postgres", "spec.source.tombstone", "spec.index", "spec.consistency", "metadata"):
        manifest = make_manifest()
        set_at(manifest, path, document)
        try:
            load(folder, manifest)
        except ConfigError as error:
            assert str(folder) in str(error)  # noqa: PT017 - either way is right


def test_the_hash_of_an_identity_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "vectorindex.yaml"
    path.write_text(json.dumps(make_manifest(), sort_keys=True))  # not the canonical form: blanks count
    assert load_identity(path).hash == hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_the_hash_of_a_whole_manifest_is_that_of_its_identity(tmp_path: Path) -> None:
    former = load(tmp_path, make_full_manifest()).hash
    manifest = make_full_manifest()
    manifest["spec"]["consistency"]["periodSeconds"] = 7
    manifest["metadata"]["annotations"] = {}
    assert load(tmp_path, manifest).hash == former
    manifest["spec"]["index"]["hnsw"]["m"] = 17
    assert load(tmp_path, manifest).hash != former


def test_the_live_file_is_read() -> None:
    behaviour = load_behaviour(LIVE, Path("/nowhere"))
    assert behaviour.period == timedelta(seconds=30)
    assert behaviour.wishes == Wishes(datetime(2026, 11, 25, 9, tzinfo=UTC), None, "2026-11-25T09:00:00Z", "", ("0123456789abcdef",))
    assert behaviour.healing == Healing(HealingMode.AUTO, 0.2, timedelta(seconds=60), 1)
    assert behaviour.max_source_duty == 0.1
    assert behaviour.last_proven is not None
    assert (behaviour.last_proven.rows, behaviour.last_proven.snapshot) == (9500, "731:735:732")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("typo", 1),
        ("suspend", 1),
        ("consistency.periodSeconds", 0),
        ("consistency.maxStalenessSeconds", 30),
        ("consistency.maxSourceDutyPercent", 0),
        ("healing.mode", "auto"),
        ("healing.maxChangePercent", 101),
        ("healing.concurrentRebuilds", 0),
        ("lastProven.rows", -1),
        ("lastProven.rows", "9500"),
    ],
)
def test_a_wrong_live_file_is_refused_with_file_and_field(tmp_path: Path, path: str, value: object) -> None:
    document = json.loads(LIVE.read_text())
    set_at(document, path, value)
    live = tmp_path / "live.json"
    live.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as error:
        load_behaviour(live, Path("/nowhere"))
    assert str(error.value).startswith(f"{live}: {path}: ")


def test_an_empty_live_file_is_refused(tmp_path: Path) -> None:
    live = tmp_path / "live.json"
    live.write_text("")
    with pytest.raises(ConfigError, match=r"live.json: not readable as JSON"):
        load_behaviour(live, Path("/nowhere"))


def test_without_a_live_file_the_manifest_tells_behaviour_and_wishes(tmp_path: Path) -> None:
    behaviour = load_both(tmp_path, make_full_manifest())
    assert (behaviour.suspend, behaviour.when_unverified, behaviour.period) == (True, WhenUnverified.REFUSE, timedelta(seconds=5))
    assert behaviour.wishes.validate_requested_at == datetime(2026, 11, 25, 9, tzinfo=UTC)
    assert behaviour.wishes.validate_text == "2026-11-25T10:00:00+01:00"
    assert behaviour.last_proven is None


def test_the_hash_of_the_behaviour_follows_the_file(tmp_path: Path) -> None:
    manifest = make_manifest()
    former = load_both(tmp_path, manifest).hash
    changed = copy.deepcopy(manifest)
    changed["spec"]["suspend"] = True
    assert load_both(tmp_path, changed).hash != former


@pytest.mark.parametrize("text", ["now", "", "2026-11-25", "2026-11-25T09:00:00", "9", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-23:59"])
def test_a_wish_that_is_no_time_is_never_due_but_spoils_nothing(tmp_path: Path, text: str) -> None:
    manifest = make_full_manifest()
    manifest["metadata"]["annotations"][names.VALIDATE_REQUESTED_AT] = text
    wishes = load_both(tmp_path, manifest).wishes
    assert (wishes.validate_requested_at, wishes.validate_text) == (None, text)


@pytest.mark.parametrize(
    ("text", "plans"),
    [
        ("", ()),
        ("0123456789abcdef", ("0123456789abcdef",)),
        (" 0123456789abcdef , fedcba9876543210", ("0123456789abcdef", "fedcba9876543210")),
        ("yes,0123456789ABCDEF,0123456789abcde,0123456789abcdef0", ()),
        (",".join(f"{number:016x}" for number in range(30)), tuple(f"{number:016x}" for number in range(20))),
    ],
)
def test_plan_ids_are_read_and_anything_else_approves_nothing(text: str, plans: tuple[str, ...]) -> None:
    assert parse_plans(text) == plans


def test_times_come_out_in_utc() -> None:
    assert parse_time("2026-11-25T10:00:00.250+01:00") == datetime(2026, 11, 25, 9, 0, 0, 250000, tzinfo=UTC)


def test_one_final_newline_of_a_credential_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "username").write_text("reader\n")
    (tmp_path / "password").write_text(" pass word\n\n")
    credentials = read_credentials(tmp_path)
    assert (credentials.username, credentials.password) == ("reader", " pass word\n")


def test_credentials_never_show(tmp_path: Path) -> None:
    (tmp_path / "username").write_text("reader")
    (tmp_path / "password").write_text("s3cret")
    credentials = read_credentials(tmp_path)
    assert "s3cret" not in f"{credentials} {credentials!r}"
    assert "reader" not in repr(credentials)


@pytest.mark.parametrize(("username", "password"), [(None, b"x"), (b"x", None), (b"", b"x"), (b"\xff", b"x"), (b"x", b"s3cret\x00")])
def test_missing_credentials_are_told_by_file_without_their_content(tmp_path: Path, username: bytes | None, password: bytes | None) -> None:
    for name, content in (("username", username), ("password", password)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_credentials(tmp_path)
    assert error.value.reason is names.SourceReason.CREDENTIALS_MISSING
    assert "s3cret" not in str(error.value)
    assert "file " in error.value.message
