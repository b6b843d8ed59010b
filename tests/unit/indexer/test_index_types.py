"""Every type of index, with and without quantization, for ids of every kind: built, changed, sealed, searched and looked into."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.views import MAKES, Make, build_view, make_ids, make_spec, make_vectors
from vectorindex_indexer.config import IndexSpec, IndexType, Metric, Quantization
from vectorindex_indexer.index import (
    Builder,
    SealedPart,
    View,
    code_digests,
    empty_view,
    encode,
    examine_answers,
    needs_merge,
    plan_seal,
    sealing,
)
from vectorindex_indexer.index import building as building_module
from vectorindex_indexer.index.stores import GraphStore, ListStore
from vectorindex_indexer.keys import IdKind, to_json, value_at
from vectorindex_indexer.rows import Range

Array = NDArray[Any]
RNG_SEED = 11
NO_CODES = np.empty((0, 16), np.float32)

every_make = pytest.mark.parametrize("make", MAKES, ids=str)


def entries(view: View) -> dict[Any, list[int]]:
    """Return the code digests of each id."""
    found: dict[Any, list[int]] = {}
    for key, digest in zip(*(part.tolist() for part in view.live_entries()), strict=True):
        found.setdefault(key, []).append(digest)
    return found


def seal(view: View) -> tuple[View, SealedPart]:
    plan = plan_seal(view)
    assert plan is not None
    part = plan.build(1)
    return view.with_sealed(part), part


def nearest(codes: Array, live: Array, query: Array, metric: Metric, k: int) -> Array:
    """Return scores of the best live rows, in float64, from what is stored."""
    wide = encode(query[None], metric)[0].astype(np.float64)
    scores = ((codes[live] - wide) ** 2).sum(axis=1) if metric is Metric.L2 else codes[live] @ wide
    return np.sort(scores if metric is Metric.L2 else -scores)[:k]


@every_make
@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("kind", list(IdKind))
def test_answers_are_the_nearest_live_rows_over_what_is_stored(make: Make, metric: Metric, kind: IdKind) -> None:
    """Rows in a segment, in a second one that was sealed, and in the delta; a seventh of them dead."""
    ids, vectors = make_ids(kind, 1300), make_vectors(1300)
    codes = encode(vectors, metric)
    view = build_view(make_spec(make, metric=metric), ids[:700], vectors[:700], kind=kind)
    view = view.change(ids[:0], ids[700:1100], codes[700:1100])
    view, part = seal(view)
    view = view.change(ids[::7], ids[1100:], codes[1100:])
    assert not view.fallback
    assert [segment.rows for segment in view.segments] == [700, 400]
    assert (view.delta_rows, view.live_rows) == (200, 1300 - len(ids[:1100:7]))

    gone = set(ids[:1100:7].tolist())
    stored = np.concatenate([segment.decode(np.arange(segment.rows)) for segment in view.segments] + [view.delta.decode(np.arange(200))])
    live = np.array([key not in gone for key in ids[:1100].tolist()] + [True] * 200)
    queries = make_vectors(40, seed=2)
    found, scores = view.search(queries, 10)
    assert not set(found.reshape(-1).tolist()) & gone
    by_id = dict(zip(ids.tolist(), range(1300), strict=True))
    hits = 0
    for query, keys, row in zip(queries, found, scores, strict=True):
        best = nearest(stored, live, query, metric, 10)
        costs = row.astype(np.float64) if metric is Metric.L2 else -row.astype(np.float64)
        own = nearest(stored, np.array([by_id[key] for key in keys.tolist()]), query, metric, 10)
        np.testing.assert_allclose(np.sort(costs), own, rtol=1e-5, atol=1e-5)  # each score is that of its own row
        hits += int((costs <= best[-1] + 1e-5).sum())
    assert hits >= (400 if make.type is IndexType.FLAT else 385 if make.type is IndexType.HNSW else 360)
    assert part.digests.size == 400


@pytest.mark.parametrize("metric", list(Metric))
def test_quantized_scores_are_near_the_true_ones(metric: Metric) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 600), make_vectors(600)
    exact, quantized = (
        build_view(make_spec(Make(IndexType.FLAT, each), metric=metric), ids, vectors) for each in (Quantization.NONE, Quantization.SQ8)
    )
    queries = make_vectors(20, seed=3)
    same = [set(a.tolist()) & set(b.tolist()) for a, b in zip(exact.search(queries, 10)[0], quantized.search(queries, 10)[0], strict=True)]
    assert sum(map(len, same)) > 180
    decoded = quantized.segments[0].decode(np.arange(600))
    assert np.abs(decoded - encode(vectors, metric)).max() < 0.02


def test_constant_and_extreme_numbers_survive_quantization() -> None:
    vectors = make_vectors(300)
    vectors[:, 3] = 7.25
    vectors[:, 4] = 0
    vectors[:, 5] *= 1e37
    view = build_view(make_spec(Make(IndexType.FLAT, Quantization.SQ8), metric=Metric.L2), np.arange(300), vectors)
    decoded = view.segments[0].decode(np.arange(300))
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded[:, 3], 7.25)
    np.testing.assert_allclose(decoded[:, 4], 0)


# --- ids ---


@pytest.mark.parametrize("kind", list(IdKind))
def test_ids_come_back_as_they_went_in(kind: IdKind) -> None:
    ids, vectors = make_ids(kind, 60), make_vectors(60)
    view = build_view(IndexSpec(16, Metric.L2, IndexType.FLAT), ids[:50], vectors[:50], kind=kind).change(ids[:10], ids[50:], vectors[50:])
    found, scores = view.search(vectors[10:], 1)
    assert to_json(found[:, 0], kind) == to_json(ids[10:], kind)
    assert (scores == 0).all()
    assert to_json(view.recently_dead(100), kind) == to_json(np.unique(ids[:10]), kind)


def test_longer_texts_than_all_before_are_kept_whole() -> None:
    vectors = make_vectors(4)
    view = build_view(IndexSpec(16, Metric.L2, IndexType.FLAT), np.array([b"a", b"b"]), vectors[:2], kind=IdKind.TEXT)
    view = view.change(view.delta.ids, np.array([b"abc"]), vectors[2:3]).change(view.delta.ids, np.array([b"x" * 256]), vectors[3:])
    assert sorted(view.live_entries()[0].tolist()) == [b"a", b"abc", b"b", b"x" * 256]
    assert view.entries_of(np.array([b"abc", b"b" * 300]))[0].tolist() == [b"abc"]
    view = view.change(np.array([b"abc", b"a" * 300, b"b"]), view.delta.ids[:0], NO_CODES)
    assert sorted(view.live_entries()[0].tolist()) == [b"a", b"x" * 256]


def test_uuids_that_end_in_zero_bytes_are_not_confused() -> None:
    ids = np.array([bytes([1]) + bytes(15), bytes([1, 0, 1]) + bytes(13), bytes(16)], "S16")
    view = build_view(IndexSpec(16, Metric.L2, IndexType.FLAT), ids, make_vectors(3), kind=IdKind.UUID)
    view = view.change(ids[2:], ids[:0], NO_CODES)
    assert to_json(view.live_entries()[0], IdKind.UUID) == to_json(ids[:2], IdKind.UUID)


def test_ids_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="expected ids of kind uuid"):
        empty_view(IndexSpec(16), 1, IdKind.UUID).change(np.array([1]), np.array([]), NO_CODES)


# --- building ---


@every_make
def test_a_view_built_in_pieces_is_the_view_built_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building_module, "GRAPH_ROWS", 150)
    ids, vectors = make_ids(IdKind.INTEGER, 700), make_vectors(700)
    spec = make_spec(make)
    builder = Builder(spec, IdKind.INTEGER, 500, 1, 3)  # more rows come than were expected
    if builder.needs_training:
        builder.train(vectors)
    digests = [builder.add(ids[a:b], encode(vectors[a:b], spec.metric)) for a, b in ((0, 1), (1, 300), (300, 300), (300, 700))]
    view = builder.finish()
    assert view.generation == 3
    assert entries(view) == {int(key): [int(digest)] for key, digest in zip(ids, np.concatenate(digests), strict=True)}
    whole = build_view(spec, ids, vectors)
    assert view.segments[0].decode(np.arange(700)).tolist() == whole.segments[0].decode(np.arange(700)).tolist()
    if make.type is not IndexType.HNSW:
        assert [part.tolist() for part in view.search(vectors[:20], 5)] == [part.tolist() for part in whole.search(vectors[:20], 5)]


@every_make
@pytest.mark.parametrize("rows", [0, 1, 255])
def test_too_few_rows_to_train_give_an_exact_index(make: Make, rows: int) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 600), make_vectors(600)
    view = build_view(make_spec(make), ids[:rows], vectors[:rows])
    needs = make.type is IndexType.IVFFLAT or make.quantization is Quantization.SQ8
    assert view.fallback == ("TooFewRowsToTrain" if needs else "")
    assert view.spec == make_spec(make)
    assert view.live_rows == rows
    _, scores = view.search(vectors[:3], 4)
    assert np.isnan(scores).sum() == 3 * max(0, 4 - rows)
    if needs and rows:
        assert view.segments[0].is_exact

    grown = view.change(ids[:0], ids[rows:], encode(vectors[rows:], Metric.COSINE))
    grown, _ = seal(grown)
    assert grown.segments[-1].is_exact == (needs or make.type is IndexType.FLAT)
    assert needs_merge(grown) == ("EnoughRowsToTrain" if needs else None)
    assert entries(grown).keys() == set(ids.tolist())


def test_sample_that_is_too_small_gives_an_exact_index_though_more_rows_come() -> None:
    spec = make_spec(Make(IndexType.IVFFLAT, Quantization.NONE))
    builder = Builder(spec, IdKind.INTEGER, 1000, 1, 1)
    assert builder.needs_training == 8 * 64
    builder.train(make_vectors(100))
    builder.add(np.arange(1000), encode(make_vectors(1000), spec.metric))
    assert builder.finish().fallback == "TooFewRowsToTrain"


def test_rows_wanted_for_training_never_exceed_what_is_expected() -> None:
    def wanted(make: Make, capacity: int) -> int:
        return Builder(make_spec(make), IdKind.INTEGER, capacity, 1, 1).needs_training

    assert wanted(Make(IndexType.FLAT, Quantization.NONE), 10**6) == wanted(Make(IndexType.HNSW, Quantization.NONE), 10**6) == 0
    assert wanted(Make(IndexType.IVFFLAT, Quantization.NONE), 400) == 400
    assert wanted(Make(IndexType.IVFFLAT, Quantization.NONE), 311) == 0
    assert wanted(Make(IndexType.HNSW, Quantization.SQ8), 10**6) == 20_000


# --- what FAISS holds (L1) ---


@every_make
def test_code_digests_are_those_announced_before_the_rows_were_added(make: Make) -> None:
    """In the delta those of the float32 codes, in a segment those of what it stores."""
    ids, vectors = make_ids(IdKind.INTEGER, 900), make_vectors(900)
    codes = encode(vectors, Metric.COSINE)
    view = build_view(make_spec(make), ids[:500], vectors[:500]).change(ids[:100], ids[500:], codes[500:])
    before = entries(view)
    assert all(before[int(key)] == [int(digest)] for key, digest in zip(ids[500:], code_digests(codes[500:]), strict=True))
    sealed, part = seal(view)
    after = entries(sealed)
    assert after == before | {int(key): [int(digest)] for key, digest in zip(part.ids, part.digests, strict=True)}
    same = make.quantization is Quantization.NONE and make.type is not IndexType.IVFFLAT
    assert (after == before) == same


@every_make
def test_entries_of_some_ids_are_those_of_all_entries(make: Make) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 600), make_vectors(600)
    view = build_view(make_spec(make), ids[:500], vectors[:500]).change(ids[:50], ids[500:], encode(vectors[500:], Metric.COSINE))
    every = entries(view)
    wanted = np.concatenate([ids[::5], np.array([10**9])])
    some = dict(zip(*(part.tolist() for part in view.entries_of(wanted)), strict=True))
    assert some == {key: every[key][0] for key in wanted.tolist() if key in every}
    assert len(some) == 110


@pytest.mark.parametrize("kind", list(IdKind))
@pytest.mark.parametrize("make", [MAKES[0], MAKES[-1]], ids=str)
def test_entries_between_ids_are_those_in_the_range(kind: IdKind, make: Make) -> None:
    ids, vectors = make_ids(kind, 600), make_vectors(600)
    view = build_view(make_spec(make), ids[:500], vectors[:500], kind=kind).change(
        ids[:50], ids[500:], encode(vectors[500:], Metric.COSINE)
    )
    ordered = np.sort(view.live_entries()[0])
    cuts: list[int | bytes | None] = [None, *(value_at(ordered, place, kind) for place in (0, 7, 300, 549)), None]
    if kind is IdKind.TEXT:
        cuts[3] = bytes(ordered[300]) + b"-and-more-than-any"
    found = [view.entries_between(Range(low, high))[0] for low, high in pairwise(cuts)]
    assert [part.size for part in found] == [0, 7, 293 + (kind is IdKind.TEXT), 249 - (kind is IdKind.TEXT), 1]
    assert np.array_equal(np.sort(np.concatenate(found)), ordered)


def test_row_whose_id_became_another_shows_in_the_range_it_was_in() -> None:
    vectors = make_vectors(300)
    view = build_view(make_spec(MAKES[0]), np.arange(300), vectors)
    view.segments[0].ids[20] = 5000
    assert view.entries_between(Range(10, 30))[0].tolist() == [*range(10, 20), 5000, *range(21, 30)]


def damage_code(view: View) -> None:
    parts = view.segments[0].store.take_apart()
    next(window for window in parts["codes"] if len(window))[0, 3] ^= 1


def damage_table(view: View) -> None:
    table = view.segments[0].store.trained.table
    assert table is not None
    table[0, 5] += np.float32(0.01)
    view.segments[0].store.codec.__dict__.pop("salt", None)


def damage_centroid(view: View) -> None:
    quantizer: Any = faiss.downcast_index(view.segments[0].store.index.quantizer)
    faiss.rev_swig_ptr(quantizer.codes.data(), quantizer.codes.size())[7] ^= 1


def move_to_another_list(view: View) -> None:
    """Swap two rows between two lists, vector and number, so that each list is as long as before."""
    parts = view.segments[0].store.take_apart()
    first, second = [number for number, rows in enumerate(parts["rows"]) if len(rows)][:2]
    for name in ("rows", "codes"):
        windows = parts[name]
        windows[first][0], windows[second][0] = windows[second][0].copy(), windows[first][0].copy()


def swap_rows_in_lists(view: View) -> None:
    """Swap two numbers only: each row then has the other's vector."""
    rows = next(rows for rows in view.segments[0].store.take_apart()["rows"] if len(rows) > 1)
    rows[0], rows[1] = rows[1], rows[0]


