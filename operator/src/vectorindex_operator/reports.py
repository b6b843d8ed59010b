"""What a replica says of itself on `GET /v1/status`, as bounded, pattern-checked types. Pure; asking is left to `members`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from vectorindex_operator.errors import ReportError
from vectorindex_operator.names import Result, State

Count = Annotated[int, Meta(ge=0, le=2**62)]
Name = Annotated[str, Meta(max_length=253, pattern=r"^[-a-zA-Z0-9._]*\Z")]
Hash = Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-f]*\Z")]
Time = Annotated[str, Meta(max_length=32, pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00))?\Z")]
Wish = Annotated[str, Meta(max_length=40, pattern=r"^[-0-9TtZz:.+ ]*\Z")]
Reason = Annotated[str, Meta(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*\Z")]
Word = Annotated[str, Meta(max_length=32, pattern=r"^[a-z]+\Z")]
PlanAction = Literal["patch", "rebuild", "replace"]
PlanId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
RowIds = Annotated[list[Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]], Meta(max_length=10)]
Digest = Annotated[str, Meta(max_length=64, pattern=r"^(\d+:[0-9a-f]{16}-[0-9a-f]{16})?\Z")]
Point = Annotated[str, Meta(max_length=128, pattern=r"^[-A-Za-z0-9_:/.+ ]*\Z")]
Snapshot = Annotated[str, Meta(pattern=r"^[0-9:,]*\Z")]
Text = Annotated[str, Meta(max_length=16384)]


class _Part(Struct, frozen=True, rename="camel"):
    """Base of the parts of an answer. Fields that the operator does not use are not named, and so ignored.

    What has a default was added later: replicas of an earlier image answer too while a new one is rolled out.
    """


class Identity(_Part, frozen=True):
    """Who answers, and which files it has read."""

    pod_uid: Name
    identity_hash: Hash
    live_hash: Hash
    validate_requested_at: Wish
    rebuild_requested_at: Wish
    approved_plans: Annotated[list[PlanId], Meta(max_length=20)] = []


class View(_Part, frozen=True):
    """What is searched."""

    generation: Count
    rows: Count
    fallback: Annotated[str, Meta(max_length=64, pattern=r"^([A-Z][A-Za-z0-9]*)?\Z")] = ""


class Source(_Part, frozen=True):
    """What was last seen of Postgres."""

    reachable: bool
    reason: Reason
    message: Text


class Proof(_Part, frozen=True):
    """The last check."""

    result: Result
    reason: Reason
    message: Text
    root_digest: Digest
    as_of: Time
    snapshot: Snapshot
    incarnation: Point
    digest_spec: Point
    proven_at: Time
    source_rows: Count
    oldest_compared_at: Time = ""
    attainable_period_seconds: Annotated[float, Meta(ge=0, le=2**40)] = 0.0
    recall: Annotated[float, Meta(ge=0, le=1)] | None = None


class Drift(_Part, frozen=True):
    """Rows that differ now."""

    missing: Count = 0
    ghost: Count = 0
    changed: Count = 0
    duplicate: Count = 0


class DriftSamples(_Part, frozen=True):
    """Some of the rows that differ now."""

    missing: RowIds = []
    ghost: RowIds = []
    changed: RowIds = []
    duplicate: RowIds = []


class Repair(_Part, frozen=True):
    """One finished repair."""

    at: Time
    action: Word
    trigger: Word
    result: Word
    drift: Drift
    sample_ids: RowIds
    root_before: Digest
    root_after: Digest
    seconds: Annotated[float, Meta(ge=0)]


class HeldPlan(_Part, frozen=True):
    """A change that waits for approval."""

    id: PlanId
    reason: Reason
    action: PlanAction
    removes: Count
    replaces: Count
    adds: Count
    sample_ids: RowIds
    held_at: Time


class Progress(_Part, frozen=True):
    """How far the build of an index is; without a generation, none is built."""

    done: Count
    expected: Count
    generation: Count = 0


class Report(_Part, frozen=True):
    """What a replica says of itself."""

    version: Annotated[int, Meta(ge=1, le=1)]
    identity: Identity
    state: State
    ready: bool
    proven: bool
    suspended: bool
    view: View | None
    source: Source
    proof: Proof
    drift: Drift
    pending: Count
    repairs: Annotated[list[Repair], Meta(max_length=10)]
    progress: Progress
    quarantine: Annotated[dict[Reason, Count], Meta(max_length=16)]
    held_plan: HeldPlan | None = None
    drift_samples: DriftSamples = DriftSamples()


def parse_report(body: bytes, pod_uid: str) -> Report:
    """Return the typed report; raise ReportError when it is not as agreed or another pod's."""
    try:
        report = msgspec.json.decode(body, type=Report)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ReportError("its status document is not as agreed") from error
    if report.identity.pod_uid != pod_uid:
        raise ReportError("another pod answered at its address")
    return report
