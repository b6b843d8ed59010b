"""Dead rows cost neither answers nor time: near a cluster that is gone but for a few rows, and far from it."""

import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.views import MAKES, Make, build_view, make_spec
from vectorindex_indexer.config import IndexType, Metric
from vectorindex_indexer.index import View, encode
from vectorindex_indexer.index.threads import faiss_threads

Array = NDArray[Any]

ROWS = 12_000
DIMENSION = 48
CLUSTERS = 40
LEFT = 12  # rows of the cluster that stay
K = 10
ALLOWED = 1.10  # p50 far from the dead rows, against the same index without them


class Data(NamedTuple):
    """Vectors around centres in a few dimensions, as embeddings are; queries near the first cluster, and far from it."""

    vectors: Array
    gone: Array
    near: Array
    far: Array


def make_data(metric: Metric) -> Data:
    rng = np.random.default_rng(6)
    centres, spread = rng.standard_normal((CLUSTERS, 10)), rng.standard_normal((10, DIMENSION))

    def draw(clusters: Array) -> Array:
        latent = centres[clusters] + 0.35 * rng.standard_normal((clusters.size, 10))
        vectors = latent @ spread + 0.05 * rng.standard_normal((clusters.size, DIMENSION))
        return (vectors / (1 if metric is Metric.COSINE else 4)).astype(np.float32)

    cluster = rng.integers(0, CLUSTERS, ROWS)
    cluster[: ROWS // 10] = 0  # a large one
    vectors = draw(cluster)
    return Data(vectors, np.flatnonzero(cluster == 0)[:-LEFT], draw(np.zeros(100, np.int64)), draw(rng.integers(1, CLUSTERS, 100)))


def measure_recall(view: View, queries: Array) -> float:
    """Return recall@10; raise where fewer than ten rows came back."""
    metric = view.spec.metric
    _, scores = view.search(queries, K)
    assert not np.isnan(scores).any()
    best = view.search_all(encode(queries, metric), K)[1][:, -1:]
    return float((scores <= best + 1e-4 if metric is Metric.L2 else scores >= best - 1e-4).mean())


@pytest.mark.parametrize("make", MAKES, ids=str)
@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
def test_recall_near_a_cluster_that_is_gone_stays_high(make: Make, metric: Metric) -> None:
    data = make_data(metric)
    ids = np.arange(ROWS)
    whole = build_view(make_spec(make, DIMENSION, metric, lists=64, probes=8), ids, data.vectors, threads=2)
    view = whole.change(data.gone, ids[:0], data.vectors[:0])
    found, _ = view.search(data.near, K)
    assert not np.isin(found, data.gone).any()
    assert measure_recall(view, data.near) >= 0.95
    assert measure_recall(view, data.far) >= measure_recall(whole, data.far) - 0.01


@pytest.mark.parametrize("make", [make for make in MAKES if make.type is not IndexType.FLAT], ids=str)
def test_k_rows_come_back_whenever_k_live(make: Make) -> None:
    data = make_data(Metric.COSINE)
    ids = np.arange(ROWS)
    view = build_view(make_spec(make, DIMENSION, lists=64, probes=1), ids, data.vectors, threads=2)
    for left in (ROWS // 20, 100, K + 1, K, K - 1):
        view = view.change(ids[: ROWS - left], ids[:0], data.vectors[:0])
        _, scores = view.search(data.near[:20], K)
        assert (~np.isnan(scores)).sum(axis=1).tolist() == [min(K, left)] * 20


def time_search(view: View, query: Array) -> float:
    started = time.perf_counter()
    view.search(query[None], K)
    return time.perf_counter() - started


@pytest.mark.parametrize("make", MAKES, ids=str)
@pytest.mark.parametrize("scattered", [False, True], ids=["a cluster", "everywhere"])
def test_searches_elsewhere_take_as_long_as_without_dead_rows(make: Make, scattered: bool) -> None:
    """Measured in turns, in one thread; the best of five counts for each query, so that a busy machine doesn't."""
    data = make_data(Metric.COSINE)
    ids = np.arange(ROWS)
    whole = build_view(make_spec(make, DIMENSION, lists=64, probes=8), ids, data.vectors)
    gone = ids[::50] if scattered else data.gone
    view = whole.change(gone, ids[:0], data.vectors[:0])
    whole.search(data.far[:1], K)
    with faiss_threads(1):
        times = np.array([[[time_search(each, query) for each in (whole, view)] for _ in range(5)] for query in data.far])
    before, after = np.median(times.min(axis=1), axis=0)
    assert after <= ALLOWED * before
