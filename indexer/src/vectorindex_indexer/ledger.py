"""What a replica believes about its source: one entry for each live row, in sealed buckets. Pure: arrays in, arrays out.

A bucket is a range of ids. Buckets are never changed in place: a cycle makes new ones and publishes a new ledger, so that
whoever holds the old one keeps a consistent picture.
"""

import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.digest import EMPTY, Digest
from vectorindex_indexer.keys import IdKind, Ids, among, join_ids, narrow_ids, no_ids, of_values, pack_ids, unpack_ids, value_at
from vectorindex_indexer.names import QuarantineReason
from vectorindex_indexer.rows import QUARANTINE, Range

T = TypeVar("T", bound=np.generic)
Words = NDArray[np.uint64]  # (n,) or (n, 2)

BUCKET_ROWS: Final = 4096  # a bucket is made this large ...
SPLIT_ABOVE: Final = 8192  # ... and cut when it has grown beyond this
NEVER: Final = float("-inf")


class Seal(NamedTuple):
    """Sums over one bucket, modulo 2^64, taken when the bucket was published. A bucket that no longer fits was damaged since."""

    rows: int
    ids: int
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
        codes = (add_up(self.codes) + add_up(self.quarantine.astype(np.uint64))) & (2**64 - 1)
        high, low = add_up(self.digests[:, 0]), add_up(self.digests[:, 1])
        return Seal(self.rows, sum_ids(self.ids), add_up(self.stamps), high, low, codes)

    @property
    def indexed(self) -> NDArray[np.bool_]:
        """Which rows belong into the index."""
        indexed: NDArray[np.bool_] = self.quarantine == 0
        return indexed

    def narrow(self, kind: IdKind) -> "Bucket":
        """Return the bucket with its ids in an array of their own width: one long text must not widen those of all buckets."""
        return replace(self, ids=narrow_ids(self.ids, kind))

    def recode(self, ids: Ids, codes: Words) -> "Bucket":
        """Return the bucket with other code digests for some rows that lie in the index; `ids` ascend and don't repeat."""
        known = np.flatnonzero(among(self.ids, ids) & self.indexed)
        renewed = self.codes.copy()
        renewed[known] = codes[np.searchsorted(ids, self.ids[known])]
        return replace(self, codes=renewed)

    @property
    def entries(self) -> tuple[Ids, Words]:
        """Ids and code digests of the rows that belong into the index."""
        return self.ids[self.indexed], self.codes[self.indexed]

    def part(self, chosen: slice) -> "Bucket":
        """Return a run of these rows as a bucket."""
        return Bucket(self.ids[chosen], self.stamps[chosen], self.digests[chosen], self.codes[chosen], self.quarantine[chosen])


def make_bucket(ids: Ids, stamps: Words, digests: Words, codes: Words, quarantine: NDArray[np.uint8]) -> Bucket:
    """Return a bucket with its rows in order."""
    order = np.lexsort((digests[:, 1], digests[:, 0], ids))
    return Bucket(ids[order], stamps[order], digests[order], codes[order], quarantine[order])


def sum_ids(ids: Ids) -> int:
    """Return a checksum of ids in their order that does not depend on how wide their array is."""
    return zlib.crc32(b"\0".join(ids.tolist()) if ids.dtype.kind == "S" else np.ascontiguousarray(ids).tobytes())


