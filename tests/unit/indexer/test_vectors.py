"""The wire forms of vectors: known bytes made by hand, and everything that is not well-formed."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorindex_indexer.vectors import Vectors, VectorType

TYPES = list(VectorType)
FLOATS = st.floats(width=16, allow_nan=False)


def encode(kind: VectorType, *elements: float) -> bytes:
    count = len(elements)
    if kind is VectorType.BYTEA:
        return struct.pack(f"<{count}f", *elements)
    if kind is VectorType.FLOAT4_ARRAY:
        return struct.pack(">5i", 1, 0, 700, count, 1) + b"".join(struct.pack(">if", 4, element) for element in elements)
    return struct.pack(">hh", count, 0) + struct.pack(f">{count}{'e' if kind is VectorType.HALFVEC else 'f'}", *elements)


def to_wire(*vectors: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), -1)


@pytest.mark.parametrize("kind", TYPES)
@given(st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_what_was_sent_comes_out(kind: VectorType, sent: list[list[float]]) -> None:
    vectors = Vectors(kind, "public", 3)
    wire = to_wire(*(encode(kind, *elements) for elements in sent))

    decoded = vectors.decode(wire)

    assert wire.shape[1] == vectors.wire_bytes
    assert decoded.dtype == np.float32
    assert decoded.flags.c_contiguous
    assert decoded.flags.owndata or decoded.base is not None
    assert not np.shares_memory(decoded, wire)  # which is written over when the next rows come
    np.testing.assert_array_equal(decoded, np.array(sent, np.float32))
    assert not vectors.is_other_form(wire).any()


ARRAY = encode(VectorType.FLOAT4_ARRAY, 1, 2, 3)


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (VectorType.VECTOR, struct.pack(">hh3f", 4, 0, 1, 2, 3)),
        (VectorType.VECTOR, struct.pack(">hh3f", 3, 1, 1, 2, 3)),
        (VectorType.HALFVEC, struct.pack(">hh3e", 2, 0, 1, 2, 3)),
        (VectorType.FLOAT4_ARRAY, struct.pack(">i", 2) + ARRAY[4:]),  # two dimensions
        (VectorType.FLOAT4_ARRAY, ARRAY[:8] + struct.pack(">i", 701) + ARRAY[12:]),  # other elements
        (VectorType.FLOAT4_ARRAY, ARRAY[:16] + struct.pack(">i", 0) + ARRAY[20:]),  # starts at 0
        (VectorType.FLOAT4_ARRAY, ARRAY[:28] + struct.pack(">i", 8) + ARRAY[32:]),  # an element of another size
    ],
)
def test_what_says_that_it_is_another_thing_is_seen(kind: VectorType, wire: bytes) -> None:
    good = encode(kind, 1, 2, 3)

    assert Vectors(kind, "public", 3).is_other_form(to_wire(good, wire, good)).tolist() == [False, True, False]


def test_null_elements_are_told_from_another_dimension() -> None:
    vectors = Vectors(VectorType.FLOAT4_ARRAY, "pg_catalog", 3)
    with_null = struct.pack(">5i", 1, 1, 700, 3, 1) + struct.pack(">if", 4, 1) + struct.pack(">i", -1) + struct.pack(">if", 4, 3)
    longer = struct.pack(">5i", 1, 1, 700, 4, 1) + struct.pack(">if", 4, 1) + struct.pack(">3i", -1, -1, -1)
    lower = struct.pack(">5i", 1, 1, 700, 3, 0) + struct.pack(">3i", -1, -1, -1)

    assert vectors.has_null_elements(with_null)
    assert not any(map(vectors.has_null_elements, (longer, lower, b"", ARRAY)))


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        (VectorType.BYTEA, 8, "2"),
        (VectorType.BYTEA, 9, "9 bytes, which is no whole number of float32 elements"),
        (VectorType.VECTOR, 12, "2"),
        (VectorType.HALFVEC, 12, "4"),
        (VectorType.FLOAT4_ARRAY, 36, "2"),
    ],
)
def test_a_size_is_said_in_elements(kind: VectorType, size: int, said: str) -> None:
    assert Vectors(kind, "public", 3).dimension_of(size) == said
