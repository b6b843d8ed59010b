"""Turns the files a replica is given (manifest, live file, credentials) into typed values, strictly; acting on them is left to others."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct

from vectorindex_indexer import names
from vectorindex_indexer.errors import ConfigError, SourceError
from vectorindex_indexer.names import SourceReason

# --- what the rest of the indexer works with ---


class Metric(StrEnum):
    """How two vectors are compared."""

    COSINE = "Cosine"  # similarity, higher is better
    L2 = "L2"  # squared distance, lower is better
    INNER_PRODUCT = "InnerProduct"  # similarity, higher is better


class IndexType(StrEnum):
    """How vectors are searched."""

    FLAT = "Flat"  # exact, time grows with the rows
    HNSW = "HNSW"  # graph, approximate
    IVFFLAT = "IVFFlat"  # clusters, of which the nearest are read; approximate


class Quantization(StrEnum):
    """How vectors are stored in the index."""

    NONE = "None"  # float32, exactly
    SQ8 = "SQ8"  # one byte for each number, between the smallest and the largest that occurred at its place


class HealingMode(StrEnum):
    """What a replica does about drift. It follows Postgres in every mode."""

    AUTO = "Auto"  # repairs
    PLAN = "Plan"  # says what it would do, and waits for approval
    OBSERVE = "Observe"  # only reports


class SslMode(StrEnum):
    """How the connection to Postgres is protected."""

    DISABLE = "Disable"
    REQUIRE = "Require"  # encrypted, but the server isn't authenticated
    VERIFY_CA = "VerifyCA"
    VERIFY_FULL = "VerifyFull"  # certificate and host name


class Missing(StrEnum):
    """What a row without any metadata row is."""

    LIVE = "Live"
    DEAD = "Dead"


class WhenUnverified(StrEnum):
    """What a replica does whose last proof is older than `maxStalenessSeconds`."""

    SERVE = "Serve"
    REFUSE = "Refuse"


@dataclass(frozen=True)
class TableName:
    """A table or view of Postgres; both parts are plain identifiers."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class PostgresAddress:
    """Where Postgres is. Credentials and CA come from folders of files, read at each connect."""

    host: str
    port: int
    database: str
    ssl_mode: SslMode
    client_certificate: bool = False  # prove who we are with tls.crt and tls.key of the TLS folder


@dataclass(frozen=True)
class ColumnTombstone:
    """A column of the table itself tells dead rows: boolean (live is false) or timestamp (live is NULL)."""

    column: str


@dataclass(frozen=True)
class MetadataTombstone:
    """A second table tells dead rows: a row is dead if any of its metadata rows is."""

    table: TableName
    id: str
    deleted: str
    model: str | None  # column that must equal the model key, too
    missing: Missing  # what a row without metadata is


@dataclass(frozen=True)
class SourceSpec:
    """Which rows of which table are indexed."""

    postgres: PostgresAddress
    table: TableName
    id_column: str
    vector_column: str
    model_column: str | None
    model: str | None  # compared exactly with `model_column`; both or none
    tombstone: ColumnTombstone | MetadataTombstone | None
    digest_columns: tuple[str, str] | None = None  # stored row digests, first and next 64 bits


@dataclass(frozen=True)
class Hnsw:
    """Parameters of an HNSW graph. Of no meaning for other types."""

    m: int = 32
    ef_construction: int = 80
    ef_search: int = 64


@dataclass(frozen=True)
class Ivf:
    """Parameters of an IVF index. Of no meaning for other types."""

    nlist: int = 1024  # clusters
    nprobe: int = 16  # clusters that one search reads


@dataclass(frozen=True)
class IndexSpec:
    """What kind of index is built."""

    dimension: int
    metric: Metric = Metric.COSINE
    type: IndexType = IndexType.HNSW
    hnsw: Hnsw = field(default_factory=Hnsw)
    quantization: Quantization = Quantization.NONE
    ivf: Ivf = field(default_factory=Ivf)


