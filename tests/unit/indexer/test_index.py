"""Views: compared with brute force in NumPy, and with a plain dict of what should be in them."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.views import build_view
from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Metric
from vectorindex_indexer.errors import SearchError
from vectorindex_indexer.index import Builder, View, code_digests, empty_view, encode, needs_merge, plan_seal
from vectorindex_indexer.keys import IdKind

Array = NDArray[Any]
NOTHING = np.empty(0, np.int64), np.empty((0, 16), np.float32)
KINDS = [(metric, kind) for metric in Metric for kind in IndexType]


def make_spec(dimension: int = 16, metric: Metric = Metric.COSINE, kind: IndexType = IndexType.HNSW) -> IndexSpec:
    return IndexSpec(dimension, metric, kind, Hnsw(), ivf=Ivf(nlist=8, nprobe=6))


def make_rows(count: int, dimension: int = 16, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10 * count + 10)[:count].astype(np.int64) - 5
    return ids, rng.standard_normal((count, dimension)).astype(np.float32)


def make_view(spec: IndexSpec, ids: Array, vectors: Array) -> View:
    return build_view(spec, ids, vectors)


def brute_force(rows: dict[int, Array], query: Array, metric: Metric, k: int) -> tuple[list[int], Array]:
    """Rank in float64, straight from the raw vectors."""
    ids = np.array(list(rows), np.int64)
    vectors = np.array(list(rows.values()), np.float64)
    wide = query.astype(np.float64)
    if metric is Metric.L2:
        scores = ((vectors - wide) ** 2).sum(axis=1)
    elif metric is Metric.INNER_PRODUCT:
        scores = vectors @ wide
    else:
        scores = (vectors @ wide) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wide)
    order = np.lexsort((ids, scores if metric is Metric.L2 else -scores))[:k]
    return ids[order].tolist(), scores[order]


# --- encoding and code digests ---


def test_cosine_codes_have_length_one_by_float64() -> None:
    _, vectors = make_rows(100)
    vectors[0] *= 1e-30  # its squares vanish in float32
    codes = encode(vectors, Metric.COSINE).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-7)


def test_other_metrics_keep_vectors_as_they_are() -> None:
    _, vectors = make_rows(10)
    assert (encode(vectors, Metric.L2) == vectors).all()
    assert (encode(vectors, Metric.INNER_PRODUCT) == vectors).all()


@pytest.mark.parametrize("dimension", [1, 2, 3, 384])
def test_code_digest_does_not_depend_on_the_rows_around(dimension: int) -> None:
    _, vectors = make_rows(300, dimension)
    together = code_digests(vectors)
    assert together.tolist() == [int(code_digests(vectors[i : i + 1])[0]) for i in range(300)]
    assert len(set(together.tolist())) == 300


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_two_changed_bits_change_the_code_digest(data: st.DataObject) -> None:
    dimension = data.draw(st.integers(1, 12))
    code = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((1, dimension)).astype(np.float32)
    bits = data.draw(st.sets(st.integers(0, 32 * dimension - 1), min_size=1, max_size=2))
    damaged = code.copy()
    for bit in bits:
        damaged.view(np.uint32)[0, bit // 32] ^= np.uint32(1 << (bit % 32))
    assert code_digests(damaged)[0] != code_digests(code)[0]


def test_no_rows_have_no_code_digests() -> None:
    assert code_digests(np.empty((0, 7), np.float32)).size == 0


def test_swapped_numbers_change_the_code_digest() -> None:
    code = np.array([[1, 2, 3, 4]], np.float32)
    assert code_digests(code)[0] not in {code_digests(code[:, order])[0] for order in ([1, 0, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3])}


def test_code_digests_never_change_as_they_are_saved() -> None:
    assert code_digests(np.arange(6, dtype=np.float32).reshape(2, 3)).tolist() == [2044474876326832138, 4959060470133858151]


# --- searching ---


@pytest.mark.parametrize(("metric", "kind"), KINDS)
def test_search_equals_brute_force(metric: Metric, kind: IndexType) -> None:
    ids, vectors = make_rows(800)
    vectors[100:160] = vectors[100]  # equal vectors: ranked by id, also where k cuts them
    view = make_view(make_spec(16, metric, kind), ids[:700], vectors[:700])
    view = view.change(ids[::7], ids[700:], encode(vectors[700:], metric))
    rows = {int(i): v for i, v in zip(ids[:700], vectors[:700], strict=True)}
    for gone in ids[::7]:
        rows.pop(int(gone), None)
    rows |= {int(i): v for i, v in zip(ids[700:], vectors[700:], strict=True)}
    queries = make_rows(40, seed=1)[1]
    if kind is IndexType.FLAT:  # the others don't promise which of many equal rows they find
        queries = np.concatenate([vectors[98:103], queries])
    found, scores = view.search(queries, 10)
    hits = 0
    for i, query in enumerate(queries):
        expected, expected_scores = brute_force(rows, query, metric, 10)
        hits += len(set(expected) & set(found[i].tolist()))
        if kind is IndexType.FLAT:
            assert found[i].tolist() == expected
            np.testing.assert_allclose(scores[i], expected_scores, rtol=1e-5, atol=1e-5)
    assert hits >= {IndexType.FLAT: 10, IndexType.HNSW: 9.7, IndexType.IVFFLAT: 9}[kind] * len(queries)


@pytest.mark.parametrize("metric", list(Metric))
def test_large_flat_batches_are_as_exact_as_single_queries(metric: Metric) -> None:
    """FAISS takes another, less exact way for large batches."""
    ids, vectors = make_rows(600, 128)
    vectors += 100  # far from the origin: |x|^2 - 2xy + |y|^2 loses most digits
    view = make_view(make_spec(128, metric, IndexType.FLAT), ids, vectors)
    queries = vectors + np.float32(0.01)
    found, scores = view.search(np.concatenate([queries, queries]), 3)
    single = [view.search(query[None], 3) for query in queries[:50]]
    assert found[:50].tolist() == [row[0][0].tolist() for row in single]
    assert scores[:50].tolist() == [row[1][0].tolist() for row in single]


@pytest.mark.parametrize(("metric", "kind"), KINDS)
def test_short_answers_are_padded(metric: Metric, kind: IndexType) -> None:
    ids, vectors = make_rows(5)
    view = make_view(make_spec(16, metric, kind), ids, vectors).change(ids[:2], np.empty(0, np.int64), np.empty((0, 16), np.float32))
    found, scores = view.search(vectors[:2], 6)
    assert found.shape == scores.shape == (2, 6)
    assert (str(found.dtype), str(scores.dtype)) == ("int64", "float32")
    assert [sorted(row[:3]) for row in found.tolist()] == [sorted(ids[2:].tolist())] * 2
    assert (found[:, 3:] == -1).all()
    assert np.isnan(scores[:, 3:]).all()
    assert not np.isnan(scores[:, :3]).any()


def test_empty_view_answers_nothing() -> None:
    view = empty_view(make_spec(), 4)
    found, scores = view.search(np.ones((2, 16), np.float32), 3)
    assert (found == -1).all()
    assert np.isnan(scores).all()
    assert (view.live_rows, view.dead_rows, view.delta_rows, view.generation) == (0, 0, 0, 4)
    assert view.live_entries()[0].size == 0


@pytest.mark.parametrize("kind", list(IndexType))
def test_k_rows_come_back_though_almost_a_whole_cluster_is_dead(kind: IndexType) -> None:
    rng = np.random.default_rng(3)
    crowd = np.ones(16) + rng.standard_normal((3000, 16)) * 0.01
    others = rng.standard_normal((1000, 16))
    vectors = np.concatenate([crowd, others]).astype(np.float32)
    ids = np.arange(4000, dtype=np.int64)
    dead = ids[:2995]
    view = make_view(make_spec(kind=kind), ids, vectors).change(dead, np.empty(0, np.int64), np.empty((0, 16), np.float32))
    queries = (np.ones(16) + rng.standard_normal((20, 16)) * 0.01).astype(np.float32)
    found, scores = view.search(queries, 10)
    assert not np.isin(found, dead).any()
    assert not np.isnan(scores).any()
    rows = {int(i): vectors[i] for i in ids[2995:]}
    assert found.tolist() == [brute_force(rows, query, Metric.COSINE, 10)[0] for query in queries]


def test_wider_search_finds_at_least_as_much() -> None:
    ids, vectors = make_rows(4000, 32)
    spec = IndexSpec(32, Metric.COSINE, IndexType.HNSW, Hnsw(m=4, ef_construction=16, ef_search=8))
    view = make_view(spec, ids, vectors)
    queries = make_rows(50, 32, seed=5)[1]
    rows = {int(i): v for i, v in zip(ids, vectors, strict=True)}
    exact = [set(brute_force(rows, query, Metric.COSINE, 10)[0]) for query in queries]

    def recall(ef_search: int | None) -> float:
        found, _ = view.search(queries, 10, ef_search)
        return float(np.mean([len(want & set(row)) / 10 for want, row in zip(exact, found.tolist(), strict=True)]))

    narrow, wide = recall(None), recall(400)
    assert narrow + 0.1 < wide
    assert recall(None) == narrow  # the wide search left nothing behind in FAISS


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones((1, 15), np.float32), "expected dimension 16, got 15"),
        (np.ones(16, np.float32), "expected dimension 16, got 1 axes"),
        (np.array([[1.0] * 16, [np.nan] * 16], np.float32), "vector 1 has a number that is not finite"),
        (np.array([[np.inf] * 16], np.float32), "vector 0 has a number that is not finite"),
        (np.zeros((1, 16), np.float32), "vector 0 is zero"),
    ],
)
def test_bad_queries_are_refused(query: Array, message: str) -> None:
    ids, vectors = make_rows(5)
    with pytest.raises(SearchError, match=message):
        make_view(make_spec(), ids, vectors).search(query, 1)


def test_numbers_beyond_float32_do_not_hide_rows() -> None:
    vectors = np.full((20, 4), 3e38, np.float32)
    view = make_view(make_spec(4, Metric.INNER_PRODUCT, IndexType.FLAT), np.arange(20, dtype=np.int64), vectors)
    assert view.search(vectors[:1], 3)[0].tolist() == [[0, 1, 2]]


def test_dead_rows_stay_hidden_when_every_distance_is_infinite() -> None:
    vectors = np.full((20, 4), 3e38, np.float32)
    view = empty_view(make_spec(4, Metric.L2, IndexType.FLAT), 1).change(np.array([]), np.arange(20, dtype=np.int64), vectors)
    view = view.change(np.arange(15), np.array([]), vectors[:0])
    assert view.search(-vectors[:1], 3)[0].tolist() == [[15, 16, 17]]


# --- changing ---


def test_removal_ignores_unknown_ids_and_shares_what_it_left_alone() -> None:
    ids, vectors = make_rows(50)
    view = make_view(make_spec(), ids, vectors)
    same = view.change(np.array([10**9, -(10**9)]), np.empty(0, np.int64), np.empty((0, 16), np.float32))
    assert same.segments[0] is view.segments[0]
    assert same.delta is view.delta


def test_old_view_stays_as_it_was() -> None:
    ids, vectors = make_rows(300)
    view = make_view(make_spec(kind=IndexType.FLAT), ids[:200], vectors[:200]).change(
        ids[:0], ids[200:250], encode(vectors[200:250], Metric.COSINE)
    )
    before = view.search(vectors, 5)
    entries = view.live_entries()
    view.change(ids[150:240], ids[250:], encode(vectors[250:], Metric.COSINE)).change(
        ids[:100], ids[:100], encode(-vectors[:100], Metric.COSINE)
    )
    assert [part.tolist() for part in view.search(vectors, 5)] == [part.tolist() for part in before]
    assert [part.tolist() for part in view.live_entries()] == [part.tolist() for part in entries]


def test_two_views_continued_from_one_do_not_share_their_additions() -> None:
    spec = make_spec(kind=IndexType.FLAT)
    base = empty_view(spec, 1).change(np.array([]), np.array([1]), np.eye(16, dtype=np.float32)[:1])
    left = base.change(np.array([]), np.array([2]), np.eye(16, dtype=np.float32)[1:2])
    right = base.change(np.array([]), np.array([3]), np.eye(16, dtype=np.float32)[2:3])
    assert left.live_entries()[0].tolist() == [1, 2]
    assert right.live_entries()[0].tolist() == [1, 3]
    assert left.live_entries()[1].tolist() == code_digests(np.eye(16, dtype=np.float32)[:2]).tolist()


def test_change_refuses_codes_that_do_not_fit_their_ids() -> None:
    with pytest.raises(ValueError, match="for each of 2 ids, got 1"):
        empty_view(make_spec(), 1).change(np.array([]), np.array([1, 2]), np.ones((1, 16), np.float32))


operations = st.lists(
    st.tuples(
        st.lists(st.integers(-3, 25), max_size=6),
        st.lists(st.tuples(st.integers(-3, 25), st.integers(0, 40)), max_size=6, unique_by=lambda row: row[0]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(IndexType), metric=st.sampled_from(Metric), start=st.integers(0, 25), steps=operations)
def test_views_follow_a_dict(kind: IndexType, metric: Metric, start: int, steps: list[tuple[list[int], list[tuple[int, int]]]]) -> None:
    spec = make_spec(4, metric, kind)
    raw = make_rows(41, 4, seed=9)[1]
    pool = encode(raw, metric)
    view = build_view(spec, np.arange(start, dtype=np.int64), raw[:start])
    model = {i: i for i in range(start)}
    for removed, added in steps:
        gone = [*removed, *(row for row, _ in added)]  # an added id replaces its old row
        view = view.change(
            np.array(gone, np.int64), np.array([row for row, _ in added], np.int64), pool[[vector for _, vector in added]].reshape(-1, 4)
        )
        for row in gone:
            model.pop(row, None)
        model |= dict(added)
        ids, digests = view.live_entries()
        assert sorted(zip(ids.tolist(), digests.tolist(), strict=True)) == sorted(
            (row, int(code_digests(pool[vector : vector + 1])[0])) for row, vector in model.items()
        )
        assert view.live_rows == len(model)
        assert view.live_rows + view.dead_rows == sum(segment.rows for segment in view.segments) + view.delta_rows
        found, scores = view.search(pool[:3], 30)
        assert [sorted(row[: len(model)]) for row in found.tolist()] == [sorted(model)] * 3
        assert np.isnan(scores[:, len(model) :]).all()
        nearest, _ = view.search(pool[:3], 3)
        wanted = (
            [brute_force({row: pool[vector] for row, vector in model.items()}, query, metric, 3)[0] for query in pool[:3]] if model else []
        )
        if kind is IndexType.FLAT:
            assert [row[: len(model)] for row in nearest.tolist()][: len(wanted)] == wanted
        assert all(row[0] in model for row in nearest.tolist() if model)


def test_ids_that_are_twice_in_the_index_are_seen_twice_and_removed_together() -> None:
    ids, vectors = make_rows(20)
    twice = make_view(make_spec(), np.concatenate([ids, ids[:1]]), np.concatenate([vectors, vectors[1:2]]))
    twice = twice.change(np.array([]), ids[:1], encode(vectors[2:3], Metric.COSINE))
    assert twice.live_entries()[0].tolist().count(int(ids[0])) == 3
    assert int(ids[0]) not in twice.change(ids[:1], np.array([]), np.empty((0, 16), np.float32)).live_entries()[0].tolist()


def test_entries_of_some_ids_are_those_of_all_entries() -> None:
    ids, vectors = make_rows(60)
    codes = encode(vectors, Metric.COSINE)
    view = make_view(make_spec(), ids[:50], vectors[:50]).change(ids[:5], ids[50:], codes[50:])
    wanted = [int(row) for row in (*ids[3:8], *ids[55:])]
    every = dict(zip(*(part.tolist() for part in view.live_entries()), strict=True))
    some = dict(zip(*(part.tolist() for part in view.entries_of(np.array([*wanted, 10**9]))), strict=True))
    assert some == {row: every[row] for row in wanted if row in every}
    assert len(some) == 8


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.HNSW])
def test_damage_in_the_memory_of_faiss_is_seen(kind: IndexType) -> None:
    ids, vectors = make_rows(30)
    view = make_view(make_spec(kind=kind), ids, vectors)
    before = view.live_entries()[1]
    view.segments[0].codes[7, 3] += np.float32(1e-6)
    assert np.flatnonzero(view.live_entries()[1] != before).tolist() == [7]


# --- building and merging ---


def test_build_refuses_codes_of_another_shape() -> None:
    with pytest.raises(ValueError, match="expected codes of shape"):
        Builder(make_spec(), IdKind.INTEGER, 3, 1, 1).add(np.arange(3), np.ones((3, 15), np.float32))


def test_same_rows_build_the_same_index() -> None:
    ids, vectors = make_rows(500)
    first, second = (build_view(make_spec(), ids, vectors, threads=threads) for threads in (1, 2))
    assert [part.tolist() for part in first.search(vectors, 5)] == [part.tolist() for part in second.search(vectors, 5)]


def test_merge_is_asked_for_when_dead_rows_grow() -> None:
    ids, vectors = make_rows(6000)
    view = make_view(make_spec(kind=IndexType.FLAT), ids[:5000], vectors[:5000])
    assert needs_merge(view) is None
    assert needs_merge(view.change(ids[:1000], *NOTHING)) is None
    assert needs_merge(view.change(ids[:1001], *NOTHING)) == "TooManyDeadRows"


def test_small_indexes_are_neither_merged_nor_sealed_all_the_time() -> None:
    ids, vectors = make_rows(100)
    view = make_view(make_spec(), ids[:20], vectors[:20]).change(ids[:20], ids[20:], encode(vectors[20:], Metric.COSINE))
    assert needs_merge(view) is None
    assert plan_seal(view) is None


def test_bytes_grow_with_the_rows() -> None:
    ids, vectors = make_rows(1000)
    flat, graph = (make_view(make_spec(kind=kind), ids, vectors) for kind in (IndexType.FLAT, IndexType.HNSW))
    assert flat.bytes >= 1000 * 16 * 4
    assert graph.bytes > flat.bytes + 1000 * 64 * 4


# --- threads ---


def test_searching_while_the_view_changes_never_shows_a_dead_row() -> None:
    ids, vectors = make_rows(600)
    codes = encode(vectors, Metric.COSINE)
    views = [make_view(make_spec(), ids[:300], vectors[:300])]
    wrong: list[object] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            view = views[-1]
            live = set(view.live_entries()[0].tolist())
            found, scores = view.search(vectors[::50], 10)
            if not set(found.ravel().tolist()) <= live or np.isnan(scores).any():
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(0, 280, 4):
        views.append(views[-1].change(ids[i : i + 4], ids[300 + i : 304 + i], codes[300 + i : 304 + i]))
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
