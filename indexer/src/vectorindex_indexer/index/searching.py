"""Finds the nearest live rows of a view's parts: asks FAISS, leaves out the dead, ranks what is left by exact scores.

FAISS finds candidates; every score that is answered is computed here, in float64, from what is stored. So equal vectors get equal
scores wherever they lie, but for SQ8: a row's score comes from its float32 code while it is in the delta, from its bytes once sealed.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import Metric
from vectorindex_indexer.index.encoding import BLOCK_FLOATS, Flags, Floats, Positions
from vectorindex_indexer.index.parts import Delta, Segment
from vectorindex_indexer.index.stores import FlatStore, GraphStore, ListStore
from vectorindex_indexer.keys import Ids

NO_ID: Final = -1  # pads integer ids where an answer is short, others with b""; the score beside it is NaN, as both may be ids

_SLACK: Final = 8  # rows asked of FAISS beyond k, so that neither ties at the edge nor a few dead rows cost a second question
_GRAPH_SHARE: Final = 64  # walking a graph wider than 1/64 of its rows costs more than reading them all
_LIVE_SHARE: Final = 0.5  # of the rows that a search of an IVF index usually looks at, must be live


class Reach(NamedTuple):
    """How far an approximate search goes: `ef_search` for graphs, `nprobe` for lists."""

    ef_search: int
    nprobe: int


def search_parts(
    segments: Sequence[Segment], delta: Delta, queries: Floats, k: int, *, metric: Metric, reach: Reach | None
) -> tuple[Ids, Floats]:
    """Return ids (q, k) and scores (q, k) of the best live rows, best first, equal scores by id; padded with NO_ID and NaN.

    `queries` is (q, d) and encoded. Without `reach` every row is looked at, whatever the type of the segment.
    """
    found = []
    with np.errstate(over="ignore", invalid="ignore"):  # a score beyond float32 is infinite, which ranks as it should
        for segment in segments:
            if segment.live_rows:
                rows = _search_segment(segment, queries, k, metric, reach)
                found.append(_score(segment, rows, queries, metric))
        if delta.live_rows:
            rows = _scan(delta, queries, min(k, delta.live_rows), metric)
            found.append(_score(delta, rows, queries, metric))
        return _merge(found, delta.ids.dtype, len(queries), k, metric)


def _search_segment(segment: Segment, queries: Floats, k: int, metric: Metric, reach: Reach | None) -> Positions:
    """Return for each query the rows among which its k best live ones are, (q, any width), -1 where there is none."""
    want = min(k, segment.live_rows)
    if want == segment.live_rows:
        return np.broadcast_to(np.flatnonzero(~segment.dead), (len(queries), want))
    store = segment.store
    if segment.is_exact:
        return _search_exact(segment, queries, want, metric)
    if reach is None:
        return _look_at_all(segment, queries, want, metric)
    if isinstance(store, GraphStore):
        return _search_graph(segment, queries, want, metric, reach.ef_search)
    if isinstance(store, ListStore):
        return _search_lists(segment, queries, want, reach.nprobe)
    return _search_flat(segment, queries, want, metric)


def _search_exact(segment: Segment, queries: Floats, want: int, metric: Metric) -> Positions:
    """Ask FAISS once; where dead rows or ties leave a doubt about the k-th, read every row."""
    store = segment.store
    assert isinstance(store, FlatStore)  # noqa: S101 - exact segments are flat
    width = min(want + _SLACK, segment.rows)
    distances, rows = store.search(queries, width)
    live = (rows >= 0) & ~segment.dead[rows]
    enough = live.sum(axis=1) >= want
    if width < segment.rows:
        enough &= ~_cut_at_tie(distances, live, want, _error_bound(queries, segment.reach, metric), metric)
    return _settle(np.where(live, rows, -1), enough, lambda doubtful: _scan(segment, queries[doubtful], want, metric))


def _search_flat(segment: Segment, queries: Floats, want: int, metric: Metric) -> Positions:
    """Ask FAISS once; where dead rows leave too few, look at live ones only."""
    store = segment.store
    assert isinstance(store, FlatStore)  # noqa: S101 - the other types are searched in another way
    live, enough = _drop_dead(segment, store.search(queries, min(want + _SLACK, segment.rows))[1], want)
    return _settle(live, enough, lambda short: _look_at_all(segment, queries[short], want, metric))


def _search_graph(segment: Segment, queries: Floats, want: int, metric: Metric, effort: int) -> Positions:
    """Walk the graph without a selector: with one, recall near clustered deletions collapses silently.

    All that a walk comes by is taken, dead hits are dropped, and queries that are left with too few are asked again with doubled width;
    past a limit every row is read.
    """
    store = segment.store
    assert isinstance(store, GraphStore)  # noqa: S101 - the caller saw to that
    width = max(want, effort)
    limit = max(width, segment.rows // _GRAPH_SHARE)
    pending = np.arange(len(queries))
    found: list[tuple[NDArray[np.intp], Positions]] = []
    while pending.size and width <= limit:
        rows, enough = _drop_dead(segment, store.search_graph(queries[pending], min(width, segment.rows), width), want)
        found.append((pending[enough], rows[enough]))
        pending, width = pending[~enough], 2 * width
    if pending.size:
        found.append((pending, _look_at_all(segment, queries[pending], want, metric)))
    return _stack(found, len(queries))


def _search_lists(segment: Segment, queries: Floats, want: int, probes: int) -> Positions:
    """Read the nearest lists; where most of their rows are dead, twice as many, until as much that lives was looked at as should be."""
    store = segment.store
    assert isinstance(store, ListStore)  # noqa: S101 - the caller saw to that
    pending = np.arange(len(queries))
    goals = np.zeros(len(queries))
    found: list[tuple[NDArray[np.intp], Positions]] = []
    probes = min(probes, store.lists)
    first = True
    while pending.size:
        distances, lists = store.rank_lists(queries[pending], probes)
        if first:
            goals = np.maximum(want, _LIVE_SHARE * store.sizes[lists].sum(axis=1))
        good = (segment.live_in_lists[lists].sum(axis=1) >= goals[pending]) | (probes == store.lists)
        chosen = pending[good]
        rows = _read_lists(segment, queries[chosen], want, (distances[good], lists[good]), crowded=first)
        found.append((chosen, rows))
        pending, probes, first = pending[~good], min(2 * probes, store.lists), False
    return _stack(found, len(queries))


def _read_lists(segment: Segment, queries: Floats, want: int, ranked: tuple[Floats, Positions], *, crowded: bool) -> Positions:
    """Return the best live rows of some lists. Asking for each row whether it lives has its price, so `crowded` lists are read without."""
    store = segment.store
    assert isinstance(store, ListStore)  # noqa: S101 - the caller saw to that
    if not len(queries):
        return np.empty((0, want), np.int64)
    if not crowded:
        return store.search_lists(queries, want, ranked, segment.live)
    live, enough = _drop_dead(segment, store.search_lists(queries, min(want + _SLACK, segment.rows), ranked, None), want)
    distances, lists = ranked
    return _settle(live, enough, lambda short: store.search_lists(queries[short], want, (distances[short], lists[short]), segment.live))


def _look_at_all(segment: Segment, queries: Floats, want: int, metric: Metric) -> Positions:
    """Return for each query its `want` best live rows, of all there are."""
    if segment.is_readable:
        return _scan(segment, queries, want, metric)
    return segment.store.search_live(queries, min(want + _SLACK, segment.rows), segment.live)


def _drop_dead(segment: Segment, rows: Positions, want: int) -> tuple[Positions, Flags]:
    """Return the first live rows, some more than `want`, and for which queries there are `want`; rows come nearest first."""
    live = (rows >= 0) & ~segment.dead[rows]
    first = np.argsort(~live, axis=1, kind="stable")[:, : want + _SLACK]
    chosen = np.take_along_axis(np.where(live, rows, -1), first, axis=1)
    return chosen, live.sum(axis=1) >= want


def _settle(rows: Positions, enough: Flags, again: Callable[[NDArray[np.intp]], Positions]) -> Positions:
    """Return rows, those of the queries that did not find enough replaced by what `again` finds."""
    short = np.flatnonzero(~enough)
    if not short.size:
        return rows
    return _stack([(np.flatnonzero(enough), rows[enough]), (short, again(short))], len(rows))


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
    step = max(1, BLOCK_FLOATS // len(codes))
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
    """Return ids and scores of chosen rows, (q, w); a score of NaN where the row is -1."""
    width, dimension = rows.shape[1], queries.shape[1]
    scores = np.empty(rows.shape, np.float32)
    step = max(1, BLOCK_FLOATS // max(1, width * dimension))
    for start in range(0, len(queries), step):
        chosen = np.maximum(rows[start : start + step], 0)
        decoded = part.decode(chosen.reshape(-1)).reshape(*chosen.shape, dimension)
        block = queries[start : start + step, None, :].astype(np.float64)
        terms = np.square(decoded - block) if metric is Metric.L2 else decoded * block
        scores[start : start + step] = terms.sum(axis=2)
    scores[rows < 0] = np.nan
    return part.ids[rows], scores


def _merge(found: Sequence[tuple[Ids, Floats]], dtype: np.dtype[np.generic], queries: int, k: int, metric: Metric) -> tuple[Ids, Floats]:
    """Return the k best of all parts for each query, best first, equal scores by id."""
    padding = np.full((queries, k), NO_ID if dtype.kind == "i" else b"", dtype)
    ids = np.concatenate([*(part[0] for part in found), padding], axis=1)
    scores = np.concatenate([*(part[1] for part in found), np.full((queries, k), np.nan, np.float32)], axis=1)
    ids = np.where(np.isnan(scores), padding[:1, :1], ids)
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
