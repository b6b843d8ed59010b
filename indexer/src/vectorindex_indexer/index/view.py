"""What is searched: immutable views, how they are changed, asked and looked into. Knows nothing of Postgres, files or time.

A FAISS object is never changed once it is in a view, because adding while another thread searches crashes the process, and search
parameters go with each call. Every change makes a new view that shares what did not change with the old one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import IndexSpec, Metric
from vectorindex_indexer.errors import SearchError
from vectorindex_indexer.index.encoding import Floats, Words, code_digests, encode
from vectorindex_indexer.index.parts import Delta, SealedPart, Segment, make_delta
from vectorindex_indexer.index.searching import Reach, search_parts
from vectorindex_indexer.index.threads import limit_faiss_threads
from vectorindex_indexer.keys import IdKind, Ids, among, join_ids, no_ids
from vectorindex_indexer.rows import Range

TOO_FEW_ROWS: Final = "TooFewRowsToTrain"

_BURIED_IDS: Final = 256  # how many ids that died last a view remembers


@dataclass(frozen=True, eq=False)
class View:
    """Everything one search needs, at one state. Safe to use from any number of threads.

    `spec` is what was asked for. `fallback` tells why exact segments serve instead, "" when they don't. `buried` are ids that were
    removed or replaced lately, the last ones last.
    """

    generation: int
    spec: IndexSpec
    segments: tuple[Segment, ...]
    delta: Delta
    id_kind: IdKind = IdKind.INTEGER
    fallback: str = ""
    buried: Ids = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def parts(self) -> tuple[Segment | Delta, ...]:
        """Segments and delta."""
        return (*self.segments, self.delta)

    @property
    def live_rows(self) -> int:
        """How many rows may be answered."""
        return sum(part.live_rows for part in self.parts)

    @property
    def dead_rows(self) -> int:
        """How many rows are kept but never answered."""
        return sum(part.dead_rows for part in self.parts)

    @property
    def delta_rows(self) -> int:
        """How many rows the delta holds, dead ones too."""
        return self.delta.rows

    @property
    def bytes(self) -> int:
        """Memory taken, about."""
        return sum(part.bytes for part in self.parts)

    def search(self, queries: Floats, k: int, ef_search: int | None = None, nprobe: int | None = None) -> tuple[Ids, Floats]:
        """Return the k best live rows of each query: ids (q, k) and scores (q, k), best first, equal scores by id.

        `queries` is (q, d) and raw: encoding happens here. Where fewer than k rows are live, scores of NaN fill up, and ids of -1, or
        empty ones. `Flat` without quantization is exact, and its ties are complete. The others are approximate, but give k rows whenever
        there are k. The caller limits `k`, `q`, `ef_search` and `nprobe`.
        Raises SearchError for a wrong dimension, a number that is not finite, or, under Cosine, a query without direction.
        """
        codes = encode(self._check(queries), self.spec.metric)
        limit_faiss_threads()
        reach = Reach(ef_search or self.spec.hnsw.ef_search, nprobe or self.spec.ivf.nprobe)
        return search_parts(self.segments, self.delta, codes, k, metric=self.spec.metric, reach=reach)

    def search_all(self, codes: Floats, k: int) -> tuple[Ids, Floats]:
        """Return the same for encoded queries by looking at every live row: what an approximate search should find."""
        limit_faiss_threads()
        return search_parts(self.segments, self.delta, codes, k, metric=self.spec.metric, reach=None)

    def live_entries(self) -> tuple[Ids, Words]:
        """Return id and code digest of every row that may be answered, an id as often as it is there.

        Codes, and the rows in each list, are read from FAISS' own memory, so damage to them is seen: as another digest, a row that is
        there twice, or not at all.
        """
        return self._join([part.live_entries() for part in self.parts])

    def entries_of(self, wanted: Ids) -> tuple[Ids, Words]:
        """Return the same of the rows of some ids only; costs nothing for the other rows of segments."""
        wanted = np.unique(wanted)
        return self._join([part.entries_of(wanted) for part in self.parts])

    def entries_between(self, span: Range) -> tuple[Ids, Words]:
        """Return the same of the rows whose ids fall in a range, or did when the index was built; touches no other rows of segments."""
        return self._join([part.entries_between(span) for part in self.parts])

    def _join(self, entries: Sequence[tuple[Ids, Words]]) -> tuple[Ids, Words]:
        return join_ids([ids for ids, _ in entries], self.id_kind), np.concatenate([digests for _, digests in entries])

    def foretell(self, ids: Ids, codes: Floats) -> Words:
        """Return the code digests that these rows, encoded, must have in the parts that hold them; that of the delta where none does."""
        digests = code_digests(np.ascontiguousarray(codes, np.float32).reshape(-1, self.spec.dimension))
        for segment in self.segments:
            rows = segment.find(np.unique(ids)) if ids.size else np.empty(0, np.intp)
            held = among(ids, segment.ids[rows[~segment.dead[rows]]])
            if held.any():
                digests[held] = segment.store.foretell(codes[held])
        return digests

    def recently_dead(self, count: int) -> Ids:
        """Return up to so many ids whose rows died last; after loading a saved index, any that have a dead row."""
        if self.buried.size >= count:
            return self.buried[self.buried.size - count :]
        dead = [part.ids[np.flatnonzero(part.dead)[-count:]] for part in self.parts]
        return np.unique(join_ids([*dead, self.buried], self.id_kind))[:count]

    def find_codes(self, wanted: Ids) -> NDArray[np.float64]:
        """Return the stored vectors, (n, d), of all rows of these ids, dead ones too."""
        wanted = np.unique(wanted)
        return np.concatenate([part.decode(part.find(wanted)) for part in self.parts])

    def change(self, remove: Ids, add_ids: Ids, add_codes: Floats) -> "View":
        """Return a view in which every row of the ids in `remove` is dead, and after that the added rows are there.

        Unknown ids in `remove` are ignored. `add_codes` are encoded. A replaced row is removed and added in one call. Costs one copy of the
        dead marks it touches, and the new rows; nothing that grows with the rows of the index times their dimension.
        """
        add_codes = np.ascontiguousarray(add_codes, np.float32).reshape(-1, self.spec.dimension)
        if len(add_codes) != len(add_ids):
            raise ValueError(f"expected a code of dimension {self.spec.dimension} for each of {len(add_ids)} ids, got {len(add_codes)}")
        wanted = np.unique(self._own(remove))
        segments, delta, buried = self.segments, self.delta, self.buried
        if wanted.size:
            segments = tuple(segment.bury(wanted) for segment in segments)
            delta = delta.bury(wanted)
            buried = join_ids([buried[~among(buried, wanted)], wanted[-_BURIED_IDS:]], self.id_kind)[-_BURIED_IDS:]
        return replace(self, segments=segments, delta=delta.append(self._own(add_ids), add_codes), buried=buried)

    def with_sealed(self, part: SealedPart) -> "View":
        """Return the view with the sealed rows in a segment instead of the delta.

        Rows that came since stay in the delta, and what died since is dead in the segment. Raises ValueError when the delta of this view
        does not continue the one that was sealed.
        """
        delta = self.delta
        continues = delta.origin == part.origin and delta.rows >= part.delta_rows
        if not continues or not np.array_equal(delta.ids[part.kept], part.ids):
            raise ValueError("the sealed rows are not those of this view's delta")
        since = slice(part.delta_rows, delta.rows)
        rest = make_delta(self.spec.dimension, self.id_kind, delta.ids[since], delta.codes[since], delta.dead[since])
        if part.segment is None:
            return replace(self, delta=rest)
        dead = delta.dead[part.kept]
        segment = replace(part.segment, dead=dead, dead_rows=int(dead.sum()))
        return replace(self, segments=(*self.segments, segment), delta=rest)

    def _own(self, ids: Ids) -> Ids:
        """Return ids as this view holds them; an empty array may be of any type."""
        if not ids.size:
            return no_ids(self.id_kind)
        kind = no_ids(self.id_kind).dtype.kind
        if ids.dtype.kind != kind:
            raise ValueError(f"expected ids of kind {self.id_kind}, got {ids.dtype}")
        return ids.astype(np.int64, copy=False) if kind == "i" else ids

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


def empty_view(spec: IndexSpec, generation: int, id_kind: IdKind = IdKind.INTEGER, fallback: str = "") -> View:
    """Return a view without rows; rows can be added to it."""
    return View(generation, spec, (), make_delta(spec.dimension, id_kind), id_kind, fallback, no_ids(id_kind))
