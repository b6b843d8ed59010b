"""What is searched: immutable views over FAISS, how they are built, changed and asked. Knows nothing of Postgres, files or time.

A FAISS object is never changed once it is in a view, because adding while another thread searches crashes the process, and search
parameters go with each call. Every change makes a new view that shares what did not change with the old one.
"""

import math
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec, IndexType, Metric
from vectorindex_indexer.errors import SearchError

Floats: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Words: TypeAlias = NDArray[np.uint64]
Positions: TypeAlias = NDArray[np.int64]  # rows of a segment or delta; -1 stands for "none"

_faiss: Any = faiss  # its own type stubs lack most of what it exports

ADD_ROWS: Final = 50_000  # per call of FAISS' add; smaller chunks slow a graph down
NO_ID: Final = -1  # pads ids where an answer is short; the score beside it is NaN, as -1 may be an id of its own
MERGE_FLOOR_ROWS: Final = 256  # fewer rows than this in delta or dead are never worth a merge
MERGE_DELTA_SHARE: Final = 0.05
MERGE_DELTA_BYTES: Final = 32 * 2**20  # a flat scan of this much costs a search some milliseconds
MERGE_DEAD_SHARE: Final = 0.2

_FLAT_SLACK: Final = 8  # rows asked of a flat segment beyond k, so that ties at the edge are seldom cut
_GRAPH_SHARE: Final = 64  # walking a graph wider than 1/64 of its rows costs more than reading them all
_BLOCK_FLOATS: Final = 4 * 2**20  # working memory of one step, in numbers
_CACHE_BYTES: Final = 256 * 1024  # what a hashing step may touch to stay in a core's cache


# --- encoding ---


def encode(vectors: Floats, metric: Metric) -> Floats:
    """Return the codes of vectors: what FAISS stores and what scores are computed from.

    Under Cosine each row is divided by its norm, taken in float64 (FAISS and NumPy disagree in float32 on nearly every row). A zero
    row stays zero. `vectors` is (n, d), row i of the answer belongs to row i.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric is not Metric.COSINE:
        return vectors
    codes = np.empty_like(vectors)
    step = max(1, _BLOCK_FLOATS // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        wide = vectors[start : start + step].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        norms[norms == 0] = 1.0
        codes[start : start + step] = wide / norms[:, None]
    return codes


def code_digests(codes: Floats) -> Words:
    """Return 8 bytes for each encoded row: a sum over its 64-bit lanes, each mixed with a key of its place.

    Tells damage, not malice. A plain multiply-sum would not do: two changed signs cancel in it.
    """
    codes = np.ascontiguousarray(codes, dtype=np.float32)
    rows, dimension = codes.shape
    lanes = (dimension + 1) // 2
    keys = _lane_keys(lanes)
    digests = np.empty(rows, np.uint64)
    step = max(1, _CACHE_BYTES // (lanes * 8))
    for start in range(0, rows, step):
        block = codes[start : start + step]
        if dimension % 2:
            block = np.concatenate([block, np.zeros((len(block), 1), np.float32)], axis=1)
        mixed = _mix(block.view(np.uint64) + keys)
        digests[start : start + step] = mixed.sum(axis=1, dtype=np.uint64)
    return _mix(digests + np.uint64(dimension))


def _mix(words: Words) -> Words:
    """Spread each word's bits over all its bits (the finaliser of splitmix64), in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


