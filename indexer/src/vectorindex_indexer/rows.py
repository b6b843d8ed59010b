"""The values that pass between the source and those who reason about it. Pure: no database, no FAISS."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.names import QuarantineReason

# A row's quarantine code is 0 (none) or 1 + position of its reason here.
QUARANTINE: Final = tuple(QuarantineReason)


@dataclass(frozen=True)
class Range:
    """Ids from `low` (inclusive) to `high` (exclusive); None is open."""

    low: int | None
    high: int | None


@dataclass(frozen=True)
class AsOf:
    """The point of a source's history that a database snapshot shows."""

    snapshot: str  # pg_current_snapshot() as text
    incarnation: str  # which life of which server; other incarnations can't be ordered
    fingerprint: str  # of the relations and columns that are read
    at: datetime  # UTC, clock of the server
    in_recovery: bool


@dataclass(frozen=True)
class Survey:
    """Counts that tell an empty source from one that is not seen."""

    live: int
    matching: int  # rows of the model key, dead ones too; all rows where there is no model column
    total_any: bool  # the table has a row at all
    other_models: tuple[str, ...]  # at most five model keys that the table has; only filled when `matching` is 0
    suffix_match: str | None  # the wanted key without its `:suffix`, when the table has that one
    metadata_matching: int | None  # None without a metadata table
    metadata_any: bool


@dataclass(frozen=True)
class Stamps:
    """Count and sum of version stamps for each range."""

    counts: NDArray[np.int64]  # (b,)
    sums: NDArray[np.uint64]  # (b,) modulo 2^64


@dataclass(frozen=True)
class Heads:
    """Rows of one range without their vectors; row digests as Postgres computed them. An id may occur more than once."""

    ids: NDArray[np.int64]  # (n,) ascending
    stamps: NDArray[np.uint64]  # (n,)
    digests: NDArray[np.uint64]  # (n, 2)


@dataclass(frozen=True)
class Rows:
    """Rows with their vectors; row digests as computed here from the bytes received."""

    ids: NDArray[np.int64]  # (n,)
    stamps: NDArray[np.uint64]  # (n,)
    digests: NDArray[np.uint64]  # (n, 2)
    vectors: NDArray[np.float32]  # (n, d), zero for a row in quarantine
    quarantine: NDArray[np.uint8]  # (n,) 0, or 1 + position in QUARANTINE
