"""What has to be learnt from a sample of rows before an index of some types can take rows, and how many rows that takes."""

from typing import Any, Final

import faiss
import numpy as np

from vectorindex_indexer.config import IndexSpec, IndexType, Metric, Quantization
from vectorindex_indexer.index.encoding import Floats

_faiss: Any = faiss  # its own type stubs lack most of what it exports

LIST_ROWS: Final = 39  # FAISS' own minimum for one centroid; an index of fewer rows is searched exactly in no more time
LIST_ROWS_WANTED: Final = 64  # more make clustering slower, and lists hardly better
TABLE_ROWS: Final = 256  # fewer show too little of the range of a number
TABLE_ROWS_WANTED: Final = 20_000


def rows_to_train(spec: IndexSpec) -> int:
    """Return how many rows it takes to build such an index; 0 where nothing has to be learnt."""
    lists = LIST_ROWS * spec.ivf.nlist if spec.type is IndexType.IVFFLAT else 0
    return max(lists, TABLE_ROWS if spec.quantization is Quantization.SQ8 else 0)


def rows_wanted(spec: IndexSpec) -> int:
    """Return how many rows are worth learning from."""
    lists = LIST_ROWS_WANTED * spec.ivf.nlist if spec.type is IndexType.IVFFLAT else 0
    return max(lists, TABLE_ROWS_WANTED if spec.quantization is Quantization.SQ8 else 0)


def cluster(codes: Floats, spec: IndexSpec) -> Floats:
    """Return the middles of `nlist` clusters of encoded rows, (nlist, d): the same ones each time for the same rows."""
    metric = _faiss.METRIC_L2 if spec.metric is Metric.L2 else _faiss.METRIC_INNER_PRODUCT
    clustering = _faiss.Clustering(spec.dimension, spec.ivf.nlist)
    clustering.spherical = spec.metric is not Metric.L2
    clustering.max_points_per_centroid = LIST_ROWS_WANTED
    clustering.niter = 10
    clustering.train(np.ascontiguousarray(codes, np.float32), _faiss.IndexFlat(spec.dimension, metric))
    centroids: Floats = _faiss.vector_to_array(clustering.centroids).reshape(spec.ivf.nlist, spec.dimension)
    return centroids
