"""What Postgres to searchable index costs, against giving the same vectors to FAISS alone."""

from functools import partial
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.figures import Sample, make_ratio
from benchmarks.measure import Bench
from benchmarks.product import encode, threads_from_cgroup
from benchmarks.subjects import BUILD_HNSW, loaded_hnsw, plain
from vectorindex_indexer.config import IndexSpec, IndexType

_faiss: Any = faiss  # its own type stubs lack most of what it exports

NAME: Final = "build"
KINDS = ("Flat", "IVFFlat", "HNSW")
SLOW_ROWS = 500_000  # from here on a graph takes minutes, and is built once


def run(bench: Bench) -> None:
    """Measure, for each type, our loader and FAISS alone."""
    _, vectors = data.live_rows(bench.rows)
    for kind in KINDS:
        subject = plain(bench, kind)
        codes = encode(vectors, subject.spec.metric)
        alone, ours = f"faiss.add alone, {kind}", f"Postgres to index, {kind}"
        is_slow = kind != "Flat" and bench.rows >= SLOW_ROWS
        measured: dict[str, list[Sample]] = {alone: [], ours: []}
        for repetition in range(1 if is_slow else bench.repetitions):
            measured[alone].append(bench.measure(NAME, alone, partial(add_alone, subject.spec, codes), repetition))
            if ours == BUILD_HNSW and repetition == 0:  # what comes next needs this one, too
                measured[ours].append(loaded_hnsw(bench)[1])
            else:
                measured[ours].append(bench.measure(NAME, ours, subject.load, repetition))
        bench.ratios.append(make_ratio(f"{ours} / {alone}", measured[ours], measured[alone]))


def add_alone(spec: IndexSpec, codes: NDArray[np.float32]) -> None:
    """Build the index of these codes, by FAISS and nothing else."""
    _faiss.omp_set_num_threads(threads_from_cgroup())
    index = _make_index(spec)
    if not index.is_trained:
        index.train(codes)
    index.add(codes)


def _make_index(spec: IndexSpec) -> Any:
    if spec.type is IndexType.HNSW:
        graph = _faiss.IndexHNSWFlat(spec.dimension, spec.hnsw.m, _faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = spec.hnsw.ef_construction
        return graph
    if spec.type is IndexType.IVFFLAT:
        return _faiss.index_factory(spec.dimension, f"IVF{spec.ivf.nlist},Flat", _faiss.METRIC_INNER_PRODUCT)
    return _faiss.IndexFlatIP(spec.dimension)
