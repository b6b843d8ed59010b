"""What a replica believes, what a check of it has to do and may do, and what it found: values, and the ways in which a check can fail."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vectorindex_indexer.compare import Drift
from vectorindex_indexer.config import HealingMode, Metric
from vectorindex_indexer.digest import Digest
from vectorindex_indexer.errors import LoadRefusedError, NullSumError, SourceError
from vectorindex_indexer.guards import HeldPlan, Limits
from vectorindex_indexer.index import Floats, View, code_digests, encode
from vectorindex_indexer.ledger import Bucket, Ledger, Words, make_bucket
from vectorindex_indexer.names import ProofReason, Result, SourceReason
from vectorindex_indexer.pending import NOTHING, Pending
from vectorindex_indexer.rows import AsOf, Rows


@dataclass(frozen=True)
class Pace:
    """Seconds that Postgres needed for one bucket, to choose how many fit in one transaction."""

    look: float = 0.005  # count and version stamps
    content: float = 0.02  # every row hashed


@dataclass(frozen=True, eq=False)
class Belief:
    """Ledger and view that belong together, but for the pending list, and the point of the source's history that the view shows."""

    ledger: Ledger
    view: View
    as_of: AsOf  # of the view: that of its oldest bucket
    digest_spec: str
    root: Digest | None = None  # of the view, where one database snapshot covered all of it
    latest: AsOf | None = None  # the last snapshot that was read; None: `as_of`
    checks: int = 0  # conclusive checks so far; moves the positive control from bucket to bucket
    pending: Pending = NOTHING
    plan: HeldPlan | None = None
    cursor: int | bytes | None = None  # where an unfinished check goes on
    begun: AsOf | None = None  # the first snapshot of an unfinished check
    other_server: bool = False  # this check is the first of another incarnation
    pace: Pace = Pace()

    @property
    def last_read(self) -> AsOf:
        """The last snapshot of the source that anything here was read from."""
        return self.latest or self.as_of


@dataclass(frozen=True)
class Terms:
    """What a check has to do, and may do."""

    now: float  # seconds of a monotonic clock
    period: float  # seconds until the next check
    content_sweep: float  # seconds within which every bucket is compared by content
    whole: bool  # compare every bucket by content, and all of FAISS
    apply: bool  # False: observe only
    from_bytes: bool = False  # with `whole`: hash every row, even where digest columns would do
    last_proven_rows: int = 0
    deadline: float = 120.0  # seconds the source gets for one transaction
    snapshot_seconds: float = 5.0  # a check that needs less is done in one snapshot, ...
    group_seconds: float = 0.5  # ... a longer one in transactions of about this length
    uid: str = ""
    limits: Limits = field(default_factory=Limits)
    mode: HealingMode = HealingMode.AUTO
    approved: frozenset[str] = frozenset()  # ids of plans that may be carried out


@dataclass(frozen=True)
class Layers:
    """A result for each layer."""

    l0: Result
    l1: Result


UNKNOWN: Final = Layers(Result.UNKNOWN, Result.UNKNOWN)


@dataclass(frozen=True)
class Followed:
    """Rows of the view that followed a change upstream."""

    inserted: int = 0
    deleted: int = 0
    updated: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.inserted + self.deleted + self.updated


@dataclass(frozen=True, eq=False)
class Findings:
    """What one check found. `drift` is what was found at first; whether it is repaired is for `result` to say."""

    result: Result
    reason: ProofReason | SourceReason
    message: str
    found: Layers  # at first sight; the final result is `result`
    examined: bool = False  # FAISS, or a part of it, was compared with the ledger; else L1 says nothing new
    source_rows: int = 0
    drift: Drift = field(default_factory=Drift)
    followed: Followed = Followed()
    pending: int = 0  # upstream changes that were seen and not applied
    source_error: SourceError | None = None
    source_seconds: float = 0.0  # how long Postgres was kept busy
    carried_out: str = ""  # id of the approved plan that was carried out
    rebuild: bool = False  # so much of the index is wrong that it should be built anew


@dataclass(frozen=True, eq=False)
class Outcome:
    """Findings, and the belief that follows from them (the old one where nothing may be concluded)."""

    findings: Findings
    belief: Belief


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows as read, with what FAISS is to store of them: `codes` (n, d) float32 and their digests, both zero in quarantine."""

    rows: Rows
    codes: Floats
    digests: Words

    def to_bucket(self) -> Bucket:
        """Return them as the ledger holds them."""
        return make_bucket(self.rows.ids, self.rows.stamps, self.rows.digests, self.digests, self.rows.quarantine)


def encode_rows(rows: Rows, metric: Metric) -> Encoded:
    """Encode rows and digest the codes."""
    codes = encode(rows.vectors, metric)
    return Encoded(rows, codes, np.where(rows.quarantine == 0, code_digests(codes), np.uint64(0)))


class InconclusiveError(Exception):
    """The check, or a load, can't know. Becomes the result `unknown`. A `plan` may say what approval would make it believe."""

    def __init__(self, reason: ProofReason, message: str, plan: HeldPlan | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.plan = plan


class RepairFailedError(Exception):
    """After the repair, something still differs. Becomes the result `drift`."""

    def __init__(self, message: str, drift: Drift) -> None:
        super().__init__(message)
        self.drift = drift


class StoppedError(Exception):
    """The process is stopping: the check is cut short."""


def describe_unknown(error: InconclusiveError | LoadRefusedError | NullSumError | SourceError) -> Findings:
    """Return the findings of a check, or of a load, that could not see."""
    match error:
        case SourceError():
            return Findings(Result.UNKNOWN, error.reason, error.message, UNKNOWN, source_error=error)
        case InconclusiveError() | LoadRefusedError():
            return Findings(Result.UNKNOWN, error.reason, error.message, UNKNOWN)
        case NullSumError():
            return Findings(Result.UNKNOWN, ProofReason.SUM_IS_NULL, str(error), UNKNOWN)
