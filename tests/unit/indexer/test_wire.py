import itertools
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorindex_indexer.config import Metric
from vectorindex_indexer.digest import key_bytes, row_digest
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.keys import IdKind, shorten_id
from vectorindex_indexer.rows import QUARANTINE, Rows
from vectorindex_indexer.vectors import Vectors, VectorType
from vectorindex_indexer.wire import RowParser, parse_heads

DIMENSION = 3
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
SIGNALLING_NAN = b"\x01\x00\x80\x7f"

Given = tuple[int, bytes | None]


def field(content: bytes | None) -> bytes:
    return struct.pack(">i", -1) if content is None else struct.pack(">i", len(content)) + content


def row(row_id: int, vector: bytes | None, stamp: int = 7) -> bytes:
    return struct.pack(">h", 3) + field(key_bytes(row_id)) + field(struct.pack(">Q", stamp)) + field(vector)


def stored(*elements: float) -> bytes:
    return np.array(elements, "<f4").tobytes()


def cut(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


def parse(rows: list[Given], *, chunk_rows: int = 100, block: int = 0, metric: Metric = Metric.COSINE, kind: str = "bytea") -> list[Rows]:
    stream = HEADER + b"".join(row(row_id, vector) for row_id, vector in rows) + TRAILER
    parser = RowParser(Vectors(VectorType(kind), "public", DIMENSION), metric)
    return list(parser.parse(cut(stream, block or len(stream)), chunk_rows))


def reasons(rows: Rows) -> list[str]:
    return ["" if code == 0 else QUARANTINE[code - 1].value for code in rows.quarantine]


@pytest.mark.parametrize(
    ("vector", "cosine", "inner_product"),
    [
        (stored(1, 2, 3), "", ""),
        (None, "NullVector", "NullVector"),
        (stored(1, 2), "WrongDimension", "WrongDimension"),
        (b"", "WrongDimension", "WrongDimension"),
        (stored(1, np.nan, 3), "NotFinite", "NotFinite"),
        (stored(1, -np.inf, 3), "NotFinite", "NotFinite"),
        (SIGNALLING_NAN * 3, "NotFinite", "NotFinite"),
        (stored(0, -0.0, 0), "ZeroVector", ""),
        (stored(1e-45, 0, 0), "", ""),
    ],
)
def test_each_bad_vector_has_its_reason_and_is_blanked(vector: bytes | None, cosine: str, inner_product: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric, expected in ((Metric.COSINE, cosine), (Metric.INNER_PRODUCT, inner_product)):
            rows = Rows.concatenate(parse([(1, stored(1, 0, 0)), (2, vector), (3, stored(0, 1, 0))], metric=metric), DIMENSION)
            assert reasons(rows) == ["", expected, ""]
            assert tuple(rows.digests[1]) == row_digest(key_bytes(2), vector)
            if expected:
                assert not rows.vectors[1].any()


def test_a_text_id_that_is_too_long_is_kept_out_and_counted() -> None:
    ids = ["a" * 255, "a" * 256 + "c", "b" * 256, "é" * 128, "é" * 128 + "e"]
    content = b"".join(struct.pack(">h", 3) + field(key.encode()) + field(bytes(8)) + field(stored(1, 2, 3)) for key in ids)
    parser = RowParser(Vectors(VectorType.BYTEA, "public", DIMENSION), Metric.COSINE, IdKind.TEXT)
    rows = Rows.concatenate(list(parser.parse([HEADER + content + TRAILER], 100)), DIMENSION, IdKind.TEXT)
    assert reasons(rows) == ["", "IdTooLong", "", "", "IdTooLong"]
    assert not rows.vectors[rows.quarantine > 0].any()


def test_pgvector_is_read_big_endian_behind_its_header() -> None:
    good = struct.pack(">hh3f", 3, 0, 1, 2, 3)
    others = [struct.pack(">hh3f", 4, 0, 1, 2, 3), struct.pack(">hh2f", 2, 0, 1, 2)]
    rows = Rows.concatenate(parse([(1, good), (2, others[0]), (3, others[1])], kind="vector"), DIMENSION)
    assert rows.vectors[0].tolist() == [1, 2, 3]
    assert reasons(rows) == ["", "WrongDimension", "WrongDimension"]


vectors = st.one_of(st.none(), st.binary(max_size=16), st.binary(min_size=12, max_size=12))


@given(st.lists(st.tuples(st.integers(-5, 5), vectors), max_size=25), st.integers(1, 6), st.integers(1, 90))
def test_however_a_stream_is_cut_the_same_rows_come_out(given_rows: list[Given], chunk_rows: int, block: int) -> None:
    ordered = sorted(given_rows, key=lambda pair: pair[0])
    pieces = parse(ordered, chunk_rows=chunk_rows, block=block)
    rows = Rows.concatenate(pieces, DIMENSION)
    whole = Rows.concatenate(parse(ordered), DIMENSION)
    for name in ("ids", "stamps", "digests", "vectors", "quarantine"):
        assert getattr(rows, name).tobytes() == getattr(whole, name).tobytes(), name
    assert rows.ids.tolist() == [row_id for row_id, _ in ordered]
    expected = sorted((row_id, *row_digest(key_bytes(row_id), vector)) for row_id, vector in ordered)
    assert [(i, int(h), int(low)) for i, (h, low) in zip(rows.ids.tolist(), rows.digests, strict=True)] == expected
    for before, after in itertools.pairwise(pieces):
        assert before.ids[-1] < after.ids[0]
    for row_id, code in zip(rows.ids.tolist(), rows.quarantine, strict=True):
        assert code or rows.ids.tolist().count(row_id) == 1


def test_all_rows_of_an_id_that_occurs_twice_are_kept_out_across_pieces() -> None:
    given_rows: list[Given] = [(1, stored(1, 0, 0)), (2, stored(1, 1, 0)), (2, stored(1, 2, 0)), (2, None), (3, stored(1, 3, 0))]
    rows = Rows.concatenate(parse(given_rows, chunk_rows=1, block=40), DIMENSION)
    assert sorted(reasons(rows)[1:4]) == ["DuplicateId", "DuplicateId", "NullVector"]
    assert reasons(rows)[0] == reasons(rows)[4] == ""


def test_no_row_is_no_piece() -> None:
    assert parse([]) == []


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        HEADER,
        b"NOT A COPY" + HEADER + TRAILER,
        HEADER + row(1, stored(1, 2, 3)),
        HEADER + row(1, stored(1, 2, 3))[:-1],
        HEADER + row(1, stored(1, 2, 3))[:-1] + TRAILER,
        HEADER + row(2, stored(1, 2, 3)) + row(1, stored(1, 2, 3)) + TRAILER,
        HEADER + struct.pack(">h", 2) + row(1, stored(1, 2, 3))[2:] + TRAILER,
        HEADER + struct.pack(">h", 3) + field(b"1234") + field(bytes(8)) + field(None) + TRAILER,
    ],
)
def test_a_stream_that_is_cut_or_of_another_form_is_refused(stream: bytes) -> None:
    parser = RowParser(Vectors(VectorType.BYTEA, "pg_catalog", DIMENSION), Metric.COSINE)
    with pytest.raises(SourceError):
        list(parser.parse([stream], 100))


