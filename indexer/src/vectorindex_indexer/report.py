"""The document of `GET /v1/status`: its types, and nothing else. The operator reads it; `tests/contract/status.json` pins it."""

from msgspec import Struct


class Identity(Struct, frozen=True, rename="camel"):
    """Who answers, and which files it has read."""

    name: str
    namespace: str
    uid: str
    pod_name: str
    pod_uid: str
    identity_hash: str
    live_hash: str
    validate_requested_at: str  # the newest wish that a finished check answered; "" for none
    rebuild_requested_at: str
    approved_plans: list[str]  # held plans that were carried out, newest first, at most 20


class View(Struct, frozen=True, rename="camel"):
    """What is searched."""

    generation: int
    rows: int
    delta: int  # rows in the flat delta
    dead: int  # rows in FAISS that are never answered
    segments: int
    bytes: int
    index_type: str
    fallback: str  # why an exact index serves instead of what was asked for; "" when it doesn't


class Source(Struct, frozen=True, rename="camel"):
    """What was last seen of Postgres. `message` is for people and never holds a secret or a server's own text."""

    reachable: bool
    reason: str
    message: str
    identity: str  # host:port/database schema.table


class Layers(Struct, frozen=True):
    """Result of each layer: L0 source-ledger of the last check, L1 ledger-FAISS and L2 answers when they were last looked at."""

    L0: str
    L1: str
    L2: str


class Proof(Struct, frozen=True, rename="camel"):
    """The last check. Times are RFC 3339 in UTC, "" for never."""

    result: str
    reason: str
    message: str
    root_digest: str  # of the view, as published; "" while no single snapshot covered all of it
    as_of: str
    snapshot: str
    incarnation: str
    fingerprint: str
    digest_spec: str
    checked_at: str
    conclusive_at: str  # last time a check ended `ok` or `drift`
    proven_at: str  # last time a check ended `ok`
    source_rows: int
    ledger_rows: int
    seconds: float
    layers: Layers
    oldest_compared_at: str  # when the bucket that was not compared by content for longest was; "" while one never was
    attainable_period_seconds: float  # time between two checks that keeps to the share of time on Postgres; 0 before the first
    recall: float | None  # of sampled answers, against exact search over the same codes


class Drift(Struct, frozen=True):
    """Rows that differ now; all zero once repaired and compared again."""

    missing: int = 0
    ghost: int = 0
    changed: int = 0
    duplicate: int = 0


class DriftSamples(Struct, frozen=True, rename="camel"):
    """Ids of rows that differ now, at most ten of each kind, the smallest first."""

    missing: list[str] = []
    ghost: list[str] = []
    changed: list[str] = []
    duplicate: list[str] = []


class Repair(Struct, frozen=True, rename="camel"):
    """One finished repair. `drift` is what was found, `sample_ids` at most ten of the rows."""

    at: str
    action: str  # patch or rebuild
    trigger: str  # check or load
    result: str  # repaired or failed
    drift: Drift
    sample_ids: list[str]
    root_before: str
    root_after: str
    seconds: float


class HeldPlan(Struct, frozen=True, rename="camel"):
    """A change that waits for approval. `removes`, `replaces` and `adds` count rows, `sample_ids` names at most ten of them."""

    id: str
    reason: str
    action: str  # patch, rebuild or replace
    incarnation: str
    removes: int
    replaces: int
    adds: int
    sample_ids: list[str]
    held_at: str


class Progress(Struct, frozen=True):
    """How far the build of an index is; all zero while none is built. The rows expected are unknown until Postgres has counted them."""

    done: int
    expected: int
    generation: int  # of the index that is being built


class Status(Struct, frozen=True, rename="camel"):
    """The whole document."""

    version: int
    identity: Identity
    state: str
    ready: bool
    proven: bool  # the view equals Postgres as of `proof.asOf`, shown by the last conclusive check
    suspended: bool
    view: View | None
    source: Source
    proof: Proof
    drift: Drift
    drift_samples: DriftSamples
    pending: int
    held_plan: HeldPlan | None
    repairs: list[Repair]  # newest first, at most ten
    progress: Progress
    quarantine: dict[str, int]
