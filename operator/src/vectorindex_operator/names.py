"""Names that other programs rely on: ports, paths, labels, annotations, reasons. The indexer has its twin; a test compares them."""

from enum import StrEnum
from typing import Final, NamedTuple

API_GROUP: Final = "vectorindex.dev"
API_VERSION: Final = "vectorindex.dev/v1alpha1"
KIND: Final = "VectorIndex"
PLURAL: Final = "vectorindexes"

# Group, version and plural of the kinds of our objects, and of the pods that a StatefulSet makes of them.
CHILDREN: Final = {
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Pod": ("", "v1", "pods"),
}
API_VERSIONS: Final = {
    KIND: API_VERSION,
    **{kind: f"{group}/{version}" if group else version for kind, (group, version, _) in CHILDREN.items()},
}
WATCHED_KINDS: Final = (KIND, *CHILDREN)

SEARCH_PORT: Final = 8080
OPS_PORT: Final = 9090

IDENTITY_FILE: Final = "/etc/vectorindex/identity/vectorindex.yaml"
LIVE_FILE: Final = "/etc/vectorindex/live/live.json"
CREDENTIALS_FOLDER: Final = "/etc/vectorindex/credentials"
TLS_FOLDER: Final = "/etc/vectorindex/tls"
DATA_FOLDER: Final = "/var/lib/vectorindex"

VALIDATE_REQUESTED_AT: Final = "vectorindex.dev/validate-requested-at"
REBUILD_REQUESTED_AT: Final = "vectorindex.dev/rebuild-requested-at"
APPROVE_PLAN: Final = "vectorindex.dev/approve-plan"

LIVEZ_PATH: Final = "/livez"
READYZ_PATH: Final = "/readyz"
METRICS_PATH: Final = "/metrics"
STATUS_PATH: Final = "/v1/status"

# --- the operator's own ---

FIELD_MANAGER: Final = "vectorindex-operator"
STATUS_MANAGER: Final = "vectorindex-operator-status"
WEBHOOK_MANAGER: Final = "vectorindex-operator-webhook"
WEBHOOK_PORT: Final = 9091
WEBHOOK_PATH: Final = "/webhooks/alertmanager"
CONTAINER: Final = "indexer"

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "vectorindex-operator"
INDEX_LABEL: Final = "vectorindex.dev/index"  # on every child and pod: the name of its VectorIndex
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
INDEXER_COMPONENT: Final = "indexer"
OPERATOR_COMPONENT: Final = "operator"  # on its own pods, by the chart
IDENTITY_COMPONENT: Final = "identity"  # the immutable ConfigMaps, so that unused ones can be listed

MANIFEST_HASH_ANNOTATION: Final = "vectorindex.dev/manifest-hash"  # of what the operator built: tells "we changed our mind"
LIVE_HASH_ANNOTATION: Final = "vectorindex.dev/live-hash"  # on pods: a new value makes the kubelet sync mounted files at once
LAST_PROVEN_ANNOTATION: Final = "vectorindex.dev/last-proven"  # on the live ConfigMap: time and identity hash of the proof in it


class Key(NamedTuple):
    """Which VectorIndex."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def index_selector(name: str) -> str:
    """Return the label selector of one index's pods."""
    return f"{INDEX_LABEL}={name},{COMPONENT_LABEL}={INDEXER_COMPONENT}"


class Result(StrEnum):
    """How a check ended. There is no fourth value, and `UNKNOWN` is never rounded to either side."""

    OK = "ok"
    DRIFT = "drift"
    UNKNOWN = "unknown"


class State(StrEnum):
    """What a replica is doing."""

    STARTING = "Starting"
    LOADING = "Loading"
    PROVING = "Proving"
    SERVING = "Serving"
    UNPROVEN = "Unproven"
    REPAIRING = "Repairing"
    HELD = "Held"  # a change waits for approval
    STOPPING = "Stopping"


UNREACHABLE: Final = "Unreachable"  # the operator's word for a member without a valid answer


class DriftKind(StrEnum):
    """How one row of the replica differs from its source."""

    MISSING = "missing"
    GHOST = "ghost"
    CHANGED = "changed"
    DUPLICATE = "duplicate"


class SourceReason(StrEnum):
    """Why the source could or could not be read; reasons of `SourceAvailable`."""

    REACHABLE = "Reachable"
    NOT_TRIED = "NotTried"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    CREDENTIALS_MISSING = "CredentialsMissing"
    HOST_UNREACHABLE = "HostUnreachable"
    TLS_FAILED = "TlsFailed"
    TLS_NOT_OFFERED = "TlsNotOffered"
    TLS_UNTRUSTED = "TlsUntrusted"
    TLS_WRONG_HOST = "TlsWrongHost"
    TLS_EXPIRED = "TlsExpired"
    CLIENT_CERTIFICATE_REFUSED = "ClientCertificateRefused"
    DATABASE_MISSING = "DatabaseMissing"
    TABLE_MISSING = "TableMissing"
    COLUMN_MISSING = "ColumnMissing"
    TYPE_UNSUPPORTED = "TypeUnsupported"
    DIMENSION_MISMATCH = "DimensionMismatch"
    PERMISSION_DENIED = "PermissionDenied"
    ROW_SECURITY = "RowSecurity"
    TOO_MANY_CONNECTIONS = "TooManyConnections"
    STATEMENT_CANCELLED = "StatementCancelled"
    CONNECTION_LOST = "ConnectionLost"
    SOURCE_ERROR = "SourceError"


