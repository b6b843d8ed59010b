"""What a replica believes about its source: one entry for each live row, in sealed buckets. Pure: arrays in, arrays out.

A bucket is a range of ids. Buckets are never changed in place: a cycle makes new ones and publishes a new ledger, so that
whoever holds the old one keeps a consistent picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.digest import EMPTY, Digest
from vectorindex_indexer.names import QuarantineReason
from vectorindex_indexer.rows import QUARANTINE, Range

T = TypeVar("T", bound=np.generic)
Ids = NDArray[np.int64]
Words = NDArray[np.uint64]  # (n,) or (n, 2)

BUCKET_ROWS: Final = 4096  # a bucket is made this large ...
SPLIT_ABOVE: Final = 8192  # ... and cut when it has grown beyond this
NEVER: Final = float("-inf")


class Seal(NamedTuple):
    """Sums over one bucket, modulo 2^64, taken when the bucket was published. A bucket that no longer fits was damaged since."""

    rows: int
    stamps: int
    high: int
    low: int
    codes: int


def add_up(words: Words) -> int:
    """Return the sum modulo 2^64."""
    return int(np.add.reduce(words, dtype=np.uint64)) if words.size else 0


@dataclass(frozen=True, eq=False)
class Bucket:
    """The rows of one range. Row i of each array belongs to `ids[i]`; ordered by id, then digest."""

    ids: Ids  # (n,)
    stamps: Words  # (n,) version stamps
    digests: Words  # (n, 2) row digests
    codes: Words  # (n,) code digests, 0 for a row in quarantine
    quarantine: NDArray[np.uint8]  # (n,) 0, or 1 + position in QUARANTINE

    @property
    def rows(self) -> int:
        """How many rows the source has here, quarantine included."""
        return int(self.ids.size)

    @property
    def digest(self) -> Digest:
        """The bucket digest."""
        return Digest(self.rows, add_up(self.digests[:, 0]), add_up(self.digests[:, 1]))

    def measure(self) -> Seal:
        """Take the sums anew, from the arrays as they are now."""
        codes = add_up(self.codes) + add_up(self.quarantine.astype(np.uint64))
        return Seal(self.rows, add_up(self.stamps), add_up(self.digests[:, 0]), add_up(self.digests[:, 1]), codes & (2**64 - 1))

    def part(self, chosen: slice) -> "Bucket":
        """Return a run of these rows as a bucket."""
        return Bucket(self.ids[chosen], self.stamps[chosen], self.digests[chosen], self.codes[chosen], self.quarantine[chosen])


def make_bucket(ids: Ids, stamps: Words, digests: Words, codes: Words, quarantine: NDArray[np.uint8]) -> Bucket:
    """Return a bucket with its rows in order."""
    order = np.lexsort((digests[:, 1], digests[:, 0], ids))
    return Bucket(ids[order], stamps[order], digests[order], codes[order], quarantine[order])


EMPTY_BUCKET: Final = Bucket(
    np.empty(0, np.int64), np.empty(0, np.uint64), np.empty((0, 2), np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8)
)


@dataclass(frozen=True, eq=False)
class Ledger:
    """All buckets, their seals, and when each was last compared by content (`compared`, seconds of the caller's clock)."""

    bounds: Ids  # (b - 1,) interior boundaries: bucket i holds bounds[i-1] <= id < bounds[i]
    buckets: tuple[Bucket, ...]
    seals: tuple[Seal, ...]
    compared: NDArray[np.float64]  # (b,)
    root: Digest = field(default=EMPTY)

    @property
    def rows(self) -> int:
        """Rows of the source that this ledger knows, quarantine included."""
        return self.root.count

    def range(self, position: int) -> Range:
        """Return the range of ids of one bucket; the first and the last are open."""
        low = int(self.bounds[position - 1]) if position > 0 else None
        high = int(self.bounds[position]) if position < self.bounds.size else None
        return Range(low, high)

    def find_broken(self) -> frozenset[int]:
        """Return the buckets that no longer fit their seal."""
        return frozenset(
            position for position, (bucket, seal) in enumerate(zip(self.buckets, self.seals, strict=True)) if bucket.measure() != seal
        )

    def entries(self) -> tuple[Ids, Words]:
        """Return ids and code digests of all rows that belong into the index, ordered by id."""
        if not self.buckets:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        ids = np.concatenate([bucket.ids for bucket in self.buckets])
        codes = np.concatenate([bucket.codes for bucket in self.buckets])
        indexed = np.concatenate([bucket.quarantine for bucket in self.buckets]) == 0
        return ids[indexed], codes[indexed]

    def count_quarantine(self) -> dict[QuarantineReason, int]:
        """Return the rows in quarantine by reason; only reasons that occur."""
        totals = np.zeros(len(QUARANTINE) + 1, np.int64)
        for bucket in self.buckets:
            totals += np.bincount(bucket.quarantine, minlength=totals.size)
        return {reason: int(totals[code]) for code, reason in enumerate(QUARANTINE, start=1) if totals[code]}

    def replace(self, changed: Mapping[int, Bucket], *, compared: Mapping[int, float]) -> "Ledger":
        """Return a ledger with other buckets at some positions, sealed anew; too large ones are cut.

        `compared` tells which buckets were compared by content, and when.
        """
        bounds: list[int] = []
        buckets: list[Bucket] = []
        seals: list[Seal] = []
        times: list[float] = []
        for position, (old, seal) in enumerate(zip(self.buckets, self.seals, strict=True)):
            if position > 0:
                bounds.append(int(self.bounds[position - 1]))
            time = compared.get(position, float(self.compared[position]))
            bucket = changed.get(position)
            parts = [old] if bucket is None else _cut(bucket)
            bounds.extend(int(part.ids[0]) for part in parts[1:])
            buckets.extend(parts)
            seals.extend([seal] if bucket is None else [part.measure() for part in parts])
            times.extend([time] * len(parts))
        return _assemble(np.array(bounds, np.int64), buckets, seals, times)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that a saved index holds."""
        return {
            "ids": np.concatenate([bucket.ids for bucket in self.buckets]),
            "stamps": np.concatenate([bucket.stamps for bucket in self.buckets]),
            "digests": np.concatenate([bucket.digests for bucket in self.buckets]),
            "codes": np.concatenate([bucket.codes for bucket in self.buckets]),
            "quarantine": np.concatenate([bucket.quarantine for bucket in self.buckets]),
            "bounds": self.bounds,
            "seals": np.array(self.seals, np.uint64).reshape(len(self.seals), len(Seal._fields)),
        }


def _assemble(bounds: Ids, buckets: list[Bucket], seals: list[Seal], compared: list[float]) -> Ledger:
    root = sum((bucket.digest for bucket in buckets), EMPTY)
    return Ledger(bounds, tuple(buckets), tuple(seals), np.array(compared, np.float64), root)


def _cut(bucket: Bucket) -> list[Bucket]:
    """Cut a bucket that has grown too large into parts of about BUCKET_ROWS, never between two rows of one id."""
    if bucket.rows <= SPLIT_ABOVE:
        return [bucket]
    return _cut_at(bucket, range(BUCKET_ROWS, bucket.rows - BUCKET_ROWS // 2, BUCKET_ROWS))


def _cut_at(bucket: Bucket, positions: range) -> list[Bucket]:
    # The first row of an id, so that all rows of one id lie in one bucket.
    starts = sorted({0, *(int(np.searchsorted(bucket.ids, bucket.ids[position])) for position in positions)})
    return [bucket.part(slice(start, end)) for start, end in zip(starts, [*starts[1:], bucket.rows], strict=True)]


def build_ledger(rows: Bucket) -> Ledger:
    """Return a ledger of these rows (in order, as `make_bucket` leaves them); nothing counts as compared yet."""
    parts = _cut_at(rows, range(BUCKET_ROWS, rows.rows - BUCKET_ROWS // 2, BUCKET_ROWS)) if rows.rows else [EMPTY_BUCKET]
    bounds = np.array([part.ids[0] for part in parts[1:]], np.int64)
    return _assemble(bounds, parts, [part.measure() for part in parts], [NEVER] * len(parts))


def parse_ledger(arrays: Mapping[str, NDArray[np.generic]]) -> Ledger:
    """Return the ledger of a saved index, with the seals as they were saved: whether they still fit is for the next cycle to see.

    Raises ValueError where the arrays don't fit each other, or aren't in order.
    """
    rows = Bucket(
        _take(arrays, "ids", np.int64, 1),
        _take(arrays, "stamps", np.uint64, 1),
        _take(arrays, "digests", np.uint64, 2),
        _take(arrays, "codes", np.uint64, 1),
        _take(arrays, "quarantine", np.uint8, 1),
    )
    bounds = _take(arrays, "bounds", np.int64, 1)
    seals = _take(arrays, "seals", np.uint64, 2)
    sizes = {rows.ids.shape[0], rows.stamps.shape[0], rows.digests.shape[0], rows.codes.shape[0], rows.quarantine.shape[0]}
    if len(sizes) != 1 or rows.digests.shape[1:] != (2,) or seals.shape != (bounds.size + 1, len(Seal._fields)):
        raise ValueError("the ledger's arrays don't fit each other")
    if np.any(np.diff(rows.ids) < 0) or np.any(np.diff(bounds) <= 0) or np.any(rows.quarantine > len(QUARANTINE)):
        raise ValueError("the ledger's arrays aren't in order")
    starts = [0, *np.searchsorted(rows.ids, bounds).tolist(), rows.rows]
    buckets = [rows.part(slice(start, end)) for start, end in pairwise(starts)]
    return _assemble(bounds, buckets, [Seal(*map(int, seal)) for seal in seals], [NEVER] * len(buckets))


def _take(arrays: Mapping[str, NDArray[np.generic]], name: str, dtype: type[T], dimensions: int) -> NDArray[T]:
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != dimensions:
        raise ValueError(f"the ledger's array {name} is not a {dimensions}-dimensional {dtype.__name__}")
    return array.astype(dtype, copy=False)
