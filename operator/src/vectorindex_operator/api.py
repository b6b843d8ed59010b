"""The VectorIndex resource as typed values: spec and status, parsed from and rendered to what the API server stores."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from vectorindex_operator.errors import SpecError
from vectorindex_operator.names import APPROVE_PLAN, REBUILD_REQUESTED_AT, VALIDATE_REQUESTED_AT, ConditionStatus, ConditionType, Key

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


class SecretKeyRef(_Part, frozen=True):
    """A key of a Secret in the index's namespace."""

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
    ca_secret_ref: SecretKeyRef | None = None
    client_certificate_secret_ref: SecretRef | None = None


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


class Digests(_Part, frozen=True):
    """`spec.source.digests`."""

    columns: list[str]


class Source(_Part, frozen=True):
    """`spec.source`."""

    postgres: Postgres
    table: Table
    columns: Columns
    model: str | None = None
    tombstone: Tombstone | None = None
    digests: Digests | None = None

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


class Ivf(_Part, frozen=True):
    """`spec.index.ivf`."""

    nlist: int = 1024
    nprobe: int = 16


class Index(_Part, frozen=True):
    """`spec.index`."""

    dimension: int
    metric: str = "Cosine"
    type: str = "HNSW"
    quantization: str = "None"
    hnsw: Hnsw | None = None
    ivf: Ivf | None = None


class Consistency(_Part, frozen=True):
    """`spec.consistency`."""

    period_seconds: int = 30
    content_sweep_seconds: int = 86400
    max_staleness_seconds: int = 300
    max_source_duty_percent: int = 10
    when_unverified: str = "Serve"


class Healing(_Part, frozen=True):
    """`spec.healing`."""

    mode: str = "Auto"
    max_change_percent: int = 20
    cooldown_seconds: int = 60
    concurrent_rebuilds: int = 1


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
    healing: Healing = Healing()
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


class DriftSamples(_Part, frozen=True):
    """`status.members[].driftSamples`."""

    missing: list[str] = []
    ghost: list[str] = []
    changed: list[str] = []
    duplicate: list[str] = []


class Progress(_Part, frozen=True):
    """`status.members[].progress`; no count is left out, as zero says something."""

    _keep_defaults: ClassVar[bool] = True

    generation: int
    rows_done: int = 0
    rows_expected: int = 0


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


class _Plan(_Part, frozen=True):
    """What a held plan would do; no count of rows is left out, as zero says something."""

    id: str
    reason: str
    action: str
    removes: int
    replaces: int
    adds: int


class MemberPlan(_Plan, frozen=True):
    """`status.members[].heldPlan`."""

    sample_ids: list[str] = []
    held_at: str | None = None


class HeldPlan(_Plan, frozen=True):
    """One entry of `status.heldPlans`: the same plan of several members is one."""

    replicas: int
    held_at: str | None = None
    approved: bool = False


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
    drift_samples: DriftSamples | None = None
    progress: Progress | None = None
    quarantine: dict[str, int] = {}
    fallback: str | None = None
    recall_per_million: int | None = None
    attainable_period_seconds: int | None = None
    oldest_compared_at: str | None = None
    held_plan: MemberPlan | None = None
    approved_plans: list[str] = []


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
    held_plans: list[HeldPlan] = []
    approved_plans: list[str] = []
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

MOST_PLANS: Final = 20
"""Ids of plans that one annotation may name; others are not read."""

_PLAN_ID: Final = re.compile(r"[0-9a-f]{16}")


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
    approve_wish: str
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
        approve_wish=annotations.get(APPROVE_PLAN, ""),
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
    part = spec.index
    if part.hnsw == Hnsw():
        part = msgspec.structs.replace(part, hnsw=None)
    if part.ivf == Ivf():
        part = msgspec.structs.replace(part, ivf=None)
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


def parse_plans(text: str) -> tuple[str, ...]:
    """Return the plan ids in a comma-separated list, each once, at most the first 20; what can't be an id is left out."""
    parts = dict.fromkeys(part.strip() for part in text.split(","))
    return tuple([part for part in parts if _PLAN_ID.fullmatch(part)][:MOST_PLANS])


def is_list_of_plans(text: str) -> bool:
    """Tell whether the whole text is a list of plan ids, and not too long."""
    parts = [part.strip() for part in text.split(",")]
    return len(parts) <= MOST_PLANS and all(_PLAN_ID.fullmatch(part) for part in parts)


def find_approved(index: VectorIndex, used: Collection[str]) -> tuple[str, ...]:
    """Return the plans that the resource approves and that are not used up."""
    return tuple(plan for plan in parse_plans(index.approve_wish) if plan not in used)


def format_time(moment: datetime) -> str:
    """Return the moment as Kubernetes writes times: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