def double_in_list(view: View) -> None:
    rows = next(rows for rows in view.segments[0].store.take_apart()["rows"] if len(rows) > 1)
    rows[0] = rows[1]


def leave_the_lists(view: View) -> None:
    rows = next(rows for rows in view.segments[0].store.take_apart()["rows"] if len(rows))
    rows[0] = 2**40


def swap_ids(view: View) -> None:
    ids = view.segments[0].ids
    ids[3], ids[4] = ids[4], ids[3]


def lose_dead_bit(view: View) -> None:
    view.segments[0].dead[0] = False


DAMAGE: list[tuple[Callable[[View], None], str, tuple[int, int, int, int]]] = [
    # what is done, to which indexes, and rows missing, ghost, changed, duplicate
    (damage_code, "all", (0, 0, 1, 0)),
    (swap_ids, "all", (0, 0, 2, 0)),
    (lose_dead_bit, "all", (0, 1, 0, 0)),
    (move_to_another_list, "lists", (0, 0, 2, 0)),
    (swap_rows_in_lists, "lists", (0, 0, 2, 0)),
    (double_in_list, "lists", (1, 0, 0, 1)),
    (leave_the_lists, "lists", (1, 0, 0, 0)),
]


@every_make
@pytest.mark.parametrize(("harm", "where", "expected"), DAMAGE, ids=[harm.__name__ for harm, _, _ in DAMAGE])
def test_damage_in_memory_is_seen_and_named(
    make: Make, harm: Callable[[View], None], where: str, expected: tuple[int, int, int, int]
) -> None:
    if where == "lists" and make.type is not IndexType.IVFFLAT:
        return
    ids, vectors = make_ids(IdKind.INTEGER, 400), make_vectors(400)
    view = build_view(make_spec(make), ids, vectors)
    if harm is lose_dead_bit:
        view = view.change(ids[:1], ids[:0], NO_CODES)
    before = entries(view)
    harm(view)
    after = entries(view)
    missing = [key for key in before if key not in after]
    ghost = [key for key in after if key not in before]
    duplicate = [key for key in after if len(after[key]) > 1]
    changed = [key for key in after if key in before and len(after[key]) == 1 and after[key] != before[key]]
    assert (len(missing), len(ghost), len(changed), len(duplicate)) == expected

    slice_ids, slice_digests = view.entries_of(ids)  # by ids: a row too many can't be seen, any other damage can
    seen = dict(zip(slice_ids.tolist(), slice_digests.tolist(), strict=True))
    if harm is not lose_dead_bit:
        assert seen != {key: digests[0] for key, digests in before.items()}
    view.search(vectors[:50], 10)  # whatever is found, nothing reads beyond its memory


