"""Names that other programs rely on: ports, paths, wishes, reasons. The operator has its twin; a contract test compares them."""

from enum import StrEnum
from typing import Final

API_GROUP: Final = "vectorindex.dev"
API_VERSION: Final = "vectorindex.dev/v1alpha1"
KIND: Final = "VectorIndex"

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


class Result(StrEnum):
    """How a check ended. There is no fourth value, and `UNKNOWN` is never rounded to either side."""

    OK = "ok"
    DRIFT = "drift"
    UNKNOWN = "unknown"


class State(StrEnum):
    """What a replica is doing."""

    STARTING = "Starting"
    LOADING = "Loading"  # reads rows and builds an index
    PROVING = "Proving"  # has an index that was never proven in this process
    SERVING = "Serving"  # the last check was conclusive
    UNPROVEN = "Unproven"  # serves what was proven before; the last check was `unknown`
    REPAIRING = "Repairing"  # drift was found and is being repaired
    HELD = "Held"  # a change waits for approval
    STOPPING = "Stopping"


class DriftKind(StrEnum):
    """How one row of the replica differs from its source."""

    MISSING = "missing"  # live, but not in the replica
    GHOST = "ghost"  # in the replica, but not live
    CHANGED = "changed"  # in both, with other content
    DUPLICATE = "duplicate"  # more than once in the index


class SourceReason(StrEnum):
    """Why the source could or could not be read."""

    REACHABLE = "Reachable"
    NOT_TRIED = "NotTried"  # nothing was read yet
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    CREDENTIALS_MISSING = "CredentialsMissing"  # the credentials folder lacks `username` or `password`
    HOST_UNREACHABLE = "HostUnreachable"  # no such host name, refused, no route, or no answer in time
    TLS_FAILED = "TlsFailed"  # for another reason than the following
    TLS_NOT_OFFERED = "TlsNotOffered"
    TLS_UNTRUSTED = "TlsUntrusted"  # the server's certificate is not signed by the CA
    TLS_WRONG_HOST = "TlsWrongHost"  # it is for another host name
    TLS_EXPIRED = "TlsExpired"
    CLIENT_CERTIFICATE_REFUSED = "ClientCertificateRefused"  # or missing where one is asked for
    DATABASE_MISSING = "DatabaseMissing"
    TABLE_MISSING = "TableMissing"
    COLUMN_MISSING = "ColumnMissing"
    TYPE_UNSUPPORTED = "TypeUnsupported"  # a column, or the relation, is of a kind that can't be proven
    DIMENSION_MISMATCH = "DimensionMismatch"
    PERMISSION_DENIED = "PermissionDenied"
    ROW_SECURITY = "RowSecurity"  # policies would hide rows from us
    TOO_MANY_CONNECTIONS = "TooManyConnections"
    STATEMENT_CANCELLED = "StatementCancelled"  # by a time-out, an administrator or a recovery conflict
    CONNECTION_LOST = "ConnectionLost"
    SOURCE_ERROR = "SourceError"  # any other refusal of Postgres


class ProofReason(StrEnum):
    """Why the last check ended as it did. Beside these, a check that could not read ends with its `SourceReason`."""

    NOT_CHECKED = "NotChecked"
    PROVEN = "Proven"
    DRIFT_FOUND = "DriftFound"
    DRIFT_SUSPENDED = "DriftSuspended"  # found, not repaired: suspended
    PENDING_SUSPENDED = "PendingSuspended"  # upstream changes wait: suspended
    MODEL_KEY_NOT_FOUND = "ModelKeyNotFound"
    NO_LIVE_ROWS = "NoLiveRows"  # zero live rows where ledger or last proof say there should be some
    METADATA_NOT_FOUND = "MetadataNotFound"  # the metadata table matches no row, but has others
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
    REPAIR_FAILED = "RepairFailed"  # differences remained after the repair
    INTERNAL_ERROR = "InternalError"  # a defect of ours; the log has it


class QuarantineReason(StrEnum):
    """Why a live row is kept out of the index."""

    NULL_VECTOR = "NullVector"
    WRONG_DIMENSION = "WrongDimension"
    NOT_FINITE = "NotFinite"  # NaN or infinite
    ZERO_VECTOR = "ZeroVector"  # has no direction; only under Cosine
    ID_TOO_LONG = "IdTooLong"  # a text of more than 256 bytes
    DUPLICATE_ID = "DuplicateId"
