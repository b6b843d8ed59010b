"""The parts of a view: sealed segments over FAISS, and the delta of rows that came later. Immutable; a change makes a new one."""

import secrets
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexType, Metric, Quantization
from vectorindex_indexer.index.encoding import BLOCK_FLOATS, Flags, Floats, Positions, Words, code_digests
from vectorindex_indexer.index.stores import WALK_ROWS, FlatStore, ListStore, Store, live_selector
from vectorindex_indexer.keys import IdKind, Ids, among, no_ids
from vectorindex_indexer.rows import Range

Entries: TypeAlias = tuple[Ids, Words]

_UNIT_REACH: Final = 1.000001  # of codes under Cosine


@dataclass(frozen=True, eq=False)
class Segment:
    """A sealed store. Row p of it has the id `ids[p]` and is never answered when `dead[p]`.

    `order` sorts `ids`, `token` names this store and its ids for ever: two segments with one token have the same rows.
    """

    store: Store
    ids: Ids
    dead: Flags
    order: Positions
    dead_rows: int
    token: str

    @property
    def rows(self) -> int:
        """How many rows FAISS holds, dead ones too."""
        return int(self.ids.size)

    @property
    def live_rows(self) -> int:
        """How many rows may be answered."""
        return self.rows - self.dead_rows

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        return int(self.store.bytes + self.ids.nbytes + self.dead.nbytes + self.order.nbytes)

    @property
    def is_exact(self) -> bool:
        """Whether a search of it gives exactly the nearest rows, equal ones included."""
        return self.store.spec.type is IndexType.FLAT and self.store.spec.quantization is Quantization.NONE

    @property
    def is_readable(self) -> bool:
        """Whether its codes lie behind each other as float32, see `codes`."""
        return isinstance(self.store, FlatStore) and self.store.spec.quantization is Quantization.NONE

    @property
    def codes(self) -> Floats:
        """The codes of a flat segment or a graph without quantization, (rows, d), in FAISS' own memory. Don't keep it longer."""
        assert isinstance(self.store, FlatStore)  # noqa: S101 - callers know the type
        return self.store.stored.view(np.float32)

    @cached_property
    def reach(self) -> float:
        """At least the norm of the longest code of a segment whose codes can be read."""
        return _UNIT_REACH if self.store.spec.metric is Metric.COSINE else longest_norm(self.codes)

    @cached_property
    def live(self) -> Any:
        """What makes FAISS look at live rows only."""
        return live_selector(~self.dead)

    @cached_property
    def live_in_lists(self) -> Positions:
        """(lists,): live rows in each list of an IVF segment."""
        assert isinstance(self.store, ListStore)  # noqa: S101 - callers know the type
        if not self.dead_rows:
            return self.store.sizes
        lists = self.store.list_of(np.flatnonzero(self.dead))
        return self.store.sizes - np.bincount(lists[lists >= 0], minlength=self.store.lists)

    def decode(self, rows: Positions) -> NDArray[np.float64]:
        """Return the vectors of rows, (m, d), as scores are computed from them."""
        return self.store.decode(rows)

    def find(self, wanted: Ids) -> Positions:
        """Return every row, dead or live, whose id is one of `wanted` (sorted, distinct)."""
        wanted = fit_width(wanted, self.ids)
        first = np.searchsorted(self.ids, wanted, side="left", sorter=self.order)
        last = np.searchsorted(self.ids, wanted, side="right", sorter=self.order)
        counts = last - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: Positions = self.order[np.repeat(first, counts) + offsets]
        return rows

    def bury(self, wanted: Ids) -> "Segment":
        """Return the segment with every row of these ids dead; itself when that changes nothing."""
        rows = self.find(wanted)
        rows = rows[~self.dead[rows]]
        if rows.size == 0:
            return self
        dead = self.dead.copy()
        dead[rows] = True
        return replace(self, dead=dead, dead_rows=self.dead_rows + int(rows.size))

    def live_entries(self) -> Entries:
        """Return id and code digest of every row that may be answered, as often as FAISS holds it."""
        found = [(rows[alive], digests[alive]) for rows, digests in self.store.walk() for alive in [~self.dead[rows]]]
        if not found:
            return self.ids[:0], np.empty(0, np.uint64)
        return self.ids[np.concatenate([rows for rows, _ in found])], np.concatenate([digests for _, digests in found])

    def entries_of(self, wanted: Ids) -> Entries:
        """Return the same of the rows of some ids (sorted, distinct), without touching other rows."""
        return self._entries(self.find(wanted))

    def entries_between(self, span: Range) -> Entries:
        """Return the same of the rows that lie between others of a range in the order of ids, whatever their ids have become."""
        first = 0 if span.low is None else count_below(span.low, self.ids, self.order)
        last = self.rows if span.high is None else count_below(span.high, self.ids, self.order)
        return self._entries(self.order[first:last])

    def _entries(self, rows: Positions) -> Entries:
        rows, digests = self.store.digest(rows[~self.dead[rows]])
        return self.ids[rows], digests