@lru_cache(maxsize=8)
def _lane_keys(lanes: int) -> Words:
    keys = _mix((np.arange(1, lanes + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15))
    keys.setflags(write=False)
    return keys


# --- the parts of a view ---


@dataclass(frozen=True, eq=False)
class Segment:
    """A sealed FAISS index. Row p of it has the id `ids[p]` and is never answered when `dead[p]`.

    `order` sorts `ids`, `reach` is at least the norm of the longest code, `token` names this FAISS object and its ids for ever: two
    segments with one token have the same rows.
    """

    index: Any  # faiss.IndexFlat or faiss.IndexHNSWFlat
    ids: Ids
    dead: Flags
    order: Positions
    reach: float
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
    def codes(self) -> Floats:
        """The codes in FAISS' own memory, (rows, d), not copied. Don't keep it longer than the segment."""
        return stored_codes(self.index)

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        graph = 0
        if isinstance(self.index, _faiss.IndexHNSW):
            hnsw = self.index.hnsw
            graph = hnsw.neighbors.size() * 4 + hnsw.offsets.size() * 8 + hnsw.levels.size() * 4
        return int(graph + self.codes.nbytes + self.ids.nbytes + self.dead.nbytes + self.order.nbytes)

    def find(self, wanted: Ids) -> Positions:
        """Return every row, dead or live, whose id is one of `wanted` (sorted, distinct)."""
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


def make_segment(index: Any, ids: Ids, dead: Flags | None = None, token: str | None = None) -> Segment:
    """Return a segment around a FAISS index that nobody changes any more; ids and dead marks are taken over, not copied.

    Raises ValueError when the lengths don't fit: row p of FAISS would have another id than its own.
    """
    dead = np.zeros(ids.size, np.bool_) if dead is None else dead
    if not index.ntotal == ids.size == dead.size:
        raise ValueError(f"expected one id and one dead mark for each of {index.ntotal} rows, got {ids.size} and {dead.size}")
    order = np.argsort(ids, kind="stable")
    return Segment(index, ids, dead, order, _reach(stored_codes(index)), int(dead.sum()), token or secrets.token_hex(16))


def stored_codes(index: Any) -> Floats:
    """Return the codes inside a FAISS index, (ntotal, d), as a window into its memory."""
    storage = _faiss.downcast_index(index.storage) if isinstance(index, _faiss.IndexHNSW) else index
    size = storage.codes.size()
    if size != storage.ntotal * storage.d * 4:
        raise ValueError(f"expected {storage.ntotal} codes of dimension {storage.d} in FAISS, got {size} bytes")
    raw: NDArray[np.uint8] = _faiss.rev_swig_ptr(storage.codes.data(), size) if size else np.empty(0, np.uint8)
    return raw.view(np.float32).reshape(storage.ntotal, storage.d)


class _Rows:
    """Arrays with room to spare that several deltas look into. What has been written is never written again."""

    def __init__(self, dimension: int, capacity: int) -> None:
        self.codes: Floats = np.empty((capacity, dimension), np.float32)
        self.ids: Ids = np.empty(capacity, np.int64)
        self.used = 0
        self.lock = threading.Lock()

    def extend(self, seen: int, codes: Floats, ids: Ids) -> "_Rows":
        """Return rows that hold the first `seen` of these and then the new ones; these themselves when there is room.

        Only the newest delta may write behind its own end: one that was already continued gets arrays of its own.
        """
        total = seen + ids.size
        with self.lock:
            target = self
            if self.used != seen or total > self.ids.size:
                target = _Rows(self.codes.shape[1], max(64, total + total // 2))
                target.codes[:seen] = self.codes[:seen]
                target.ids[:seen] = self.ids[:seen]
            target.codes[seen:total] = codes
            target.ids[seen:total] = ids
            target.used = total
            return target


@dataclass(frozen=True, eq=False)
class Delta:
    """The rows that came after the segments were sealed; always searched exactly."""

    dead: Flags  # (n,)
    dead_rows: int
    reach: float  # at least the norm of the longest code
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

    def bury(self, wanted: Ids) -> "Delta":
        """Return the delta with every row of these ids dead; itself when that changes nothing."""
        hit = np.isin(self.ids, wanted) & ~self.dead
        count = int(hit.sum())
        return replace(self, dead=self.dead | hit, dead_rows=self.dead_rows + count) if count else self

    def append(self, ids: Ids, codes: Floats) -> "Delta":
        """Return the delta with these rows at its end; itself when there are none."""
        if ids.size == 0:
            return self
        dead = np.concatenate([self.dead, np.zeros(ids.size, np.bool_)])
        return Delta(dead, self.dead_rows, max(self.reach, _reach(codes)), self.shared.extend(self.rows, codes, ids))


def make_delta(dimension: int, ids: Ids, codes: Floats, dead: Flags) -> Delta:
    """Return a delta with these rows."""
    delta = Delta(np.empty(0, np.bool_), 0, 0.0, _Rows(dimension, 0)).append(ids, codes)
    return replace(delta, dead=dead, dead_rows=int(dead.sum()))


def _reach(codes: Floats) -> float:
    """Return a bound on the norms of these rows, a little above the longest one."""
    longest = 0.0
    step = max(1, _BLOCK_FLOATS // max(1, codes.shape[1]))
    for start in range(0, len(codes), step):
        block = codes[start : start + step]
        longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64).max())))
    return longest * 1.000001