class ProofReason(StrEnum):
    """Why the last check ended as it did; reasons of `Consistent`."""

    NOT_CHECKED = "NotChecked"
    PROVEN = "Proven"
    DRIFT_FOUND = "DriftFound"
    DRIFT_SUSPENDED = "DriftSuspended"
    PENDING_SUSPENDED = "PendingSuspended"
    MODEL_KEY_NOT_FOUND = "ModelKeyNotFound"
    NO_LIVE_ROWS = "NoLiveRows"
    METADATA_NOT_FOUND = "MetadataNotFound"
    SUM_IS_NULL = "SumIsNull"
    DIGEST_SPEC_DIFFERS = "DigestSpecDiffers"
    POSITIVE_CONTROL_FAILED = "PositiveControlFailed"
    BUCKET_NOT_COMPARED = "BucketNotCompared"
    SNAPSHOT_WENT_BACK = "SnapshotWentBack"
    STORED_DIGESTS_DIFFER = "StoredDigestsDiffer"  # the digest columns say other than the bytes beside them
    CHANGE_HELD = "ChangeHeld"  # more rows than `healing.maxChangePercent` would change: waits for approval
    SOURCE_REGRESSED = "SourceRegressed"  # another or a restored server lacks rows that were proven: waits for approval
    REPAIR_HELD = "RepairHeld"  # drift was found, and `healing.mode` lets nobody repair it unasked
    MEMORY_TOO_SMALL = "MemoryTooSmall"  # a build would not fit beside what is served
    REBUILD_SLOT_BUSY = "RebuildSlotBusy"  # as many loads as allowed run on this database
    REPAIR_FAILED = "RepairFailed"
    INTERNAL_ERROR = "InternalError"


class QuarantineReason(StrEnum):
    """Why a live row is kept out of the index."""

    NULL_VECTOR = "NullVector"
    WRONG_DIMENSION = "WrongDimension"
    NOT_FINITE = "NotFinite"
    ZERO_VECTOR = "ZeroVector"
    ID_TOO_LONG = "IdTooLong"  # a text of more than 256 bytes
    DUPLICATE_ID = "DuplicateId"


class HealOutcome(StrEnum):
    """What became of an alert that the webhook was told of, or of a request that told of none."""

    ACCEPTED = "accepted"  # a check was asked for
    REPEATED = "repeated"  # it, or a younger one about the same index, was heard before
    COOLING = "cooling"  # the last wish for this index is too recent
    THROTTLED = "throttled"  # too many wishes over all indexes, or too many alerts in one payload
    UNTIMELY = "untimely"  # no time since when it fires, or one ahead of ours or too long ago
    UNMATCHED = "unmatched"  # names no index that there is and that is served
    RESOLVED = "resolved"  # fires no more
    IGNORED = "ignored"  # has not the label, or is none of those listened to
    FAILED = "failed"  # could not be stored: answered 503, to be repeated
    UNAUTHORIZED = "unauthorized"  # a request without the token
    MALFORMED = "malformed"  # a request that is no payload, too large or too slow


class ConditionType(StrEnum):
    """What a condition of a VectorIndex is about."""

    READY = "Ready"
    CONSISTENT = "Consistent"
    SOURCE_AVAILABLE = "SourceAvailable"
    RECONCILING = "Reconciling"  # only while true
    STALLED = "Stalled"  # only while true


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Reasons that the operator itself gives. With `SourceReason` and `ProofReason` this is the closed list of docs/conditions.md."""

    # Ready
    SERVING = "Serving"  # all replicas serve
    DEGRADED = "Degraded"  # enough replicas serve, but not all
    STARTING = "Starting"  # too few serve: the others start, load or prove
    NOT_PROVEN = "NotProven"  # too few serve: the others could not prove that they equal Postgres
    PODS_FAILING = "PodsFailing"  # too few serve: pods don't start or crash
    NO_PODS = "NoPods"  # no pod exists
    # Consistent
    REPAIRING = "Repairing"  # drift was found, its repair is going on
    SUSPENDED = "Suspended"  # upstream changes or drift wait, as `spec.suspend` is set
    PROOF_TOO_OLD = "ProofTooOld"  # the last proof is older than `maxStalenessSeconds`
    REPLICAS_DISAGREE = "ReplicasDisagree"  # equal as-of points, other digests
    MEMBERS_UNREACHABLE = "MembersUnreachable"  # a serving replica gave the operator no valid answer
    ROLLING_OUT = "RollingOut"  # replicas still have the previous source or index; also a reason of Reconciling
    NO_SERVING_REPLICA = "NoServingReplica"  # nothing is served, so nothing can be consistent
    # Reconciling
    WAITING_FOR_DELETION = "WaitingForDeletion"  # objects of an earlier index of the same name are going away
    # Stalled
    NAME_CONFLICT = "NameConflict"  # an object that is not ours has the name of one of our objects
    INVALID_SPEC = "InvalidSpec"  # stored before the schema forbade it
    REFUSED = "Refused"  # the API server refuses one of our objects
    # events only
    REPAIRED = "Repaired"  # a replica repaired itself and compared again
    PLAN_HELD = "PlanHeld"  # a change waits for approval
    PLAN_APPROVED = "PlanApproved"  # a held change was approved, and is carried out at the next check
    PLAN_APPLIED = "PlanApplied"  # a replica carried out a change that it had held
    PERIOD_UNATTAINABLE = "PeriodUnattainable"  # checks within `maxSourceDutyPercent` are rarer than `maxStalenessSeconds` needs
    VALIDATE_REQUESTED = "ValidateRequested"  # the webhook asked for a check, as an alert fires
    MALFORMED_WISH = "MalformedWish"  # an annotation holds no RFC 3339 time, or no ids of plans