def make_segment(store: Store, ids: Ids, dead: Flags | None = None, token: str | None = None) -> Segment:
    """Return a segment around a store that nobody changes any more; ids and dead marks are taken over, not copied.

    Raises ValueError when the lengths don't fit: row p of FAISS would have another id than its own.
    """
    dead = np.zeros(ids.size, np.bool_) if dead is None else dead
    if not store.rows == ids.size == dead.size:
        raise ValueError(f"expected one id and one dead mark for each of {store.rows} rows, got {ids.size} and {dead.size}")
    return Segment(store, ids, dead, np.argsort(ids, kind="stable"), int(dead.sum()), token or secrets.token_hex(16))


class _Rows:
    """Arrays with room to spare that several deltas look into. What has been written is never written again."""

    def __init__(self, dimension: int, dtype: np.dtype[Any], capacity: int) -> None:
        self.codes: Floats = np.empty((capacity, dimension), np.float32)
        self.ids: Ids = np.empty(capacity, dtype)
        self.used = 0
        self.lock = threading.Lock()

    def extend(self, seen: int, codes: Floats, ids: Ids) -> "_Rows":
        """Return rows that hold the first `seen` of these and then the new ones; these themselves when there is room.

        Only the newest delta may write behind its own end: one that was already continued gets arrays of its own. So does one whose
        texts are too narrow for the new ids.
        """
        total = seen + ids.size
        with self.lock:
            target = self
            if self.used != seen or total > self.ids.size or ids.dtype.itemsize > self.ids.dtype.itemsize:
                dtype = max(self.ids.dtype, ids.dtype, key=lambda each: each.itemsize)
                target = _Rows(self.codes.shape[1], dtype, max(64, total + total // 2))
                target.codes[:seen] = self.codes[:seen]
                target.ids[:seen] = self.ids[:seen]
            target.codes[seen:total] = codes
            target.ids[seen:total] = ids
            target.used = total
            return target


@dataclass(frozen=True, eq=False)
class Delta:
    """The rows that came after the segments were sealed; always searched exactly, whatever the type of the index.

    `origin` names the empty delta it grew from: of two deltas with one origin, one continues the other, or both continue a third.
    """

    dead: Flags  # (n,)
    dead_rows: int
    reach: float  # at least the norm of the longest code
    origin: str
    shared: _Rows = field(repr=False)

    @property
    def rows(self) -> int:
        """How many rows it holds, dead ones too."""
        return int(self.dead.size)

    @property
    def live_rows(self) -> int:
        """How many rows may be answered."""
        return self.rows - self.dead_rows

    @property
    def codes(self) -> Floats:
        """(n, d); row i belongs to `ids[i]`."""
        return self.shared.codes[: self.rows]

    @property
    def ids(self) -> Ids:
        """(n,) in the order they came."""
        return self.shared.ids[: self.rows]

    @property
    def bytes(self) -> int:
        """Memory taken, room to spare included."""
        return int(self.shared.codes.nbytes + self.shared.ids.nbytes + self.dead.nbytes)

    def decode(self, rows: Positions) -> NDArray[np.float64]:
        """Return the vectors of rows, (m, d), as scores are computed from them."""
        return self.codes[rows].astype(np.float64)

    def find(self, wanted: Ids) -> Positions:
        """Return every row, dead or live, whose id is one of `wanted`."""
        return np.flatnonzero(among(self.ids, wanted))

    def bury(self, wanted: Ids) -> "Delta":
        """Return the delta with every row of these ids dead; itself when that changes nothing."""
        hit = among(self.ids, wanted) & ~self.dead
        count = int(hit.sum())
        return replace(self, dead=self.dead | hit, dead_rows=self.dead_rows + count) if count else self

    def append(self, ids: Ids, codes: Floats) -> "Delta":
        """Return the delta with these rows at its end; itself when there are none."""
        if ids.size == 0:
            return self
        dead = np.concatenate([self.dead, np.zeros(ids.size, np.bool_)])
        reach = max(self.reach, longest_norm(codes))
        return replace(self, dead=dead, reach=reach, shared=self.shared.extend(self.rows, codes, ids))

    def live_entries(self) -> Entries:
        """Return id and code digest of every row that may be answered."""
        return self._entries(np.flatnonzero(~self.dead))

    def entries_of(self, wanted: Ids) -> Entries:
        """Return the same of the rows of some ids."""
        rows = self.find(wanted)
        return self._entries(rows[~self.dead[rows]])

    def entries_between(self, span: Range) -> Entries:
        """Return the same of the rows whose ids fall in a range."""
        inside = ~self.dead
        if span.low is not None:
            inside &= self.ids >= span.low
        if span.high is not None:
            inside &= self.ids < span.high
        return self._entries(np.flatnonzero(inside))

    def _entries(self, rows: Positions) -> Entries:
        digests = np.empty(rows.size, np.uint64)
        for start in range(0, rows.size, WALK_ROWS):
            digests[start : start + WALK_ROWS] = code_digests(self.codes[rows[start : start + WALK_ROWS]])
        return self.ids[rows], digests


@dataclass(frozen=True, eq=False)
class SealedPart:
    """The first `delta_rows` rows of a delta, as a segment.

    `kept` are the rows of the delta that became rows of the segment: those that lived when it was planned. `ids` and `digests` are theirs
    from now on; the digests differ from those in the delta where the segment stores rows in another way.
    """

    origin: str
    delta_rows: int
    kept: Positions
    segment: Segment | None  # None when none of them lived
    ids: Ids
    digests: Words


def make_delta(dimension: int, kind: IdKind, ids: Ids | None = None, codes: Floats | None = None, dead: Flags | None = None) -> Delta:
    """Return a delta, with these rows if they are given; it continues no other."""
    rows = _Rows(dimension, no_ids(kind).dtype, 0)
    delta = Delta(np.empty(0, np.bool_), 0, 0.0, secrets.token_hex(16), rows)
    if ids is None or codes is None:
        return delta
    delta = delta.append(ids, codes)
    return delta if dead is None else replace(delta, dead=dead, dead_rows=int(dead.sum()))


def fit_width(wanted: Ids, ids: Ids) -> Ids:
    """Return `wanted` in the type of `ids`, without texts too long to be among them: NumPy would widen all of `ids` instead."""
    if wanted.dtype == ids.dtype:
        return wanted
    if wanted.dtype.kind != ids.dtype.kind:  # empty arrays may be of any type
        if wanted.size and ids.size:
            raise ValueError(f"expected ids of type {ids.dtype}, got {wanted.dtype}")
        return ids[:0]
    if wanted.dtype.itemsize > ids.dtype.itemsize:
        wanted = wanted[np.char.str_len(wanted) <= ids.dtype.itemsize]
    return wanted.astype(ids.dtype)


def count_below(bound: int | bytes, ids: Ids, order: Positions) -> int:
    """Return how many ids are smaller than the bound; `order` sorts `ids`."""
    cut = isinstance(bound, bytes) and len(bound.rstrip(b"\0")) > ids.dtype.itemsize
    side: Literal["left", "right"] = "right" if cut else "left"  # cut short, the bound equals ids that are below it
    return int(np.searchsorted(ids, np.array(bound).astype(ids.dtype), side=side, sorter=order))


def longest_norm(codes: Floats) -> float:
    """Return a bound on the norms of these rows, a little above the longest one."""
    longest = 0.0
    step = max(1, BLOCK_FLOATS // max(1, codes.shape[1]))
    for start in range(0, len(codes), step):
        block = codes[start : start + step]
        longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64).max())))
    return longest * 1.000001