# --- the view ---


@dataclass(frozen=True, eq=False)
class View:
    """Everything one search needs, at one state. Safe to use from any number of threads."""

    generation: int
    spec: IndexSpec
    segments: tuple[Segment, ...]
    delta: Delta

    @property
    def live_rows(self) -> int:
        """How many rows may be answered."""
        return sum(s.live_rows for s in self.segments) + self.delta.live_rows

    @property
    def dead_rows(self) -> int:
        """How many rows are kept but never answered."""
        return sum(s.dead_rows for s in self.segments) + self.delta.dead_rows

    @property
    def delta_rows(self) -> int:
        """How many rows the delta holds, dead ones too."""
        return self.delta.rows

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        return sum(s.bytes for s in self.segments) + self.delta.bytes

    def search(self, queries: Floats, k: int, ef_search: int | None = None) -> tuple[Ids, Floats]:
        """Return the k best live rows of each query: ids (q, k) and scores (q, k), best first, equal scores by id.

        `queries` is (q, d) and raw: encoding happens here. Where fewer than k rows are live, id -1 and score NaN fill up. A `Flat` view is
        exact. An HNSW view is approximate, but gives k rows whenever there are k. The caller limits `k`, `q` and `ef_search`.
        Raises SearchError for a wrong dimension, a number that is not finite, or, under Cosine, a query without direction.
        """
        codes = encode(self._check(queries), self.spec.metric)
        _limit_faiss_threads()
        with np.errstate(over="ignore", invalid="ignore"):  # a score beyond float32 is infinite, which ranks as it should
            found = [self._search_segment(segment, codes, k, ef_search) for segment in self.segments if segment.live_rows]
            if self.delta.live_rows:
                rows = _scan(self.delta, codes, min(k, self.delta.live_rows), self.spec.metric)
                found.append(_score(self.delta, rows, codes, self.spec.metric))
            return _merge(found, len(codes), k, self.spec.metric)

    def live_entries(self) -> tuple[Ids, Words]:
        """Return id and code digest of every row that may be answered, an id as often as it is there.

        Codes are read from FAISS' own memory, so damage to them is seen.
        """
        return self._entries(lambda part: np.flatnonzero(~part.dead))

    def entries_of(self, wanted: Ids) -> tuple[Ids, Words]:
        """Return the same of the rows of some ids only."""
        return self._entries(lambda part: np.flatnonzero(~part.dead & np.isin(part.ids, wanted)))

    def _entries(self, choose: "Callable[[Segment | Delta], NDArray[np.intp]]") -> tuple[Ids, Words]:
        parts: list[Segment | Delta] = [*self.segments, self.delta]
        chosen = [choose(part) for part in parts]
        ids = np.concatenate([part.ids[rows] for part, rows in zip(parts, chosen, strict=True)])
        return ids, np.concatenate([_digest_rows(part.codes, rows) for part, rows in zip(parts, chosen, strict=True)])

    def change(self, remove: Ids, add_ids: Ids, add_codes: Floats) -> "View":
        """Return a view in which every row of the ids in `remove` is dead, and after that the added rows are there.

        Unknown ids in `remove` are ignored. `add_codes` are encoded. A replaced row is removed and added in one call. Costs one copy of the
        dead marks it touches, and the new rows; nothing that grows with the rows of the index times their dimension.
        """
        add_codes = np.ascontiguousarray(add_codes, np.float32).reshape(-1, self.spec.dimension)
        if len(add_codes) != len(add_ids):
            raise ValueError(f"expected a code of dimension {self.spec.dimension} for each of {len(add_ids)} ids, got {len(add_codes)}")
        wanted = np.unique(np.asarray(remove, np.int64))
        segments, delta = self.segments, self.delta
        if wanted.size:
            segments = tuple(segment.bury(wanted) for segment in segments)
            delta = delta.bury(wanted)
        return replace(self, segments=segments, delta=delta.append(np.asarray(add_ids, np.int64), add_codes))

    def _search_segment(self, segment: Segment, codes: Floats, k: int, ef_search: int | None) -> tuple[Ids, Floats]:
        rows = _search_segment(segment, self.spec, codes, k, ef_search or self.spec.hnsw.ef_search)
        return _score(segment, rows, codes, self.spec.metric)

    def _check(self, queries: Floats) -> Floats:
        queries = np.ascontiguousarray(queries, np.float32)
        dimension = self.spec.dimension
        if queries.ndim != 2 or queries.shape[1] != dimension:
            got = queries.shape[1] if queries.ndim == 2 else f"{queries.ndim} axes"
            raise SearchError("vectors", f"expected dimension {dimension}, got {got}")
        _refuse_first(~np.isfinite(queries).all(axis=1), "has a number that is not finite")
        if self.spec.metric is Metric.COSINE:
            _refuse_first(~queries.any(axis=1), "is zero: it has no direction")
        return queries