@every_make
def test_damage_to_what_was_learnt_shows_in_every_row_it_concerns(make: Make) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 400), make_vectors(400)
    view = build_view(make_spec(make), ids, vectors)
    before = entries(view)
    if make.quantization is Quantization.SQ8:
        damage_table(view)
        after = entries(view)
        assert all(after[key] != before[key] for key in before)
    elif make.type is IndexType.IVFFLAT:
        damage_centroid(view)
        store = view.segments[0].store
        assert isinstance(store, ListStore)
        concerned = {int(ids[row]) for row in store.take_apart()["rows"][0]}
        after = entries(view)
        assert concerned == {key for key in before if after[key] != before[key]}


def test_duplicate_ids_are_seen_as_often_as_they_are_there() -> None:
    vectors = make_vectors(3)
    view = build_view(IndexSpec(16, Metric.L2, IndexType.FLAT), np.array([4, 4, 5]), vectors).change(
        np.array([]), np.array([5]), vectors[:1]
    )
    assert {key: len(digests) for key, digests in entries(view).items()} == {4: 2, 5: 2}


# --- sealing ---


@every_make
def test_rows_that_come_and_go_while_a_delta_is_sealed_are_right_afterwards(make: Make) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 1200), make_vectors(1200)
    codes = encode(vectors, Metric.COSINE)
    view = build_view(make_spec(make), ids[:400], vectors[:400]).change(ids[:0], ids[400:900], codes[400:900])
    view = view.change(ids[400:450], ids[:0], NO_CODES)  # dead before it is planned: never sealed
    plan = plan_seal(view)
    assert plan is not None
    part = plan.build(1)
    assert part.ids.size == 450
    # Meanwhile rows die, are replaced, come, and come back.
    view = view.change(ids[450:500], ids[900:], codes[900:])
    view = view.change(ids[500:510], ids[500:510], codes[:10])
    view = view.change(ids[:0], ids[400:405], codes[400:405])
    sealed = view.with_sealed(part)
    live = set(ids.tolist()) - set(ids[405:500].tolist())
    assert entries(sealed).keys() == entries(view).keys() == live
    assert all(len(digests) == 1 for digests in entries(sealed).values())
    assert sealed.delta_rows == 300 + 10 + 5
    assert sealed.live_rows == len(live)
    assert [segment.rows for segment in sealed.segments] == [400, 450]
    assert sealed.segments[1].dead_rows == 60
    replaced = entries(sealed)[int(ids[500])]
    assert replaced == [int(code_digests(codes[:1])[0])]