@dataclass(frozen=True)
class Identity:
    """What makes an index this index: never changes while a process lives."""

    name: str
    namespace: str
    uid: str
    source: SourceSpec
    index: IndexSpec
    hash: str  # first 16 hex digits of the sha256 of the file


@dataclass(frozen=True)
class Wishes:
    """What people asked for. A text that is no RFC 3339 time with an offset has no time, and so is never due."""

    validate_requested_at: datetime | None = None
    rebuild_requested_at: datetime | None = None
    validate_text: str = ""  # as written, to be echoed in the status
    rebuild_text: str = ""
    approved_plans: tuple[str, ...] = ()  # ids of held plans that may be carried out


@dataclass(frozen=True)
class LastProven:
    """What the index last proved, as the operator remembers it; guards a replica that has no memory of its own."""

    rows: int
    incarnation: str
    snapshot: str
    digest_spec: str


@dataclass(frozen=True)
class Healing:
    """What a replica may do on its own."""

    mode: HealingMode = HealingMode.AUTO
    max_change: float = 0.2  # share of the rows that may be removed or replaced without asking
    cooldown: timedelta = timedelta(seconds=60)  # between two rebuilds that nobody asked for
    concurrent_rebuilds: int = 1  # loads at a time from one database


@dataclass(frozen=True)
class Behaviour:
    """What may change while a replica runs."""

    period: timedelta
    content_sweep: timedelta
    max_staleness: timedelta
    when_unverified: WhenUnverified
    suspend: bool
    wishes: Wishes
    last_proven: LastProven | None
    hash: str  # first 16 hex digits of the sha256 of the file
    max_source_duty: float = 0.1  # share of time that checks may keep Postgres busy
    healing: Healing = field(default_factory=Healing)


@dataclass(frozen=True)
class Credentials:
    """User and password for Postgres. Neither shows in `repr`."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(***)"


@dataclass(frozen=True)
class Settings:
    """Where a process finds its files, where it listens, who it is."""

    config: Path
    live: Path | None = None  # none: behaviour and wishes come from `config`, too
    credentials: Path = Path(names.CREDENTIALS_FOLDER)
    tls: Path = Path(names.TLS_FOLDER)
    data: Path = Path(names.DATA_FOLDER)
    host: str = "0.0.0.0"  # noqa: S104 - a pod is reached from outside it; NetworkPolicy limits by whom
    search_port: int = names.SEARCH_PORT
    ops_port: int = names.OPS_PORT
    drain: timedelta = timedelta(seconds=5)  # how long new requests are still answered after SIGTERM
    pod_name: str = ""
    pod_uid: str = ""


# --- the documents, as written; bounds are those of crds/vectorindexes.yaml, compared by a contract test ---

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z")]
_NAME_PART: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
ObjectName = Annotated[str, Meta(min_length=1, max_length=253, pattern=rf"^{_NAME_PART}(\.{_NAME_PART})*\Z")]
ObjectKey = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+\Z")]
ModelKey = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(max_length=1024)]


class _Document(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Base of what is read strictly."""


class SecretRefDocument(_Document, frozen=True):
    """Name of a Secret; its content comes through the credentials folder."""

    name: ObjectName


class ConfigMapRefDocument(_Document, frozen=True):
    """Name and key of a ConfigMap; its content comes through the TLS folder."""

    name: ObjectName
    key: ObjectKey = "ca.crt"


class SecretKeyRefDocument(_Document, frozen=True):
    """Name and key of a Secret; its content comes through the TLS folder."""

    name: ObjectName
    key: ObjectKey = "ca.crt"


class PostgresDocument(_Document, frozen=True):
    """`spec.source.postgres`."""

    host: Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?\Z")]
    database: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
    credentials_secret_ref: SecretRefDocument
    port: Port = 5432
    ssl_mode: SslMode = SslMode.VERIFY_FULL
    ca_config_map_ref: ConfigMapRefDocument | None = None
    ca_secret_ref: SecretKeyRefDocument | None = None
    client_certificate_secret_ref: SecretRefDocument | None = None


