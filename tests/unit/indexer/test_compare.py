"""What differs and how it is called: the oracle here is plain sets and dictionaries, not the product's arrays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger import make_rows, to_heads
from vectorindex_indexer.compare import Trust, compare_bucket, compare_index, find_different, find_moved, find_unlike
from vectorindex_indexer.digest import Digest
from vectorindex_indexer.ledger import Bucket, build_ledger, make_bucket
from vectorindex_indexer.rows import Heads, Totals

# (id, digest, stamp): few values of each, so that they collide
ROWS = st.lists(st.tuples(st.integers(-2, 12), st.integers(0, 3), st.integers(0, 3)), max_size=14)


def as_bucket(rows: list[tuple[int, int, int]]) -> Bucket:
    ids, digests, stamps = (np.array([row[column] for row in rows], np.int64) for column in range(3))
    words = digests.astype(np.uint64)
    return make_bucket(ids, stamps.astype(np.uint64), np.stack([words, words], axis=1), words, np.zeros(len(rows), np.uint8))


def by_id(rows: list[tuple[int, int, int]]) -> dict[int, list[tuple[int, int]]]:
    groups: dict[int, list[tuple[int, int]]] = {}
    for key, digest, stamp in rows:
        groups.setdefault(key, []).append((digest, stamp))
    return {key: sorted(values) for key, values in groups.items()}


@given(ours=ROWS, theirs=ROWS)
def test_every_difference_is_named_once_and_by_its_kind(ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]) -> None:
    left, right = by_id(ours), by_id(theirs)
    content = {key: [digest for digest, _ in rows] for key, rows in left.items()}
    wanted = {key: [digest for digest, _ in rows] for key, rows in right.items()}
    differing = {key for key in left.keys() & right.keys() if content[key] != wanted[key]}
    silent = {key for key in differing if sorted(s for _, s in left[key]) == sorted(s for _, s in right[key])}

    found = compare_bucket(as_bucket(ours), to_heads(as_bucket(theirs)), Trust.HOLD)

    assert set(found.inserted.tolist()) == right.keys() - left.keys()
    assert set(found.deleted.tolist()) == left.keys() - right.keys()
    assert set(found.updated.tolist()) == differing - silent
    assert set(found.drift.changed.tolist()) == silent
    assert found.drift.missing.size == found.drift.ghost.size == 0
    assert set(found.affected.tolist()) == (left.keys() ^ right.keys()) | differing


def test_a_text_longer_than_all_that_are_left_is_named_whole() -> None:
    words = np.arange(3, dtype=np.uint64)
    ours = make_bucket(np.array([b"a", b"a", b"longest"]), words, np.stack([words, words], axis=1), words, np.zeros(3, np.uint8))
    theirs = make_bucket(np.array([b"a", b"a"]), words[:2], np.stack([words[:2]] * 2, axis=1), words[:2], np.zeros(2, np.uint8))

    assert compare_bucket(ours, to_heads(theirs), Trust.HOLD).deleted.tolist() == [b"longest"]
    assert compare_bucket(theirs, to_heads(ours), Trust.HOLD).inserted.tolist() == [b"longest"]


@given(ours=ROWS, theirs=ROWS)
def test_in_a_broken_bucket_every_difference_is_drift_and_after_a_new_incarnation_none(
    ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]
) -> None:
    normal = compare_bucket(as_bucket(ours), to_heads(as_bucket(theirs)), Trust.HOLD)
    broken = compare_bucket(as_bucket(ours), to_heads(as_bucket(theirs)), Trust.BROKEN)
    void = compare_bucket(as_bucket(ours), to_heads(as_bucket(theirs)), Trust.VOID)

    assert broken.affected.tolist() == void.affected.tolist() == normal.affected.tolist()
    assert broken.drift.rows == broken.affected.size
    assert broken.drift.missing.tolist() == normal.inserted.tolist()
    assert broken.drift.ghost.tolist() == normal.deleted.tolist()
    assert void.drift.rows == 0


def test_a_row_rewritten_with_the_same_content_is_only_restamped() -> None:
    rows = make_rows(range(10))
    heads = to_heads(rows)
    heads.stamps[3] += np.uint64(1)

    found = compare_bucket(rows, heads, Trust.HOLD)

    assert found.restamped == 1
    assert found.affected.size == 0


def test_swapped_vectors_of_two_rows_are_two_changed_rows() -> None:
    rows = make_rows(range(10))
    swapped = Heads(rows.ids, rows.stamps, rows.digests.copy())
    # The id is part of the row digest, so a swap gives both rows digests that neither had.
    swapped.digests[[2, 5]] = rows.digests[[5, 2]] + np.uint64(1)

    assert compare_bucket(rows, swapped, Trust.HOLD).drift.changed.tolist() == [2, 5]


@pytest.mark.parametrize("column", ["counts", "stamps"])
def test_a_moved_bucket_is_named(column: str) -> None:
    ledger = build_ledger(make_rows(range(20_000)))
    totals = Totals(
        np.array([bucket.rows for bucket in ledger.buckets], np.int64),
        np.array([bucket.measure().stamps for bucket in ledger.buckets], np.uint64),
        None,
    )
    assert find_moved(ledger.seals, totals) == []

    getattr(totals, column)[2] += 1

    assert find_moved(ledger.seals, totals) == [2]


def test_a_bucket_with_another_stored_digest_is_named() -> None:
    ledger = build_ledger(make_rows(range(20_000)))
    digests = [bucket.digest for bucket in ledger.buckets]
    totals = Totals(np.array([digest.count for digest in digests], np.int64), None, digests)
    assert find_moved(ledger.seals, totals) == []

    digests[1] = replace(digests[1], low=digests[1].low ^ 1)

    assert find_moved(ledger.seals, totals) == [1]


def test_entries_that_are_not_the_same_as_often_are_unlike() -> None:
    ids, codes = np.array([1, 2, 2, 3, 5]), np.array([10, 20, 21, 30, 50], np.uint64)
    assert find_unlike((ids, codes), (ids[::-1], codes[::-1])).size == 0

    others = np.array([1, 2, 3, 3, 4]), np.array([10, 20, 30, 30, 40], np.uint64)

    assert find_unlike((ids, codes), others).tolist() == [2, 3, 4, 5]
    assert find_unlike((ids, codes), (ids[:0], codes[:0])).tolist() == [1, 2, 3, 5]


def test_bucket_digests_of_unequal_number_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        find_different([Digest(1, 2, 3), Digest(1, 2, 3)], [Digest(1, 2, 3)])


@given(
    expected=st.dictionaries(st.integers(0, 15), st.integers(0, 2)),
    actual=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2)), max_size=20),
)
def test_what_the_index_holds_is_compared_by_id_code_and_multiplicity(expected: dict[int, int], actual: list[tuple[int, int]]) -> None:
    ids = np.array(sorted(expected), np.int64)
    codes = np.array([expected[key] for key in sorted(expected)], np.uint64)
    held = [key for key, _ in actual]

    drift = compare_index(ids, codes, np.array(held, np.int64), np.array([code for _, code in actual], np.uint64))

    assert set(drift.missing.tolist()) == expected.keys() - set(held)
    assert set(drift.ghost.tolist()) == set(held) - expected.keys()
    assert set(drift.duplicate.tolist()) == {key for key in expected if held.count(key) > 1}
    assert set(drift.changed.tolist()) == {
        key for key, code in actual if held.count(key) == 1 and key in expected and expected[key] != code
    }