def test_delta_whose_rows_are_all_dead_is_dropped() -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 400), make_vectors(400)
    view = build_view(make_spec(MAKES[0]), ids[:100], vectors[:100]).change(ids[:0], ids[100:], encode(vectors[100:], Metric.COSINE))
    sealed, part = seal(view.change(ids[100:], ids[:0], NO_CODES))
    assert part.segment is None
    assert (len(sealed.segments), sealed.delta_rows, sealed.dead_rows) == (1, 0, 0)


def test_part_of_another_delta_is_refused() -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 1000), make_vectors(1000)
    base = build_view(make_spec(MAKES[0]), ids[:100], vectors[:100])
    codes = encode(vectors, Metric.COSINE)
    view, other = (base.change(ids[:0], ids[a : a + 300], codes[a : a + 300]) for a in (100, 400))
    plan = plan_seal(view)
    assert plan is not None
    part = plan.build(1)
    with pytest.raises(ValueError, match="not those of this view"):
        other.with_sealed(part)  # begun from the same delta, and continued in another way
    with pytest.raises(ValueError, match="not those of this view"):
        build_view(make_spec(MAKES[0]), ids[:100], vectors[:100]).with_sealed(part)
    with pytest.raises(ValueError, match="not those of this view"):
        base.with_sealed(part)
    with pytest.raises(ValueError, match="not those of this view"):
        view.with_sealed(part).with_sealed(part)