class TableDocument(_Document, frozen=True):
    """A schema-qualified table."""

    name: Identifier
    schema: Identifier = "public"


class ColumnsDocument(_Document, frozen=True):
    """`spec.source.columns`."""

    id: Identifier
    vector: Identifier
    model: Identifier | None = None


class MetadataDocument(_Document, frozen=True):
    """`spec.source.tombstone.metadata`."""

    table: TableDocument
    id: Identifier
    deleted: Identifier
    model: Identifier | None = None
    missing: Missing = Missing.DEAD


class TombstoneDocument(_Document, frozen=True):
    """`spec.source.tombstone`: exactly one of the two."""

    column: Identifier | None = None
    metadata: MetadataDocument | None = None


class DigestsDocument(_Document, frozen=True):
    """`spec.source.digests`."""

    columns: Annotated[list[Identifier], Meta(min_length=2, max_length=2)]


class SourceDocument(_Document, frozen=True):
    """`spec.source`."""

    postgres: PostgresDocument
    table: TableDocument
    columns: ColumnsDocument
    model: ModelKey | None = None
    tombstone: TombstoneDocument | None = None
    digests: DigestsDocument | None = None


class HnswDocument(_Document, frozen=True):
    """`spec.index.hnsw`."""

    m: Annotated[int, Meta(ge=2, le=128)] = 32
    ef_construction: Annotated[int, Meta(ge=8, le=1000)] = 80
    ef_search: Annotated[int, Meta(ge=8, le=4096)] = 64


class IvfDocument(_Document, frozen=True):
    """`spec.index.ivf`."""

    nlist: Annotated[int, Meta(ge=1, le=65536)] = 1024
    nprobe: Annotated[int, Meta(ge=1, le=65536)] = 16


class IndexDocument(_Document, frozen=True):
    """`spec.index`."""

    dimension: Annotated[int, Meta(ge=1, le=4096)]
    metric: Metric = Metric.COSINE
    type: IndexType = IndexType.HNSW
    quantization: Quantization = Quantization.NONE
    hnsw: HnswDocument | None = None
    ivf: IvfDocument | None = None


class ConsistencyDocument(_Document, frozen=True):
    """`spec.consistency`."""

    period_seconds: Annotated[int, Meta(ge=1, le=86400)] = 30
    content_sweep_seconds: Annotated[int, Meta(ge=10, le=2592000)] = 86400
    max_staleness_seconds: Annotated[int, Meta(ge=5, le=604800)] = 300
    max_source_duty_percent: Annotated[int, Meta(ge=1, le=100)] = 10
    when_unverified: WhenUnverified = WhenUnverified.SERVE


class HealingDocument(_Document, frozen=True):
    """`spec.healing`."""

    mode: HealingMode = HealingMode.AUTO
    max_change_percent: Annotated[int, Meta(ge=0, le=100)] = 20
    cooldown_seconds: Annotated[int, Meta(ge=0, le=86400)] = 60
    concurrent_rebuilds: Annotated[int, Meta(ge=1, le=20)] = 1


class SpecDocument(_Document, frozen=True):
    """`spec`. What only the operator acts on is accepted and left to it."""

    source: SourceDocument
    index: IndexDocument
    replicas: Annotated[int, Meta(ge=1, le=20)] = 2
    suspend: bool = False
    consistency: ConsistencyDocument = ConsistencyDocument()
    healing: HealingDocument = HealingDocument()
    storage: dict[str, Any] | None = None
    network: dict[str, Any] | None = None
    pod: dict[str, Any] | None = None


