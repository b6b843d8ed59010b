"""Ids in arrays keep their value and their order, whatever they are."""

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorindex_indexer.keys import (
    LONGEST_ID_BYTES,
    IdKind,
    among,
    join_ids,
    narrow_ids,
    no_ids,
    pack_ids,
    parse_ids,
    shorten_id,
    to_json,
    to_texts,
    unpack_ids,
    value_at,
)

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1))
UUIDS = st.lists(st.one_of(st.uuids().map(str), st.integers(0, 255).map(lambda first: str(uuid.UUID(int=first << 120)))))
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
ANY = st.one_of(
    INTEGERS.map(lambda values: (IdKind.INTEGER, values)),
    UUIDS.map(lambda values: (IdKind.UUID, values)),
    TEXTS.map(lambda values: (IdKind.TEXT, values)),
)


def to_bytes(value: object, kind: IdKind) -> int | bytes:
    """Return what Postgres compares."""
    if isinstance(value, int):
        return value
    return uuid.UUID(str(value)).bytes if kind is IdKind.UUID else str(value).encode()


@given(ANY)
def test_ids_come_back_as_they_went_in(case: tuple[IdKind, list[object]]) -> None:
    kind, values = case
    ids = parse_ids(values, kind)
    assert to_json(ids, kind) == values
    assert to_texts(ids, kind) == [str(value) for value in values]
    assert [value_at(ids, position, kind) for position in range(ids.size)] == [to_bytes(value, kind) for value in values]


@given(ANY)
def test_ids_sort_as_in_postgres(case: tuple[IdKind, list[object]]) -> None:
    kind, values = case
    ids = np.sort(parse_ids(values, kind))
    assert [value_at(ids, at, kind) for at in range(ids.size)] == sorted(to_bytes(value, kind) for value in values)


@given(ANY)
def test_saved_ids_are_the_same_ids(case: tuple[IdKind, list[object]]) -> None:
    kind, values = case
    ids = parse_ids(values, kind)
    back = unpack_ids(pack_ids(ids, kind, "ids"), kind, "ids")
    assert back.dtype.kind == ids.dtype.kind
    assert to_json(back, kind) == values


@given(ANY, st.data())
def test_membership_is_that_of_sets(case: tuple[IdKind, list[object]], data: st.DataObject) -> None:
    kind, values = case
    wanted = data.draw(st.lists(st.sampled_from(values))) if values else []
    found = among(parse_ids(values, kind), parse_ids(wanted, kind))
    assert found.tolist() == [value in wanted for value in values]


@pytest.mark.parametrize("kind", list(IdKind))
def test_nothing_joined_is_nothing_of_that_kind(kind: IdKind) -> None:
    assert join_ids([no_ids(IdKind.INTEGER), no_ids(IdKind.TEXT)], kind).dtype == no_ids(kind).dtype


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", IdKind.INTEGER), (True, IdKind.INTEGER), (2**63, IdKind.INTEGER), ("no", IdKind.UUID), (1, IdKind.TEXT), ("a\0b", IdKind.TEXT)],
)
def test_what_is_no_id_is_named(value: object, kind: IdKind) -> None:
    with pytest.raises(ValueError, match=r"expected an id of type"):
        parse_ids([value], kind)


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        ({}, IdKind.INTEGER),
        ({"ids": np.zeros(3, np.uint8)}, IdKind.INTEGER),
        ({"ids": np.zeros(15, np.uint8)}, IdKind.UUID),
        ({"ids": np.ones(3, np.uint8), "idssizes": np.array([1, 1])}, IdKind.TEXT),
        ({"ids": np.ones(3, np.uint8), "idssizes": np.array([4, -1])}, IdKind.TEXT),
        ({"ids": np.zeros(1, np.uint8), "idssizes": np.array([1])}, IdKind.TEXT),
        ({"ids": np.ones(3, np.uint8)}, IdKind.TEXT),
    ],
)
def test_arrays_that_are_no_saved_ids_are_refused(arrays: dict[str, np.ndarray], kind: IdKind) -> None:
    with pytest.raises(ValueError, match="ids"):
        unpack_ids(arrays, kind, "ids")


LONG_TEXTS = st.text(st.sampled_from("aä東😀"), min_size=250, max_size=270) | st.text(max_size=20)


@given(LONG_TEXTS, LONG_TEXTS)
def test_a_shortened_text_sorts_among_others_where_the_whole_one_does(one: str, other: str) -> None:
    one, other = one.replace("\0", ""), other.replace("\0", "")
    long, bound = one.encode(), shorten_id(other.encode())

    short = shorten_id(long)

    assert (short >= bound) == (long >= bound)
    assert (short == long) == (len(long) <= LONGEST_ID_BYTES or len(one) <= LONGEST_ID_BYTES + 1)
    assert (len(short) > LONGEST_ID_BYTES) == (len(long) > LONGEST_ID_BYTES)
    assert long.startswith(short)


def test_one_long_text_widens_no_other_array() -> None:
    wide = np.array([b"a", b"x" * 300, b"bc"])

    assert narrow_ids(wide[:1], IdKind.TEXT).dtype == "S1"
    assert join_ids([wide[:1], wide[2:]], IdKind.TEXT).dtype == "S2"
    assert join_ids([wide, wide[:1]], IdKind.TEXT).tolist() == [b"a", b"x" * 300, b"bc", b"a"]
    assert narrow_ids(np.zeros(2, "S16"), IdKind.UUID).dtype == "S16"