def _refuse_first(bad: Any, why: str) -> None:
    if bad.any():
        raise SearchError("vectors", f"vector {int(bad.argmax())} {why}")


def empty_view(spec: IndexSpec, generation: int) -> View:
    """Return a view without rows; rows can be added to it."""
    return View(generation, spec, (), make_delta(spec.dimension, *_no_rows(spec.dimension), np.empty(0, np.bool_)))


def _no_rows(dimension: int) -> tuple[Ids, Floats]:
    return np.empty(0, np.int64), np.empty((0, dimension), np.float32)


def build_view(
    spec: IndexSpec,
    ids: Ids,
    codes: Floats,
    generation: int,
    threads: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> View:
    """Return a view with one sealed segment of these rows; row i of `codes` (encoded) belongs to `ids[i]`.

    `progress` is called with the rows done after each chunk; what it raises ends the build.
    """
    view = empty_view(spec, generation)
    if codes.shape != (ids.size, spec.dimension):
        raise ValueError(f"expected codes of shape {(ids.size, spec.dimension)}, got {codes.shape}")
    if ids.size == 0:
        return view
    _faiss.omp_set_num_threads(threads)
    try:
        index = _make_index(spec)
        for start in range(0, ids.size, ADD_ROWS):
            index.add(np.ascontiguousarray(codes[start : start + ADD_ROWS], np.float32))
            if progress:
                progress(int(index.ntotal))
    finally:
        _faiss.omp_set_num_threads(threads_from_cgroup())
    return replace(view, segments=(make_segment(index, np.array(ids, np.int64)),))


def _make_index(spec: IndexSpec) -> Any:
    metric = _faiss.METRIC_L2 if spec.metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    if spec.type is IndexType.FLAT:
        return _faiss.IndexFlat(spec.dimension, metric)
    index = _faiss.IndexHNSWFlat(spec.dimension, spec.hnsw.m, metric)
    index.hnsw.efConstruction = spec.hnsw.ef_construction
    return index


def needs_merge(view: View) -> str | None:
    """Return why the view should be built anew from its live rows, or None while it is in good shape."""
    sealed = sum(segment.rows for segment in view.segments)
    if view.delta_rows > MERGE_FLOOR_ROWS and view.delta_rows > MERGE_DELTA_SHARE * sealed:
        return "DeltaTooLarge"
    if view.delta.codes.nbytes > MERGE_DELTA_BYTES:
        return "DeltaTooLarge"
    if view.dead_rows > MERGE_FLOOR_ROWS and view.dead_rows > MERGE_DEAD_SHARE * (sealed + view.delta_rows):
        return "TooManyDeadRows"
    return None


# --- searching ---


def _search_segment(segment: Segment, spec: IndexSpec, queries: Floats, k: int, ef_search: int) -> Positions:
    """Return for each query the rows among which its k best live ones are, (q, any width), -1 where there is none.

    FAISS is asked without a selector: with one, recall near clustered deletions collapses silently. Dead hits are dropped, and queries
    that are left with too few are asked again with doubled width; past a limit every stored row is read instead.
    """
    want = min(k, segment.live_rows)
    if want == segment.live_rows:
        return np.broadcast_to(np.flatnonzero(~segment.dead), (len(queries), want))
    graph = spec.type is IndexType.HNSW
    width, effort = (k, max(k, ef_search)) if graph else (k + _FLAT_SLACK, 0)
    width = min(width, segment.rows)
    limit = max(width, segment.rows // (_GRAPH_SHARE if graph else 2), ef_search if graph else 0)
    pending = np.arange(len(queries))
    found: list[tuple[NDArray[np.intp], Positions]] = []
    while pending.size:
        if max(width, effort) > limit:
            rows = _scan(segment, queries[pending], want, spec.metric)
            found.append((pending, rows))
            break
        rows, enough = _ask_faiss(segment, spec, queries[pending], width=width, effort=effort, want=want)
        found.append((pending[enough], rows[enough]))
        pending = pending[~enough]
        width, effort = 2 * width, 2 * effort
    return _stack(found, len(queries))


def _ask_faiss(segment: Segment, spec: IndexSpec, queries: Floats, *, width: int, effort: int, want: int) -> tuple[Positions, Flags]:
    """Return the live rows among the `width` best that FAISS knows, and for which queries these are enough."""
    graph = spec.type is IndexType.HNSW
    parameters = _faiss.SearchParametersHNSW(efSearch=max(width, effort)) if graph else None
    distances, rows = segment.index.search(queries, width, params=parameters)
    live = (rows >= 0) & ~segment.dead[rows]
    enough = live.sum(axis=1) >= want
    if not graph and width < segment.rows:
        enough &= ~_cut_at_tie(distances, live, want, _error_bound(queries, segment.reach, spec.metric), spec.metric)
    return np.where(live, rows, -1), enough


def _cut_at_tie(distances: Floats, live: Flags, want: int, error: NDArray[np.float64], metric: Metric) -> Flags:
    """Tell for which queries a row that FAISS left out may be as good as the `want`-th live one, by its rounding."""
    costs = _costs(distances, metric)
    last_wanted = np.argmax(np.cumsum(live, axis=1) >= want, axis=1)
    gap = costs[:, -1] - np.take_along_axis(costs, last_wanted[:, None], axis=1)[:, 0]
    return ~(gap > 2 * error)


def _scan(part: Segment | Delta, queries: Floats, want: int, metric: Metric) -> Positions:
    """Return for each query every live row that may belong to its `want` best, by reading all rows; -1 fills up.

    Costs are taken in float32; all rows within the rounding error of the limit come back, so that exact scores can decide.
    """
    codes, dead = part.codes, part.dead
    squares = np.einsum("ij,ij->i", codes, codes) if metric is Metric.L2 else None
    errors = _error_bound(queries, part.reach, metric)
    found: list[tuple[NDArray[np.intp], Positions]] = []
    step = max(1, _BLOCK_FLOATS // len(codes))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        costs = -(block @ codes.T)
        if squares is not None:
            costs = np.einsum("ij,ij->i", block, block)[:, None] + 2 * costs + squares
        costs[:, dead] = np.inf
        limits = np.partition(costs, want - 1, axis=1)[:, want - 1] + 2 * errors[start : start + step]
        for offset, limit in enumerate(limits):
            rows = np.flatnonzero(~(costs[offset] > limit) & ~dead)
            found.append((np.array([start + offset]), rows[None, :]))
    return _stack(found, len(queries))


def _error_bound(queries: Floats, reach: float, metric: Metric) -> NDArray[np.float64]:
    """Return for each query how far a float32 distance may be from the true one, whichever way it was summed up."""
    norms = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
    scale = (norms + reach) ** 2 if metric is Metric.L2 else norms * reach
    bound: NDArray[np.float64] = scale * ((queries.shape[1] + 8) * 2.0**-23)
    return bound


def _score(part: Segment | Delta, rows: Positions, queries: Floats, metric: Metric) -> tuple[Ids, Floats]:
    """Return ids and scores of chosen rows, (q, w); id -1 and NaN where the row is -1.

    All scores of an answer come from here, in float64, so that equal vectors get equal scores wherever they are stored.
    """
    codes, width = part.codes, rows.shape[1]
    scores = np.empty(rows.shape, np.float32)
    step = max(1, _BLOCK_FLOATS // max(1, width * codes.shape[1]))
    for start in range(0, len(queries), step):
        chosen = codes[rows[start : start + step]].astype(np.float64)
        block = queries[start : start + step, None, :].astype(np.float64)
        terms = np.square(chosen - block) if metric is Metric.L2 else chosen * block
        scores[start : start + step] = terms.sum(axis=2)
    missing = rows < 0
    scores[missing] = np.nan
    return np.where(missing, NO_ID, part.ids[rows]), scores


def _merge(found: Sequence[tuple[Ids, Floats]], queries: int, k: int, metric: Metric) -> tuple[Ids, Floats]:
    """Return the k best of all parts for each query, best first, equal scores by id."""
    padding = (np.full((queries, k), NO_ID, np.int64), np.full((queries, k), np.nan, np.float32))
    ids = np.concatenate([part[0] for part in (*found, padding)], axis=1)
    scores = np.concatenate([part[1] for part in (*found, padding)], axis=1)
    best = np.lexsort((ids, _costs(scores, metric)), axis=1)[:, :k]  # NaN sorts last
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)


def _costs(scores: Floats, metric: Metric) -> Floats:
    return scores if metric is Metric.L2 else -scores


def _stack(found: Sequence[tuple[NDArray[np.intp], Positions]], queries: int) -> Positions:
    """Return rows found for some queries each as one array, in order of the queries."""
    stacked = np.full((queries, max((rows.shape[1] for _, rows in found), default=0)), -1, np.int64)
    for which, rows in found:
        stacked[which, : rows.shape[1]] = rows
    return stacked


def _digest_rows(codes: Floats, rows: Positions) -> Words:
    digests = np.empty(rows.size, np.uint64)
    step = max(1, _BLOCK_FLOATS // max(1, codes.shape[1]))
    for start in range(0, rows.size, step):
        digests[start : start + step] = code_digests(codes[rows[start : start + step]])
    return digests


# --- threads ---

_thread_state = threading.local()


def _limit_faiss_threads() -> None:
    """Give FAISS its thread count in the calling thread: OpenMP keeps it per thread, so setting it at start is not enough."""
    if not getattr(_thread_state, "limited", False):
        _faiss.omp_set_num_threads(threads_from_cgroup())
        _thread_state.limited = True


@lru_cache(maxsize=1)
def threads_from_cgroup() -> int:
    """Return how many threads this process may use at once: its CPU quota rounded up, but never more than the cores it may run on."""
    return count_threads(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), len(os.sched_getaffinity(0)))


def count_threads(mount: Path, membership: Path, cores: int) -> int:
    """Return the thread count for a cgroup file system (version 1 or 2), a process' membership file, and the cores it may run on."""
    quotas = [quota for folder in _cgroup_folders(mount, membership) if (quota := _read_quota(folder)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _cgroup_folders(mount: Path, membership: Path) -> list[Path]:
    """Return the folders that may limit the process: its own and those above; in a container its own is often the mount itself."""
    lines = [line.split(":", 2) for line in membership.read_text().splitlines()] if membership.exists() else []
    folders: list[Path] = []
    for controllers, own in [(line[1], line[2]) for line in lines if len(line) == 3]:
        if controllers and "cpu" not in controllers.split(","):
            continue
        bases = [mount / name for name in ("cpu", "cpu,cpuacct", controllers)] if controllers else [mount, mount / "unified"]
        parts = [part for part in own.split("/") if part not in ("", "..")]
        folders += [base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts), -1, -1)]
    return folders


def _read_quota(folder: Path) -> float | None:
    """Return the CPU quota set in one cgroup folder, in cores, or None when there is none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (folder / "cpu.cfs_quota_us").read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return int(quota) / int(period) if quota not in ("max", "-1") and int(period) > 0 else None
