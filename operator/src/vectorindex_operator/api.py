"""The VectorIndex resource as typed values: spec and status, parsed from and rendered to what the API server stores."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from vectorindex_operator.errors import SpecError
from vectorindex_operator.names import REBUILD_REQUESTED_AT, VALIDATE_REQUESTED_AT, ConditionStatus, ConditionType, Key

Json = dict[str, Any]

# --- spec: defaults are those of crds/vectorindexes.yaml, compared by a contract test ---


class _Part(Struct, frozen=True, rename="camel"):
    """Base of all parts. Defaults are left out when rendered, so a new optional field changes nothing for old resources."""

    _keep_defaults: ClassVar[bool] = False


class SecretRef(_Part, frozen=True):
    """Name of a Secret in the index's namespace."""

    name: str


class ConfigMapRef(_Part, frozen=True):
    """A key of a ConfigMap in the index's namespace."""

    name: str
    key: str = "ca.crt"


class Postgres(_Part, frozen=True):
    """`spec.source.postgres`."""

    host: str
    database: str
    credentials_secret_ref: SecretRef
    port: int = 5432
    ssl_mode: str = "VerifyFull"
    ca_config_map_ref: ConfigMapRef | None = None


class Table(_Part, frozen=True):
    """A table of Postgres."""

    name: str
    schema: str = "public"


class Columns(_Part, frozen=True):
    """`spec.source.columns`."""

    id: str
    vector: str
    model: str | None = None


class MetadataTombstone(_Part, frozen=True):
    """`spec.source.tombstone.metadata`."""

    table: Table
    id: str
    deleted: str
    model: str | None = None
    missing: str = "Dead"


class Tombstone(_Part, frozen=True):
    """`spec.source.tombstone`."""

    column: str | None = None
    metadata: MetadataTombstone | None = None


class Source(_Part, frozen=True):
    """`spec.source`."""

    postgres: Postgres
    table: Table
    columns: Columns
    model: str | None = None
    tombstone: Tombstone | None = None

    @property
    def text(self) -> str:
        """The source in one line, as replicas name it."""
        postgres = self.postgres
        return f"{postgres.host}:{postgres.port}/{postgres.database} {self.table.schema}.{self.table.name}"


class Hnsw(_Part, frozen=True):
    """`spec.index.hnsw`."""

    m: int = 32
    ef_construction: int = 80
    ef_search: int = 64


class Index(_Part, frozen=True):
    """`spec.index`."""

    dimension: int
    metric: str = "Cosine"
    type: str = "HNSW"
    hnsw: Hnsw | None = None


class Consistency(_Part, frozen=True):
    """`spec.consistency`."""

    period_seconds: int = 30
    content_sweep_seconds: int = 86400
    max_staleness_seconds: int = 300
    when_unverified: str = "Serve"


class Storage(_Part, frozen=True):
    """`spec.storage`."""

    size: str
    storage_class_name: str | None = None


class Network(_Part, frozen=True):
    """`spec.network`; peers are NetworkPolicyPeers, checked by the schema."""

    clients: list[Json] = []
    source: list[Json] = []
    source_port: int = 5432


class Pod(_Part, frozen=True):
    """`spec.pod`; the parts are those of a pod, checked by the schema."""

    resources: Json | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Json] = []
    topology_spread_constraints: list[Json] = []
    priority_class_name: str | None = None


class Spec(_Part, frozen=True):
    """`spec`."""

    source: Source
    index: Index
    replicas: int = 2
    suspend: bool = False
    consistency: Consistency = Consistency()
    storage: Storage | None = None
    network: Network | None = None
    pod: Pod = Pod()


# --- status ---


