"""Digests: known values made by hand, and what no single fault may leave unchanged."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorindex_indexer.digest import EMPTY, NULL_MARKER, Digest, row_digest, row_digests, sum_digests

IDS = st.integers(-(2**63), 2**63 - 1)


def by_hand(key: int, vector: bytes) -> tuple[int, int]:
    digest = hashlib.sha256(struct.pack(">q", key) + vector).digest()
    return struct.unpack(">QQ", digest[:16])


def digests_of(ids: list[int], vectors: list[bytes]) -> np.ndarray:
    wire = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(ids), -1).copy()
    keys = np.array(ids, ">i8").view(np.uint8).reshape(len(ids), 8)
    return row_digests(keys, wire)


def test_a_known_row_has_its_known_digest() -> None:
    # printf '\0\0\0\0\0\0\0\1\0\0\200\077' | sha256sum
    expected = (0xF6EE120B47A5FD56, 0x69917DC354CAE383)
    assert row_digest(struct.pack(">q", 1), struct.pack("<f", 1.0)) == expected


@given(ids=st.lists(IDS, min_size=1, max_size=8), data=st.data())
def test_arrays_give_the_same_digests_as_single_rows(ids: list[int], data: st.DataObject) -> None:
    vectors = [data.draw(st.binary(min_size=12, max_size=12)) for _ in ids]

    digests = digests_of(ids, vectors)

    assert [tuple(map(int, row)) for row in digests] == [by_hand(key, vector) for key, vector in zip(ids, vectors, strict=True)]


@given(key=IDS, vector=st.binary(min_size=16, max_size=16), bit=st.integers(0, 64 + 128 - 1))
def test_any_flipped_bit_of_id_or_vector_changes_the_row_and_its_set(key: int, vector: bytes, bit: int) -> None:
    raw = bytearray(struct.pack(">q", key) + vector)
    raw[bit // 8] ^= 1 << (bit % 8)
    other_key, other_vector = struct.unpack(">q", raw[:8])[0], bytes(raw[8:])
    neighbour = digests_of([7], [b"x" * 16])

    before, after = digests_of([key], [vector]), digests_of([other_key], [other_vector])

    assert tuple(before[0]) != tuple(after[0])
    assert sum_digests(np.concatenate([before, neighbour])) != sum_digests(np.concatenate([after, neighbour]))


def test_a_row_that_is_there_twice_does_not_cancel_itself() -> None:
    row = digests_of([1], [b"abcd"])

    assert sum_digests(np.concatenate([row, row])) != EMPTY
    assert sum_digests(np.concatenate([row, row])) != sum_digests(row)


def test_swapped_vectors_change_the_sum() -> None:
    assert sum_digests(digests_of([1, 2], [b"aaaa", b"bbbb"])) != sum_digests(digests_of([1, 2], [b"bbbb", b"aaaa"]))


def test_the_order_of_rows_does_not_matter() -> None:
    assert sum_digests(digests_of([1, 2], [b"aaaa", b"bbbb"])) == sum_digests(digests_of([2, 1], [b"bbbb", b"aaaa"]))


def test_a_null_vector_digests_as_a_marker_that_no_vector_has() -> None:
    assert len(NULL_MARKER) % 4
    assert row_digest(struct.pack(">q", 1), None) == by_hand(1, NULL_MARKER)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=6))
def test_sums_fold_as_python_does(rows: list[tuple[int, int]]) -> None:
    array = np.array(rows, np.uint64).reshape(len(rows), 2)

    assert sum_digests(array) == Digest(len(rows), sum(high for high, _ in rows) % 2**64, sum(low for _, low in rows) % 2**64)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_signed_sums_of_postgres_fold_to_the_same(rows: list[tuple[int, int]]) -> None:
    unsigned = np.array([(high % 2**64, low % 2**64) for high, low in rows], np.uint64).reshape(len(rows), 2)

    assert Digest.of_sums(len(rows), sum(high for high, _ in rows), sum(low for _, low in rows)) == sum_digests(unsigned)


def test_adding_and_leaving_out_are_inverse() -> None:
    whole, part = Digest(3, 5, 2**64 - 1), Digest(1, 9, 2)

    assert whole - part + part == whole


def test_the_published_form_is_read_back() -> None:
    digest = Digest(9500, 0x0123456789ABCDEF, 1)

    assert str(digest) == "9500:0123456789abcdef-0000000000000001"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize("text", ["", "1:2-3", "x:0123456789abcdef-0123456789abcdef", "1:0123456789ABCDEF-0123456789abcdef"])
def test_other_texts_are_no_digests(text: str) -> None:
    with pytest.raises(ValueError, match="expected a digest"):
        Digest.parse(text)