def test_heads_are_refused_when_they_end_early() -> None:
    one = struct.pack(">h", 3) + field(key_bytes(-4)) + field(struct.pack(">Q", 9)) + field(bytes(range(16)))
    heads = parse_heads([HEADER + one, TRAILER], IdKind.INTEGER)
    assert heads.ids.tolist() == [-4]
    assert heads.stamps.tolist() == [9]
    assert heads.digests.tolist() == [[0x0001020304050607, 0x08090A0B0C0D0E0F]]
    with pytest.raises(SourceError):
        parse_heads([HEADER + one], IdKind.INTEGER)


# --- ids of other kinds

KINDS = [IdKind.INTEGER, IdKind.UUID, IdKind.TEXT]
WIRE_IDS = {
    IdKind.INTEGER: st.integers(-3, 3).map(key_bytes),
    IdKind.UUID: st.sampled_from([bytes(16), b"\x01" + bytes(15), bytes(15) + b"\x01", b"\xff" * 16]),
    IdKind.TEXT: st.sampled_from(["", "a", "b", "ab", "ä", "x" * 256, "x" * 257, "x" * 300, "ä" * 200]).map(str.encode),
}


def wire_row(row_id: bytes, vector: bytes | None) -> bytes:
    return struct.pack(">h", 3) + field(row_id) + field(struct.pack(">Q", 7)) + field(vector)