def test_a_delta_is_sealed_when_it_grows_beyond_its_share_or_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 6000), make_vectors(6000)
    codes = encode(vectors, Metric.COSINE)
    view = build_view(make_spec(MAKES[0]), ids[:5200], vectors[:5200])

    def grown(rows: int) -> View:
        return view.change(ids[:0], ids[5200 : 5200 + rows], codes[5200 : 5200 + rows])

    assert plan_seal(grown(260)) is None
    assert plan_seal(grown(261)) is not None
    monkeypatch.setattr(sealing, "DELTA_BYTES", 257 * 64 - 1)
    assert plan_seal(grown(256)) is None
    assert plan_seal(grown(257)) is not None


def test_many_segments_ask_for_a_merge() -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 9 * 300), make_vectors(9 * 300)
    codes = encode(vectors, Metric.COSINE)
    view = empty_view(make_spec(MAKES[0]), 1)
    for start in range(0, ids.size, 300):
        assert needs_merge(view) is None
        view, _ = seal(view.change(ids[:0], ids[start : start + 300], codes[start : start + 300]))
    assert needs_merge(view) == "TooManySegments"
    assert view.search(vectors[::100], 1)[0][:, 0].tolist() == ids[::100].tolist()


# --- answers (L2) ---


@every_make
def test_sound_answers_have_a_high_recall_and_no_dead_rows(make: Make) -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 1200), make_vectors(1200)
    view = build_view(make_spec(make), ids[:1000], vectors[:1000]).change(ids[:300], ids[1000:], encode(vectors[1000:], Metric.COSINE))
    answers = examine_answers(view, ids[300:600], view.recently_dead(50), 10, np.random.default_rng(RNG_SEED), limit=30)
    assert answers.recall is not None
    assert answers.recall >= (0.999 if make.type is IndexType.FLAT else 0.9)
    assert answers.dead.size == 0
    assert answers.answered.size > 100