class MetadataOfObject(Struct, frozen=True):
    """`metadata`: Kubernetes may add to it, so unknown fields pass."""

    name: Annotated[str, Meta(max_length=46, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z")]
    namespace: Annotated[str, Meta(min_length=1, max_length=63)] = "default"
    uid: Annotated[str, Meta(max_length=253)] = ""
    annotations: dict[str, str] | None = None


class Manifest(_Document, frozen=True):
    """A VectorIndex, as applied to a cluster or cut down to its identity."""

    api_version: Literal["vectorindex.dev/v1alpha1"]
    kind: Literal["VectorIndex"]
    metadata: MetadataOfObject
    spec: SpecDocument
    status: dict[str, Any] | None = None


class WishesDocument(_Document, frozen=True):
    """`wishes` of the live file: texts of annotations, so any text is borne."""

    validate_requested_at: Text = ""
    rebuild_requested_at: Text = ""
    approve_plan: Text = ""


class LastProvenDocument(_Document, frozen=True):
    """`lastProven` of the live file."""

    rows: Annotated[int, Meta(ge=0)]
    incarnation: Text
    snapshot: Text
    digest_spec: Text


class LiveDocument(_Document, frozen=True):
    """The live file."""

    suspend: bool = False
    consistency: ConsistencyDocument = ConsistencyDocument()
    healing: HealingDocument = HealingDocument()
    wishes: WishesDocument = WishesDocument()
    last_proven: LastProvenDocument | None = None


# --- reading ---

MOST_PLANS: Final = 20
"""Ids of approved plans that are read; more than any index has replicas."""

_PLAN_ID: Final = re.compile(r"[0-9a-f]{16}")


def load_identity(path: Path) -> Identity:
    """Return the identity that a manifest holds; raise ConfigError with file and field if anything in it is wrong."""
    content = _read(path)
    document = _parse_yaml(path, content)
    manifest = _convert(path, document, Manifest)
    _check(path, manifest)
    meta = manifest.metadata
    return Identity(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid or f"local-{meta.name}",
        source=_source(manifest.spec.source),
        index=_index(manifest.spec.index),
        hash=_identity_hash(content, document),
    )


def load_behaviour(live: Path | None, config: Path) -> Behaviour:
    """Return behaviour and wishes from the live file or, without one, from the manifest itself; raise ConfigError as above."""
    if live is None:
        content = _read(config)
        manifest = _convert(config, _parse_yaml(config, content), Manifest)
        _check(config, manifest)
        annotations = manifest.metadata.annotations or {}
        wished = (names.VALIDATE_REQUESTED_AT, names.REBUILD_REQUESTED_AT, names.APPROVE_PLAN)
        wishes = WishesDocument(*(annotations.get(name, "") for name in wished))
        spec = manifest.spec
        document = LiveDocument(suspend=spec.suspend, consistency=spec.consistency, healing=spec.healing, wishes=wishes)
    else:
        content = _read(live)
        document = _convert(live, _parse_json(live, content), LiveDocument)
        problem = _check_consistency(document.consistency)
        if problem is not None:
            raise ConfigError(f"{live}: {problem}")
    return _behaviour(document, content)


def read_credentials(folder: Path) -> Credentials:
    """Return user and password from the folder's two files, each without one final newline; raise SourceError `CredentialsMissing`."""
    return Credentials(username=_read_secret(folder, "username", required=True), password=_read_secret(folder, "password", required=False))


def parse_time(text: str) -> datetime | None:
    """Return the moment an RFC 3339 text with offset names, in UTC; None for any other text."""
    try:
        moment: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
        return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def parse_plans(text: str) -> tuple[str, ...]:
    """Return the plan ids in a comma-separated list, at most the first 20; what can't be an id is left out."""
    parts = [part.strip() for part in text.split(",")]
    return tuple([part for part in parts if _PLAN_ID.fullmatch(part)][:MOST_PLANS])


def _read_secret(folder: Path, name: str, *, required: bool) -> str:
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        problem = "missing" if isinstance(error, FileNotFoundError) else "not readable as text"
        raise SourceError(SourceReason.CREDENTIALS_MISSING, f"credentials: file {name} is {problem}", retryable=True) from None
    text = text.removesuffix("\n")
    if (required and not text) or "\x00" in text:
        raise SourceError(SourceReason.CREDENTIALS_MISSING, f"credentials: file {name} is empty or binary", retryable=True)
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key written twice, where the plain one silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _parse_yaml(path: Path, content: bytes) -> object:
    try:
        return yaml.load(content, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: not readable as one YAML document: {reason}") from error


def _parse_json(path: Path, content: bytes) -> object:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error}") from error


_T = TypeVar("_T", bound=_Document)
_AT: Final = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<field>.*)`)?\Z", re.DOTALL)
_NAMED: Final = re.compile(r"^Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`\Z", re.DOTALL)


def _convert(path: Path, document: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, UnicodeError, RecursionError) as error:  # YAML lets lone surrogates through
        raise ConfigError(f"{path}: {_describe(str(error))}") from error


def _describe(message: str) -> str:
    """Turn msgspec's "… - at `$.a.b`" into "a.b: …"."""
    at = _AT.match(message)
    problem, place = (at["problem"], at["field"] or "") if at else (message, "")
    named = _NAMED.match(problem)
    if named:
        place = f"{place}.{named['name']}" if place else named["name"]
        problem = "required" if named["what"].startswith("missing") else "unknown field"
    return f"{place or 'document'}: {problem[:1].lower()}{problem[1:]}"


def _check(path: Path, manifest: Manifest) -> None:
    """Raise ConfigError for what the schema's CEL rules forbid."""
    for check in _CHECKS:
        problem = check(manifest.spec)
        if problem is not None:
            raise ConfigError(f"{path}: {problem}")


def _check_model(spec: SpecDocument) -> str | None:
    if (spec.source.model is None) == (spec.source.columns.model is None):
        return None
    return "spec.source.model: model and columns.model stand together or not at all"


def _check_metadata_model(spec: SpecDocument) -> str | None:
    tombstone = spec.source.tombstone
    if tombstone is None or tombstone.metadata is None or tombstone.metadata.model is None or spec.source.model is not None:
        return None
    return "spec.source.tombstone.metadata.model: needs spec.source.model to compare with"


def _check_tombstone(spec: SpecDocument) -> str | None:
    tombstone = spec.source.tombstone
    if tombstone is None or (tombstone.column is None) != (tombstone.metadata is None):
        return None
    return "spec.source.tombstone: exactly one of column and metadata is needed"


def _check_ca(spec: SpecDocument) -> str | None:
    postgres = spec.source.postgres
    verifies = postgres.ssl_mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)
    given = [postgres.ca_config_map_ref, postgres.ca_secret_ref]
    if sum(reference is not None for reference in given) == verifies:
        return None
    return (
        "spec.source.postgres.caConfigMapRef: it or caSecretRef, not both, is needed by sslMode VerifyCA and VerifyFull, "
        "and of no use to the others"
    )


