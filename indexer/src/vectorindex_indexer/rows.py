"""The values that pass between the source and those who reason about it. Pure: no database, no FAISS."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.digest import Digest
from vectorindex_indexer.keys import IdKind, Ids, join_ids, no_ids
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
    """What there is beside the live rows, by which a check that sees nothing is told from a table that has nothing."""

    live: int
    matching: int  # rows of the model key, dead or alive; counted only where none is alive, else `live`
    total_any: bool  # the table has a row
    other_models: tuple[str, ...]  # at most five, sorted; looked up only when nothing matches
    suffix_match: str | None  # a key that does match: ours without a `:suffix`
    metadata_matching: int | None  # 1 if a metadata row of the key belongs to a row of it, 0 if none does; None without metadata
    metadata_any: bool


@dataclass(frozen=True)
class Range:
    """Ids from `low`, inclusive, to `high`, exclusive; None is open. Values as `keys.value_at` gives them."""

    low: int | bytes | None
    high: int | bytes | None


@dataclass(frozen=True)
class Totals:
    """What each bucket holds, from one pass: `counts` (b,) int64; sums of version stamps modulo 2^64, (b,) uint64, or stored digests."""

    counts: NDArray[np.int64]
    stamps: NDArray[np.uint64] | None
    digests: list[Digest] | None


@dataclass(frozen=True)
class Heads:
    """Rows without their vectors, in the order of ids, then of digests. An id that occurs twice is there twice.

    `ids`: (n,). `stamps`: (n,) uint64, all 0 where the source has none. `digests`: (n, 2) uint64, made by Postgres.
    """

    ids: Ids
    stamps: NDArray[np.uint64]
    digests: NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """Rows with their vectors, in the order of ids, then of digests. An id that occurs twice is there twice, and quarantined.

    `ids`: (n,). `stamps`: (n,) uint64. `digests`: (n, 2) uint64, made here from the bytes received; zero where that was not asked for.
    `vectors`: (n, d) float32, C-contiguous, zero where quarantined. `quarantine`: (n,) uint8, codes of `QUARANTINE`.
    """

    ids: Ids
    stamps: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    vectors: NDArray[np.float32]
    quarantine: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, dimension: int, kind: IdKind = IdKind.INTEGER) -> Self:
        """Make no rows."""
        return cls.of_ids(no_ids(kind), dimension)

    @classmethod
    def of_ids(cls, ids: Ids, dimension: int) -> Self:
        """Make rows of which all but the ids is to be filled in."""
        count = len(ids)
        return cls(
            ids,
            np.zeros(count, np.uint64),
            np.zeros((count, 2), np.uint64),
            np.zeros((count, dimension), np.float32),
            np.zeros(count, np.uint8),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Self], dimension: int, kind: IdKind = IdKind.INTEGER) -> Self:
        """Put rows behind each other."""
        all_parts = [part for part in parts if len(part)] or [cls.empty(dimension, kind)]
        if len(all_parts) == 1:
            return all_parts[0]
        ids = join_ids([part.ids for part in all_parts], kind)
        names = ("stamps", "digests", "vectors", "quarantine")
        return cls(ids, *(np.concatenate([getattr(part, name) for part in all_parts]) for name in names))

    def take(self, which: slice | NDArray[np.int64]) -> "Rows":
        """Choose rows."""
        return Rows(self.ids[which], self.stamps[which], self.digests[which], self.vectors[which], self.quarantine[which])
