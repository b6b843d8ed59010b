"""The ledger: its buckets, its seals, and what a damaged one can't hide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger import make_rows
from vectorindex_indexer.ledger import BUCKET_ROWS, SPLIT_ABOVE, Bucket, Ledger, build_ledger, parse_ledger


def same_rows(left: Ledger, right: Ledger) -> bool:
    ours, theirs = left.to_arrays(), right.to_arrays()
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("rows", [0, 1, BUCKET_ROWS, BUCKET_ROWS + 1, 3 * BUCKET_ROWS, 5 * BUCKET_ROWS + 17])
def test_every_row_lies_in_the_bucket_of_its_range(rows: int) -> None:
    ledger = build_ledger(make_rows(range(0, 3 * rows, 3)))

    assert ledger.rows == rows
    assert len(ledger.buckets) == len(ledger.seals) == ledger.bounds.size + 1
    for position, bucket in enumerate(ledger.buckets):
        inside = ledger.range(position)
        assert inside.low is None or bucket.ids.min() >= inside.low
        assert inside.high is None or bucket.ids.max() < inside.high
    assert ledger.range(0).low is None
    assert ledger.range(len(ledger.buckets) - 1).high is None


def test_rows_of_one_id_are_never_parted() -> None:
    ids = [*range(BUCKET_ROWS - 3), *[BUCKET_ROWS] * 7, *range(BUCKET_ROWS + 1, 2 * BUCKET_ROWS)]
    ledger = build_ledger(make_rows(ids))

    holders = [position for position, bucket in enumerate(ledger.buckets) if BUCKET_ROWS in bucket.ids]
    assert len(holders) == 1


def test_a_bucket_that_grew_too_large_is_cut_and_sealed() -> None:
    ledger = build_ledger(make_rows(range(BUCKET_ROWS)))

    grown = ledger.replace({0: make_rows(range(SPLIT_ABOVE + 1))}, compared={0: 5.0})

    assert len(grown.buckets) > 1
    assert grown.rows == SPLIT_ABOVE + 1
    assert not grown.find_broken()
    assert set(grown.compared) == {5.0}


def test_an_unchanged_bucket_keeps_its_object_and_its_seal() -> None:
    ledger = build_ledger(make_rows(range(3 * BUCKET_ROWS)))

    other = ledger.replace({1: make_rows(range(BUCKET_ROWS, BUCKET_ROWS + 5))}, compared={1: 1.0})

    assert other.buckets[0] is ledger.buckets[0]
    assert other.buckets[2] is ledger.buckets[2]
    assert (other.seals[0], other.seals[2]) == (ledger.seals[0], ledger.seals[2])
    assert ledger.rows == 3 * BUCKET_ROWS, "the old ledger is what it was"


def test_a_saved_ledger_is_read_back_as_it_was() -> None:
    ledger = build_ledger(make_rows(range(0, 30_000, 2)))

    again = parse_ledger(ledger.to_arrays())

    assert same_rows(ledger, again)
    assert again.root == ledger.root
    assert not again.find_broken()


@given(st.data())
def test_any_flipped_bit_breaks_the_seal_of_its_bucket(data: st.DataObject) -> None:
    ledger = build_ledger(make_rows(range(2 * BUCKET_ROWS)))
    position = data.draw(st.integers(0, 1))
    name = data.draw(st.sampled_from(["ids", "stamps", "digests", "codes", "quarantine"]))
    array = getattr(ledger.buckets[position], name)
    raw = array.view(np.uint8).reshape(-1)
    bit = data.draw(st.integers(0, raw.size * 8 - 1))

    raw[bit // 8] ^= np.uint8(1 << (bit % 8))

    assert ledger.find_broken() == {position}


def test_rows_lost_or_added_without_a_new_seal_break_it() -> None:
    arrays = build_ledger(make_rows(range(3 * BUCKET_ROWS))).to_arrays()
    kept = np.arange(3 * BUCKET_ROWS) != 5000
    lost = {name: array if name in ("bounds", "seals") else array[kept] for name, array in arrays.items()}

    assert parse_ledger(lost).find_broken() == {1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ids", np.array([3, 1, 2], np.int64)),
        ("ids", np.array([1, 2], np.int64)),
        ("ids", np.array([1, 2, 3], np.int32)),
        ("digests", np.zeros((3, 3), np.uint64)),
        ("quarantine", np.array([0, 0, 99], np.uint8)),
        ("bounds", np.array([5, 5], np.int64)),
        ("seals", np.zeros((1, 2), np.uint64)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: np.ndarray) -> None:
    arrays = build_ledger(make_rows(range(3))).to_arrays()

    with pytest.raises(ValueError, match=r"ledger|array"):
        parse_ledger({**arrays, name: value})


def test_a_missing_array_is_refused() -> None:
    arrays = build_ledger(make_rows(range(3))).to_arrays()
    del arrays["stamps"]

    with pytest.raises(ValueError, match="stamps"):
        parse_ledger(arrays)


def test_quarantined_rows_count_but_are_not_indexed() -> None:
    rows = make_rows(range(5))
    rows.quarantine[2] = 3
    ledger = build_ledger(Bucket(rows.ids, rows.stamps, rows.digests, rows.codes, rows.quarantine))

    ids, _ = ledger.entries()
    assert ids.tolist() == [0, 1, 3, 4]
    assert ledger.rows == 5
    assert {str(reason): count for reason, count in ledger.count_quarantine().items()} == {"NotFinite": 1}
