"""The values that pass between the source and those who reason about it. Pure: no database, no FAISS."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.digest import Digest
from vectorindex_indexer.names import QuarantineReason

QUARANTINE: Final = tuple(QuarantineReason)
"""What the codes of `Rows.quarantine` mean: 0 is a fine row, code c stands for `QUARANTINE[c - 1]`."""


@dataclass(frozen=True)
class AsOf:
    """The point that everything read in one unit of work belongs to."""

    snapshot: str  # pg_current_snapshot(); on a standby `xmin:xmin:` of it
    incarnation: str  # system identifier/primary/timeline, or system identifier/standby/start of the server
    fingerprint: str  # of the catalogue; see `Layout`
    at: datetime  # UTC, the server's clock when the transaction began
    in_recovery: bool


@dataclass(frozen=True)
class Survey:
    """Counts by which a check that sees nothing is told from a table that has nothing."""

    live: int
    matching: int  # rows of the model key, dead or alive
    total_any: bool  # the table has a row
    other_models: tuple[str, ...]  # at most five, sorted; looked up only when nothing matches
    suffix_match: str | None  # a key that does match: ours without a `:suffix`
    metadata_matching: int | None  # metadata rows of the key that belong to a row of it, counted up to 1,000; None without metadata
    metadata_any: bool


@dataclass(frozen=True)
class Range:
    """Ids from `low`, inclusive, to `high`, exclusive, as `keys.value_at` gives them; None is open."""

    low: Any
    high: Any


@dataclass(frozen=True)
class Totals:
    """What each bucket holds, from one pass: `counts` (b,) int64; sums of version stamps modulo 2^64, (b,) uint64, or stored digests."""

    counts: NDArray[np.int64]
    stamps: NDArray[np.uint64] | None
    digests: list[Digest] | None


@dataclass(frozen=True)
class Heads:
    """Rows without their vectors, in the order of ids, then of digests. An id that occurs twice is there twice.

    `ids`: (n,) int64. `stamps`: (n,) uint64. `digests`: (n, 2) uint64, made by Postgres.
    """

    ids: NDArray[np.int64]
    stamps: NDArray[np.uint64]
    digests: NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """Rows with their vectors, in the order of ids, then of digests. An id that occurs twice is there twice, and quarantined.

    `ids`: (n,) int64. `stamps`: (n,) uint64. `digests`: (n, 2) uint64, made here from the bytes received.
    `vectors`: (n, d) float32, C-contiguous, zero where quarantined. `quarantine`: (n,) uint8, codes of `QUARANTINE`.
    """

    ids: NDArray[np.int64]
    stamps: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    quarantine: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def zeros(cls, count: int, dimension: int) -> Self:
        """Make rows to be filled in."""
        return cls(
            np.zeros(count, np.int64),
            np.zeros(count, np.uint64),
            np.zeros((count, 2), np.uint64),
            np.zeros((count, dimension), np.float32),
            np.zeros(count, np.uint8),
        )

    @classmethod
    def empty(cls, dimension: int) -> Self:
        """Make no rows."""
        return cls.zeros(0, dimension)

    @classmethod
    def concatenate(cls, parts: Iterable[Self], dimension: int, kind: object = None) -> Self:
        """Put rows behind each other."""
        all_parts = [part for part in parts if len(part)] or [cls.empty(dimension)]
        if len(all_parts) == 1:
            return all_parts[0]
        names = ("ids", "stamps", "digests", "vectors", "quarantine")
        return cls(*(np.concatenate([getattr(part, name) for part in all_parts]) for name in names))

    def put(self, where: NDArray[np.int64], rows: "Rows") -> None:
        """Overwrite the rows at these places."""
        self.ids[where], self.stamps[where], self.quarantine[where] = rows.ids, rows.stamps, rows.quarantine
        self.digests[where], self.vectors[where] = rows.digests, rows.vectors

    def take(self, which: slice | NDArray[np.int64]) -> "Rows":
        """Choose rows."""
        return Rows(self.ids[which], self.stamps[which], self.digests[which], self.vectors[which], self.quarantine[which])