def test_a_graph_whose_links_lead_nowhere_is_seen_by_its_recall() -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 3000), make_vectors(3000)
    view = build_view(make_spec(Make(IndexType.HNSW, Quantization.NONE)), ids, vectors)
    store = view.segments[0].store
    assert isinstance(store, GraphStore)
    links = store.take_apart()["neighbors"][0]
    lowest = faiss.vector_to_array(store.index.hnsw.offsets)[:-1].astype(np.int64)[:, None] + np.arange(16)
    rng = np.random.default_rng(RNG_SEED)
    links[lowest] = rng.integers(0, 3000, lowest.shape)  # whole, but no link leads to a neighbour any more
    answers = examine_answers(view, ids[:50], ids[:0], 10, rng)
    assert answers.recall is not None
    assert answers.recall < 0.8


def test_dead_row_that_is_answered_is_named() -> None:
    """A search whose dead marks are not those of the view: what a defect of ours would be."""
    ids, vectors = make_ids(IdKind.INTEGER, 400), make_vectors(400)

    class Careless(View):
        def search(self, queries: Array, k: int, ef_search: int | None = None, nprobe: int | None = None) -> tuple[Array, Array]:
            undead = replace(self.segments[0], dead=np.zeros(400, np.bool_), dead_rows=0)
            return View(1, self.spec, (undead,), self.delta).search(queries, k)

    view = build_view(make_spec(MAKES[0]), ids, vectors).change(ids[:20], ids[:0], NO_CODES)
    careless = Careless(1, view.spec, view.segments, view.delta, buried=view.buried)
    answers = examine_answers(careless, ids[:0], careless.recently_dead(20), 5, np.random.default_rng(RNG_SEED))
    assert set(answers.dead.tolist()) == set(ids[:20].tolist())


def test_nothing_to_ask_gives_no_recall() -> None:
    view = empty_view(IndexSpec(16), 1)
    answers = examine_answers(view, np.array([1, 2]), np.array([]), 10, np.random.default_rng(RNG_SEED))
    assert (answers.recall, answers.dead.size) == (None, 0)


def test_recently_dead_are_the_last_and_survive_only_in_memory() -> None:
    ids, vectors = make_ids(IdKind.INTEGER, 700), make_vectors(700)
    view = build_view(make_spec(MAKES[0]), ids, vectors)
    for start in range(0, 600, 100):
        view = view.change(ids[start : start + 100], ids[:0], NO_CODES)
    assert view.buried.size == 256
    assert set(view.recently_dead(100).tolist()) == set(ids[500:600].tolist())
    restarted = replace(view, buried=ids[:0])
    assert set(restarted.recently_dead(30).tolist()) <= set(ids[:600].tolist())
    assert restarted.recently_dead(30).size == 30