def parse_kind(kind: IdKind, blocks: Iterator[bytes] | list[bytes], **options: Any) -> Rows:
    parser = RowParser(Vectors(VectorType.BYTEA, "pg_catalog", DIMENSION), Metric.COSINE, kind)
    return Rows.concatenate(parser.parse(blocks, 3, **options), DIMENSION, kind)


def digest_of(kind: IdKind, row_id: bytes, vector: bytes | None) -> tuple[int, int]:
    return row_digest(len(row_id).to_bytes(4, "big") + row_id if kind is IdKind.TEXT else row_id, vector)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(st.data())
def test_ids_of_every_kind_come_out_however_the_stream_is_cut(kind: IdKind, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.tuples(WIRE_IDS[kind], vectors), max_size=20))
    key = (lambda pair: int.from_bytes(pair[0], "big", signed=True)) if kind is IdKind.INTEGER else (lambda pair: pair[0])
    rows = sorted(drawn, key=key)
    pieces = [wire_row(*each) for each in rows]
    stream = HEADER + b"".join(pieces) + TRAILER
    size = data.draw(st.integers(1, 400))

    by_rows = parse_kind(kind, [HEADER + pieces[0], *pieces[1:], TRAILER] if pieces else [HEADER, TRAILER])
    cut_anywhere = parse_kind(kind, cut(stream, size))

    for name in ("ids", "stamps", "digests", "vectors", "quarantine"):
        assert getattr(by_rows, name).tobytes() == getattr(cut_anywhere, name).tobytes(), name
    assert sorted(map(tuple, by_rows.digests.tolist())) == sorted(digest_of(kind, *each) for each in rows)
    if kind is IdKind.UUID:
        assert by_rows.ids.dtype == "S16"
    if kind is IdKind.TEXT:
        assert by_rows.ids.tolist() == [shorten_id(row_id) for row_id, _ in rows]
        too_long = [len(row_id) > 256 for row_id, _ in rows]
        assert [QUARANTINE[code - 1] == "IdTooLong" if code else False for code in by_rows.quarantine] == too_long


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_rows_in_any_order_are_told_double_by_who_knows(kind: IdKind, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(WIRE_IDS[kind], st.binary(min_size=12, max_size=12)), max_size=20))
    blocks = [HEADER, *(wire_row(*each) for each in rows), TRAILER]
    heads = parse_heads([HEADER, *(wire_row(each[0], bytes(16)) for each in rows), TRAILER], kind)
    unique, counts = np.unique(heads.ids, return_counts=True)

    parsed = parse_kind(kind, blocks, repeated=unique[counts > 1])

    doubles = {QUARANTINE.index(reason) + 1 for reason in QUARANTINE if reason != "DuplicateId"} | {0}
    once = np.isin(parsed.ids, unique[counts == 1]) if parsed.ids.size else np.zeros(0, bool)
    assert len(parsed) == len(rows)
    assert set(parsed.quarantine[once].tolist()) <= doubles
    assert np.all(parsed.quarantine[~once] > 0)


def test_digests_can_be_left_out() -> None:
    rows = [(key_bytes(1), stored(1, 2, 3)), (key_bytes(2), None), (key_bytes(3), stored(0, 0, 0))]
    blocks = [HEADER, *(wire_row(*each) for each in rows), TRAILER]

    with_digests, without = parse_kind(IdKind.INTEGER, blocks), parse_kind(IdKind.INTEGER, blocks, digests=False)

    assert with_digests.digests.all()
    assert not without.digests.any()
    for name in ("ids", "stamps", "vectors", "quarantine"):
        np.testing.assert_array_equal(getattr(with_digests, name), getattr(without, name))


def test_a_uuid_of_another_size_is_refused() -> None:
    with pytest.raises(SourceError):
        parse_kind(IdKind.UUID, [HEADER, wire_row(bytes(15), stored(1, 2, 3)), TRAILER])