def _check_client_certificate(spec: SpecDocument) -> str | None:
    postgres = spec.source.postgres
    if postgres.client_certificate_secret_ref is None or postgres.ssl_mode is not SslMode.DISABLE:
        return None
    return "spec.source.postgres.clientCertificateSecretRef: of no use with sslMode Disable"


def _check_digest_columns(spec: SpecDocument) -> str | None:
    digests = spec.source.digests
    if digests is None or len(set(digests.columns)) == len(digests.columns):
        return None
    return "spec.source.digests.columns: the two columns must differ"


def _check_hnsw(spec: SpecDocument) -> str | None:
    if spec.index.type is IndexType.HNSW or spec.index.hnsw is None:
        return None
    return f"spec.index.hnsw: only for type HNSW, the type is {spec.index.type}"


def _check_ivf(spec: SpecDocument) -> str | None:
    if spec.index.type is IndexType.IVFFLAT or spec.index.ivf is None:
        return None
    return f"spec.index.ivf: only for type IVFFlat, the type is {spec.index.type}"


def _check_consistency(consistency: ConsistencyDocument) -> str | None:
    if consistency.max_staleness_seconds > consistency.period_seconds:
        return None
    return "consistency.maxStalenessSeconds: must be greater than consistency.periodSeconds"


_CHECKS: Final[tuple[Callable[[SpecDocument], str | None], ...]] = (
    _check_model,
    _check_metadata_model,
    _check_tombstone,
    _check_ca,
    _check_client_certificate,
    _check_digest_columns,
    _check_hnsw,
    _check_ivf,
    lambda spec: f"spec.{problem}" if (problem := _check_consistency(spec.consistency)) else None,
)