@dataclass(frozen=True, eq=False)
class Ledger:
    """All buckets, their seals, and when each was last compared by content (`compared`, seconds of the caller's clock).

    The stamps of a `void` bucket are from another incarnation of the source, and worth nothing until its content was compared.
    """

    kind: IdKind
    bounds: Ids  # (b - 1,) interior boundaries: bucket i holds bounds[i-1] <= id < bounds[i]
    buckets: tuple[Bucket, ...]
    seals: tuple[Seal, ...]
    compared: NDArray[np.float64]  # (b,)
    void: NDArray[np.bool_]  # (b,)
    root: Digest = field(default=EMPTY)

    @property
    def rows(self) -> int:
        """Rows of the source that this ledger knows, quarantine included."""
        return self.root.count

    def range(self, position: int) -> Range:
        """Return the range of ids of one bucket; the first and the last are open."""
        return self.span(position, position + 1)

    def span(self, start: int, end: int) -> Range:
        """Return the range of ids of the buckets from `start` to before `end`."""
        low = value_at(self.bounds, start - 1, self.kind) if start > 0 else None
        high = value_at(self.bounds, end - 1, self.kind) if end - 1 < self.bounds.size else None
        return Range(low, high)

    def position_of(self, value: int | bytes | None) -> int:
        """Return the bucket in whose range an id falls; None stands for the lowest."""
        if value is None:
            return 0
        return int(np.searchsorted(self.bounds, of_values([value], self.kind), side="right")[0])

    def make_void(self) -> "Ledger":
        """Return the ledger with all stamps worth nothing."""
        return replace(self, void=np.ones(len(self.buckets), np.bool_))

    def find_broken(self) -> frozenset[int]:
        """Return the buckets that no longer fit their seal."""
        return frozenset(
            position for position, (bucket, seal) in enumerate(zip(self.buckets, self.seals, strict=True)) if bucket.measure() != seal
        )

    def entries(self, start: int = 0, end: int | None = None) -> tuple[Ids, Words]:
        """Return ids and code digests of all rows that belong into the index, of some buckets or of all; ordered by id."""
        parts = [bucket.entries for bucket in self.buckets[start:end]]
        return join_ids([ids for ids, _ in parts], self.kind), np.concatenate([codes for _, codes in parts] or [np.empty(0, np.uint64)])

    def entries_of(self, wanted: Ids) -> tuple[Ids, Words]:
        """Return the same of the rows of some ids, ascending and each once."""
        parts = [
            (bucket.ids[rows], bucket.codes[rows])
            for position, ids in self.by_bucket(wanted)
            for bucket in (self.buckets[position],)
            for rows in (np.flatnonzero(np.isin(bucket.ids, ids) & bucket.indexed),)
        ]
        return join_ids([ids for ids, _ in parts], self.kind), np.concatenate([codes for _, codes in parts] or [np.empty(0, np.uint64)])

    def by_bucket(self, ids: Ids) -> list[tuple[int, Ids]]:
        """Tell which of some ids, ascending, fall in which bucket's range."""
        if not ids.size:
            return []
        borders = np.searchsorted(ids, self.bounds).tolist() if self.bounds.size else []
        spans = enumerate(pairwise([0, *borders, ids.size]))
        return [(position, ids[start:end]) for position, (start, end) in spans if end > start]

    def recode(self, ids: Ids, codes: Words) -> "Ledger":
        """Return the ledger with other code digests for some rows that lie in the index; ids it doesn't know are left out."""
        order = np.argsort(ids, kind="stable")
        ids, codes = ids[order], codes[order]
        changed = {
            position: self.buckets[position].recode(some, codes[np.searchsorted(ids, some)]) for position, some in self.by_bucket(ids)
        }
        return self.replace(changed, compared={})

    def count_quarantine(self) -> dict[QuarantineReason, int]:
        """Return the rows in quarantine by reason; only reasons that occur."""
        totals = np.zeros(len(QUARANTINE) + 1, np.int64)
        for bucket in self.buckets:
            totals += np.bincount(bucket.quarantine, minlength=totals.size)
        return {reason: int(totals[code]) for code, reason in enumerate(QUARANTINE, start=1) if totals[code]}

    def replace(self, changed: Mapping[int, Bucket], *, compared: Mapping[int, float], valid: Container[int] = ()) -> "Ledger":
        """Return a ledger with other buckets at some positions, sealed anew; too large ones are cut.

        `compared` tells which buckets were compared by content, and when. The buckets in `valid` are void no more.
        """
        bounds: list[int | bytes] = []
        places: list[_Place] = []
        for position, (old, seal) in enumerate(zip(self.buckets, self.seals, strict=True)):
            if position > 0:
                bounds.append(value_at(self.bounds, position - 1, self.kind))
            time = compared.get(position, float(self.compared[position]))
            void = bool(self.void[position]) and position not in valid
            bucket = changed.get(position)
            parts = [old] if bucket is None else _cut(bucket)
            bounds.extend(value_at(part.ids, 0, self.kind) for part in parts[1:])
            places.extend(_Place(part, seal if bucket is None else part.measure(), time, void) for part in parts)
        return _assemble(self.kind, of_values(bounds, self.kind), places)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a saved index holds."""
        return {
            **pack_ids(join_ids([bucket.ids for bucket in self.buckets], self.kind), self.kind, "ids"),
            "stamps": np.concatenate([bucket.stamps for bucket in self.buckets]),
            "digests": np.concatenate([bucket.digests for bucket in self.buckets]),
            "codes": np.concatenate([bucket.codes for bucket in self.buckets]),
            "quarantine": np.concatenate([bucket.quarantine for bucket in self.buckets]),
            **pack_ids(self.bounds, self.kind, "bounds"),
            "seals": np.array(self.seals, np.uint64).reshape(len(self.seals), len(Seal._fields)),
        }


class _Place(NamedTuple):
    """What a ledger knows of one bucket."""

    bucket: Bucket
    seal: Seal
    compared: float = NEVER
    void: bool = False


def _assemble(kind: IdKind, bounds: Ids, places: Sequence[_Place]) -> Ledger:
    buckets, seals, compared, void = zip(*places, strict=True)
    # The sums of the seals: an unchanged bucket isn't added up again.
    root = sum((Digest(seal.rows, seal.high, seal.low) for seal in seals), EMPTY)
    return Ledger(kind, bounds, buckets, seals, np.array(compared, np.float64), np.array(void, np.bool_), root)


def _cut(bucket: Bucket) -> list[Bucket]:
    """Cut a bucket that has grown too large into parts of about BUCKET_ROWS, never between two rows of one id."""
    if bucket.rows <= SPLIT_ABOVE:
        return [bucket]
    return _cut_at(bucket, range(BUCKET_ROWS, bucket.rows - BUCKET_ROWS // 2, BUCKET_ROWS))


def _cut_at(bucket: Bucket, positions: range) -> list[Bucket]:
    # The first row of an id, so that all rows of one id lie in one bucket.
    starts = sorted({0, *(int(np.searchsorted(bucket.ids, bucket.ids[position])) for position in positions)})
    return [bucket.part(slice(start, end)) for start, end in zip(starts, [*starts[1:], bucket.rows], strict=True)]


def empty_bucket(kind: IdKind) -> Bucket:
    """Return a bucket without rows."""
    return Bucket(no_ids(kind), np.empty(0, np.uint64), np.empty((0, 2), np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8))


def build_ledger(rows: Bucket, kind: IdKind = IdKind.INTEGER) -> Ledger:
    """Return a ledger of these rows (in order, as `make_bucket` leaves them); nothing counts as compared yet."""
    parts = _cut_at(rows, range(BUCKET_ROWS, rows.rows - BUCKET_ROWS // 2, BUCKET_ROWS)) if rows.rows else [empty_bucket(kind)]
    bounds = of_values([value_at(part.ids, 0, kind) for part in parts[1:]], kind)
    return _assemble(kind, bounds, [_Place(part.narrow(kind), part.measure()) for part in parts])


def parse_ledger(arrays: Mapping[str, NDArray[Any]], kind: IdKind = IdKind.INTEGER) -> Ledger:
    """Return the ledger of a saved index, with the seals as they were saved: whether they still fit is for the next cycle to see.

    Raises ValueError where the arrays don't fit each other, or aren't in order.
    """
    rows = Bucket(
        unpack_ids(arrays, kind, "ids"),
        _take(arrays, "stamps", np.uint64, 1),
        _take(arrays, "digests", np.uint64, 2),
        _take(arrays, "codes", np.uint64, 1),
        _take(arrays, "quarantine", np.uint8, 1),
    )
    bounds = unpack_ids(arrays, kind, "bounds")
    seals = _take(arrays, "seals", np.uint64, 2)
    sizes = {rows.ids.shape[0], rows.stamps.shape[0], rows.digests.shape[0], rows.codes.shape[0], rows.quarantine.shape[0]}
    if len(sizes) != 1 or rows.digests.shape[1:] != (2,) or seals.shape != (bounds.size + 1, len(Seal._fields)):
        raise ValueError("the ledger's arrays don't fit each other")
    if np.any(rows.ids[1:] < rows.ids[:-1]) or np.any(bounds[1:] <= bounds[:-1]) or np.any(rows.quarantine > len(QUARANTINE)):
        raise ValueError("the ledger's arrays aren't in order")
    starts = [0, *(np.searchsorted(rows.ids, bounds).tolist() if bounds.size else []), rows.rows]
    buckets = [rows.part(slice(start, end)).narrow(kind) for start, end in pairwise(starts)]
    return _assemble(kind, bounds, [_Place(bucket, Seal(*map(int, seal))) for bucket, seal in zip(buckets, seals, strict=True)])


def _take(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type[T], dimensions: int) -> NDArray[T]:
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != dimensions:
        raise ValueError(f"the ledger's array {name} is not a {dimensions}-dimensional {dtype.__name__}")
    return array.astype(dtype, copy=False)
