"""Decides when a delta becomes a segment, and makes it, in the background; `View.with_sealed` puts it in place. And when to build anew."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from vectorindex_indexer.config import IndexSpec
from vectorindex_indexer.index.parts import Delta, SealedPart, make_segment
from vectorindex_indexer.index.stores import Trained, exact_spec, make_store
from vectorindex_indexer.index.threads import faiss_threads
from vectorindex_indexer.index.training import rows_to_train
from vectorindex_indexer.index.view import View
from vectorindex_indexer.keys import IdKind

FLOOR_ROWS: Final = 256  # fewer rows than this in delta or dead are never worth a seal or a merge
DELTA_SHARE: Final = 0.05
DELTA_BYTES: Final = 32 * 2**20  # a flat scan of this much costs a search some milliseconds
DEAD_SHARE: Final = 0.2
SEGMENTS: Final = 8  # each costs a search of its own


@dataclass(frozen=True, eq=False)
class Seal:
    """A delta that is worth sealing, as it was when this was planned, and how to store its rows."""

    delta: Delta
    spec: IndexSpec
    trained: Trained
    id_kind: IdKind

    def build(self, threads: int) -> SealedPart:
        """Return the segment. Takes as long as adding its rows to an index; the view may be searched and changed meanwhile."""
        delta = self.delta
        kept = np.flatnonzero(~delta.dead)
        ids = delta.ids[kept]
        if not kept.size:
            return SealedPart(delta.origin, delta.rows, kept, None, ids, np.empty(0, np.uint64))
        store = make_store(self.spec, self.trained)
        store.reserve(kept.size)
        with faiss_threads(threads):
            digests = store.add(delta.codes[kept])
        return SealedPart(delta.origin, delta.rows, kept, make_segment(store, ids), ids, digests)


def plan_seal(view: View) -> Seal | None:
    """Return what is to be sealed, or None while the delta is small."""
    delta, sealed = view.delta, sum(segment.rows for segment in view.segments)
    if delta.rows <= FLOOR_ROWS or (delta.rows <= DELTA_SHARE * sealed and delta.codes.nbytes <= DELTA_BYTES):
        return None
    if rows_to_train(view.spec) == 0:
        return Seal(delta, view.spec, Trained(), view.id_kind)
    trained = next((segment.store for segment in view.segments if segment.store.spec.type is view.spec.type), None)
    if view.fallback or trained is None:
        return Seal(delta, exact_spec(view.spec), Trained(), view.id_kind)
    return Seal(delta, view.spec, trained.trained, view.id_kind)


def needs_merge(view: View) -> str | None:
    """Return why the view should be built anew from its live rows, or None while it is in good shape."""
    rows = sum(part.rows for part in view.parts)
    if view.dead_rows > FLOOR_ROWS and view.dead_rows > DEAD_SHARE * rows:
        return "TooManyDeadRows"
    if len(view.segments) > SEGMENTS:
        return "TooManySegments"
    if view.fallback and view.live_rows >= rows_to_train(view.spec):
        return "EnoughRowsToTrain"
    return None