def _behaviour(document: LiveDocument, content: bytes) -> Behaviour:
    consistency, last = document.consistency, document.last_proven
    return Behaviour(
        period=timedelta(seconds=consistency.period_seconds),
        content_sweep=timedelta(seconds=consistency.content_sweep_seconds),
        max_staleness=timedelta(seconds=consistency.max_staleness_seconds),
        when_unverified=consistency.when_unverified,
        suspend=document.suspend,
        wishes=Wishes(
            validate_requested_at=parse_time(document.wishes.validate_requested_at),
            rebuild_requested_at=parse_time(document.wishes.rebuild_requested_at),
            validate_text=document.wishes.validate_requested_at,
            rebuild_text=document.wishes.rebuild_requested_at,
            approved_plans=parse_plans(document.wishes.approve_plan),
        ),
        last_proven=None if last is None else LastProven(last.rows, last.incarnation, last.snapshot, last.digest_spec),
        hash=_hash(content),
        max_source_duty=consistency.max_source_duty_percent / 100,
        healing=_healing(document.healing),
    )


def _healing(document: HealingDocument) -> Healing:
    return Healing(
        document.mode, document.max_change_percent / 100, timedelta(seconds=document.cooldown_seconds), document.concurrent_rebuilds
    )


def _source(document: SourceDocument) -> SourceSpec:
    postgres = document.postgres
    return SourceSpec(
        postgres=PostgresAddress(
            postgres.host, postgres.port, postgres.database, postgres.ssl_mode, postgres.client_certificate_secret_ref is not None
        ),
        table=TableName(document.table.schema, document.table.name),
        id_column=document.columns.id,
        vector_column=document.columns.vector,
        model_column=document.columns.model,
        model=document.model,
        tombstone=_tombstone(document.tombstone),
        digest_columns=None if document.digests is None else (document.digests.columns[0], document.digests.columns[1]),
    )


def _tombstone(document: TombstoneDocument | None) -> ColumnTombstone | MetadataTombstone | None:
    if document is None:
        return None
    if document.column is not None:
        return ColumnTombstone(document.column)
    metadata = document.metadata
    if metadata is None:
        return None
    table = TableName(metadata.table.schema, metadata.table.name)
    return MetadataTombstone(table, metadata.id, metadata.deleted, metadata.model, metadata.missing)


def _index(document: IndexDocument) -> IndexSpec:
    hnsw, ivf = document.hnsw or HnswDocument(), document.ivf or IvfDocument()
    return IndexSpec(
        document.dimension,
        document.metric,
        document.type,
        Hnsw(hnsw.m, hnsw.ef_construction, hnsw.ef_search),
        document.quantization,
        Ivf(ivf.nlist, ivf.nprobe),
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _identity_hash(content: bytes, document: object) -> str:
    """Hash the bytes of a file that holds an identity only; of a whole manifest, hash its identity.

    On a laptop one file holds both: a changed period must not void the saved index.
    """
    assert isinstance(document, dict)  # noqa: S101 - it was converted before; for the type checker
    metadata = {key: value for key, value in document["metadata"].items() if key in ("name", "namespace", "uid")}
    spec = {key: value for key, value in document["spec"].items() if key in ("source", "index")}
    identity = {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata, "spec": spec}
    if identity == document:
        return _hash(content)
    return _hash(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode())
