"""Builds the one segment of a new view from rows that come chunk by chunk."""

from dataclasses import replace
from typing import Final

import numpy as np

from vectorindex_indexer.config import IndexSpec, IndexType, Quantization
from vectorindex_indexer.index.codec import train_table
from vectorindex_indexer.index.encoding import Floats, Words, encode
from vectorindex_indexer.index.parts import make_segment
from vectorindex_indexer.index.stores import Store, Trained, exact_spec, make_store
from vectorindex_indexer.index.threads import faiss_threads
from vectorindex_indexer.index.training import cluster, rows_to_train, rows_wanted
from vectorindex_indexer.index.view import TOO_FEW_ROWS, View, empty_view
from vectorindex_indexer.keys import IdKind, Ids, join_ids

GRAPH_ROWS: Final = 50_000  # added to a graph at once; smaller portions slow it down
GRAPH_BYTES: Final = 64 * 2**20  # ... but no more than this waits for being added


class Builder:
    """Takes rows and gives a view with one sealed segment. Belongs to one thread at a time.

    Vectors are copied once, into FAISS' own memory, which is reserved for `capacity` rows and only moves when more come. Beside the
    final index it needs the chunk being added, and for a graph what waits to be added with others.
    """

    def __init__(self, spec: IndexSpec, id_kind: IdKind, capacity: int, threads: int, generation: int) -> None:
        self._view = empty_view(spec, generation, id_kind)
        self._capacity = capacity
        self._threads = threads
        self._trained = Trained()
        self._store: Store | None = None
        self._ids: list[Ids] = []
        self._waiting: Floats = np.empty((0, spec.dimension), np.float32)
        self._waiting_rows = 0

    @property
    def needs_training(self) -> int:
        """How many rows `train` wants to see before the first `add`; 0 where nothing is to be learnt, or too few rows are expected."""
        spec = self._view.spec
        return min(rows_wanted(spec), self._capacity) if self._capacity >= rows_to_train(spec) else 0

    def train(self, vectors: Floats) -> None:
        """Learn from a sample of the rows, (n, d), raw or encoded. With fewer than are needed nothing is learnt."""
        spec = self._view.spec
        if rows_to_train(spec) == 0 or len(vectors) < rows_to_train(spec):
            return
        codes = encode(vectors, spec.metric)
        with faiss_threads(self._threads):
            centroids = cluster(codes, spec) if spec.type is IndexType.IVFFLAT else None
        table = train_table(codes) if spec.quantization is Quantization.SQ8 else None
        self._trained = Trained(centroids, table)

    def add(self, ids: Ids, codes: Floats) -> Words:
        """Add encoded rows, (n, d), and return their code digests, made from what came and not from what FAISS holds afterwards.

        Raises ValueError for codes of another shape.
        """
        dimension = self._view.spec.dimension
        if codes.shape != (ids.size, dimension):
            raise ValueError(f"expected codes of shape {(ids.size, dimension)}, got {codes.shape}")
        if not ids.size:
            return np.empty(0, np.uint64)
        store = self._open()
        self._ids.append(ids)
        if store.spec.type is not IndexType.HNSW:
            with faiss_threads(self._threads):
                return store.add(codes)
        digests = store.codec.digest(store.codec.encode(codes))
        self._wait(codes)
        return digests

    def finish(self) -> View:
        """Return the view; the builder is not to be used any more. Without rows it is empty."""
        self._add_waiting()
        self._waiting = self._waiting[:0].copy()  # gives its memory back before the rest is made
        view = self._view
        untrained = rows_to_train(view.spec) > 0 and self._trained.is_empty
        view = replace(view, fallback=TOO_FEW_ROWS if untrained else "")
        if self._store is None:
            return view
        return replace(view, segments=(make_segment(self._store, join_ids(self._ids, view.id_kind)),))

    def _open(self) -> Store:
        if self._store is None:
            spec = self._view.spec
            untrained = rows_to_train(spec) > 0 and self._trained.is_empty
            self._store = make_store(exact_spec(spec) if untrained else spec, self._trained)
            self._store.reserve(self._capacity)
        return self._store

    def _wait(self, codes: Floats) -> None:
        """Gather rows until there are enough of them to be added to a graph together."""
        if not len(self._waiting):
            dimension = self._view.spec.dimension
            self._waiting = np.empty((min(GRAPH_ROWS, max(1, GRAPH_BYTES // (4 * dimension))), dimension), np.float32)
        taken = 0
        while taken < len(codes):
            part = codes[taken : taken + len(self._waiting) - self._waiting_rows]
            self._waiting[self._waiting_rows : self._waiting_rows + len(part)] = part
            self._waiting_rows += len(part)
            taken += len(part)
            if self._waiting_rows == len(self._waiting):
                self._add_waiting()

    def _add_waiting(self) -> None:
        if self._store is not None and self._waiting_rows:
            with faiss_threads(self._threads):
                self._store.add(self._waiting[: self._waiting_rows])
            self._waiting_rows = 0