class Condition(_Part, frozen=True):
    """One entry of `status.conditions`."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int


class Drift(_Part, frozen=True):
    """Differing rows by kind; zeros are told as well."""

    _keep_defaults: ClassVar[bool] = True

    missing: int = 0
    ghost: int = 0
    changed: int = 0
    duplicate: int = 0

    @property
    def total(self) -> int:
        """All differing rows."""
        return self.missing + self.ghost + self.changed + self.duplicate


class Repair(_Part, frozen=True):
    """One entry of `status.lastRepairs`."""

    pod: str
    at: str
    action: str
    trigger: str
    result: str
    drift: Drift
    sample_ids: list[str] = []
    root_before: str | None = None
    root_after: str | None = None
    milliseconds: int = 0


class LastProven(_Part, frozen=True):
    """`status.lastProven`."""

    rows: int
    incarnation: str
    snapshot: str
    digest_spec: str
    identity_hash: str
    at: str


class Member(_Part, frozen=True):
    """One entry of `status.members`; all but the first three are absent while the pod gives no valid answer."""

    pod: str
    pod_uid: str
    state: str
    generation: int | None = None
    rows: int | None = None
    root_digest: str | None = None
    as_of: str | None = None
    incarnation: str | None = None
    snapshot: str | None = None
    digest_spec: str | None = None
    proven_at: str | None = None
    result: str | None = None
    reason: str | None = None
    message: str | None = None
    drift: Drift | None = None
    quarantine: dict[str, int] = {}


class Status(_Part, frozen=True):
    """`status`."""

    observed_generation: int
    conditions: list[Condition] = []
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = None
    source: str | None = None
    rows: int | None = None
    root_digest: str | None = None
    as_of: str | None = None
    drift: int | None = None
    validate_requested_at: str | None = None
    rebuild_requested_at: str | None = None
    last_proven: LastProven | None = None
    members: list[Member] = []
    last_repairs: list[Repair] = []

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of this type, if it is there."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


@dataclass(frozen=True)
class Event:
    """A line for `kubectl describe`; `identity` makes the same news the same object."""

    kind: str  # Normal or Warning
    reason: str
    message: str
    identity: str


NEVER_VISITED: Final = Status(observed_generation=-1)


@dataclass(frozen=True)
class VectorIndex:
    """One resource. `spec` is None, and `problem` says why, when what is stored can't be understood."""

    key: Key
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    validate_wish: str
    rebuild_wish: str
    spec: Spec | None
    problem: str
    status: Status


def parse_vector_index(body: Mapping[str, Any]) -> VectorIndex:
    """Return the typed resource. A wrong spec is told by `problem`: it is the user's to see, not an error of ours."""
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    try:
        spec, problem = parse_spec(body.get("spec")), ""
    except SpecError as error:
        spec, problem = None, str(error)
    return VectorIndex(
        key=Key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta["resourceVersion"],
        deleting="deletionTimestamp" in meta,
        validate_wish=annotations.get(VALIDATE_REQUESTED_AT, ""),
        rebuild_wish=annotations.get(REBUILD_REQUESTED_AT, ""),
        spec=spec,
        problem=problem,
        status=parse_status(body.get("status")),
    )


def parse_spec(document: object) -> Spec:
    """Return the typed spec; raise SpecError with the field when it does not fit."""
    try:
        return msgspec.convert(document, Spec)
    except msgspec.ValidationError as error:
        raise SpecError(f"spec: {error}") from error


def parse_status(document: object) -> Status:
    """Return the typed status, or that of a resource never visited when there is none that this version understands."""
    try:
        return msgspec.convert(document, Status)
    except msgspec.ValidationError:
        return NEVER_VISITED


def render(part: _Part) -> Json:
    """Return the part as JSON values, without its defaults; msgspec's `omit_defaults` compares by identity, and would keep 5432."""
    values = ((field, getattr(part, field.name)) for field in msgspec.structs.fields(part))
    return {field.encode_name: _render(value) for field, value in values if part._keep_defaults or value != _default(field)}


def _render(value: object) -> object:
    if isinstance(value, _Part):
        return render(value)
    if isinstance(value, list):
        return [_render(item) for item in value]
    return str(value) if isinstance(value, Enum) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def identity_document(index: VectorIndex, spec: Spec) -> str:
    """Return the identity file: what makes this index this index, as canonical JSON without defaults."""
    part = msgspec.structs.replace(spec.index, hnsw=None) if spec.index.hnsw == Hnsw() else spec.index
    return canonical(
        {
            "apiVersion": "vectorindex.dev/v1alpha1",
            "kind": "VectorIndex",
            "metadata": {"name": index.key.name, "namespace": index.key.namespace, "uid": index.uid},
            "spec": {"source": render(spec.source), "index": render(part)},
        }
    )


def canonical(document: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def short_hash(text: str) -> str:
    """Return the first 16 hex digits of the sha256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_time(text: str | None) -> datetime | None:
    """Return the moment that an RFC 3339 text with offset names, in UTC; None for any other text."""
    if not text:
        return None
    try:
        moment = msgspec.convert(text, datetime)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (msgspec.ValidationError, OverflowError):
        return None


def format_time(moment: datetime) -> str:
    """Return the moment as Kubernetes writes times: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
