"""Every kind of id and vector, read from a real Postgres: both sides compute the same digests, and what is bad is told and kept out."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.postgres import Database
from tests.support.replica import make_source, write_settings
from tests.support.tables import ID_TYPES, VECTOR_TYPES, Form, Rule, Table, make_table
from vectorindex_indexer.digest import key_bytes, row_digest, sum_digests
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.keys import IdKind, parse_ids, to_json, value_at
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.rows import QUARANTINE, Range, Rows
from vectorindex_indexer.source import Source, Unit

EVERYTHING = Range(None, None)
DIMENSION = 3
FORMS = [
    Form(id_type, vector_type, rule, has_model=(place + turn) % 2 == 0)
    for place, (id_type, vector_type) in enumerate(itertools.product(ID_TYPES, VECTOR_TYPES))
    for turn, rule in enumerate(list(Rule)[place % 5 : place % 5 + 1])
]


def source_of(table: Table, folder: Path, **index: Any) -> Source:
    return make_source(write_settings(folder, table.manifest(**index), table.database.create_reader()))


def read_all(unit: Unit, dimension: int, chunk_rows: int = 7) -> Rows:
    rows = Rows.concatenate(list(unit.stream(EVERYTHING, chunk_rows)), dimension, unit.id_kind)
    return rows if unit.id_index else rows.take(np.lexsort((rows.digests[:, 1], rows.digests[:, 0], rows.ids)))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_exactly_the_live_rows_are_read_in_order_and_every_way_of_asking_agrees(database: Database, tmp_path: Path, form: Form) -> None:
    table = make_table(database, form, rows=60)
    expected = table.live
    with source_of(table, tmp_path).unit(seconds=30.0) as unit:
        rows = read_all(unit, form.dimension)
        heads = unit.heads(EVERYTHING)
        bounds = rows.ids[[10, 20, 30]]
        values = [None, *(value_at(bounds, place, unit.id_kind) for place in range(3)), None]
        ranges = [Range(low, high) for low, high in itertools.pairwise(values)]
        totals = unit.totals(bounds, EVERYTHING)
        inner = unit.totals(bounds[1:2], Range(values[1], values[3]))
        digests = unit.digests(ranges)
        some = unit.digests([ranges[0], ranges[2]])
        without = unit.digest_without(ranges[1], value_at(rows.ids, 12, unit.id_kind))
        chosen = unit.rows(rows.ids[[50, 1, 9]] if len(rows) > 50 else rows.ids[[40, 1, 9]])
        first, is_last = unit.next_range(None, 10)
        last = unit.next_range(values[3], 1000)
        sample = unit.sample_ids(20)

    assert to_json(rows.ids, unit.id_kind) == [row.key for row in expected]
    np.testing.assert_array_equal(rows.vectors, np.array([row.vector for row in expected]))
    assert not rows.quarantine.any()
    for name in ("ids", "stamps", "digests"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(heads, name))
    assert totals.counts.tolist() == [10, 10, 10, len(rows) - 30]
    assert inner.counts.tolist() == [10, 10]
    assert totals.stamps is not None
    borders = [0, 10, 20, 30, len(rows)]
    for place, (start, end) in enumerate(itertools.pairwise(borders)):
        assert totals.stamps[place] == np.add.reduce(rows.stamps[start:end], dtype=np.uint64)
        assert digests[place] == sum_digests(rows.digests[start:end])
    assert some == [digests[0], digests[2]]
    assert digests[1] - without == sum_digests(rows.digests[12:13])
    assert len(chosen) == 3
    assert set(map(tuple, chosen.digests.tolist())) <= set(map(tuple, rows.digests.tolist()))
    assert (first, is_last) == (ranges[0], False)
    assert last == (Range(values[3], None), True)
    assert len(np.unique(sample)) == 20
    assert np.isin(sample, rows.ids).all()


# --- digests


def ids_of(id_type: str) -> st.SearchStrategy[Any]:
    bits = {"bigint": 63, "integer": 31, "smallint": 15}.get(id_type)
    if bits is not None:
        return st.integers(-(2**bits), 2**bits - 1)
    if id_type == "uuid":
        return st.uuids().map(str) | st.sampled_from(["00000000-0000-0000-0000-000000000000", "10000000-0000-0000-0000-000000000000"])
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL_FLOATS = st.floats(width=16, allow_nan=False, allow_infinity=False)
ARRAYS = st.lists(st.none() | st.floats(width=32), max_size=5)
VECTORS: dict[str, st.SearchStrategy[Any]] = {
    "bytea": st.binary(max_size=16) | st.binary(min_size=12, max_size=12),
    "vector": st.lists(FLOATS, min_size=DIMENSION, max_size=DIMENSION) | st.lists(FLOATS, min_size=1, max_size=5),
    "halfvec": st.lists(SMALL_FLOATS, min_size=DIMENSION, max_size=DIMENSION) | st.lists(SMALL_FLOATS, min_size=1, max_size=5),
    "float4[]": ARRAYS | st.lists(FLOATS, min_size=DIMENSION, max_size=DIMENSION),
}


@pytest.mark.parametrize(("id_type", "vector_type"), list(itertools.product(ID_TYPES, VECTOR_TYPES)))
def test_postgres_and_python_compute_the_same_digests_of_whatever_a_column_can_hold(
    database: Database, tmp_path: Path, id_type: str, vector_type: str
) -> None:
    form = Form(id_type, vector_type, Rule.NONE, has_model=False, dimension=DIMENSION, is_indexed=id_type != "text")
    table = make_table(database, form, rows=0)
    if vector_type in _ANY_DIMENSION:
        table.execute(_ANY_DIMENSION[vector_type])
    source = source_of(table, tmp_path)
    insert = INSERT[vector_type]
    connection = database.admin_connect(autocommit=False)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(ids_of(id_type), st.none() | VECTORS[vector_type]), max_size=12), ids_of(id_type))
    def check(drawn: list[tuple[Any, Any]], another: Any) -> None:
        # One row of the right width, now and then a second one of its id: a table of which all rows have another is refused as a whole.
        stored = [*drawn, (drawn[0][0] if drawn else another, [1.0, 2.0, 3.0])]
        connection.execute('TRUNCATE "Documents"')
        connection.cursor().executemany(insert, [(key, pack(vector, vector_type)) for key, vector in stored])
        connection.commit()
        with source.unit(seconds=30.0) as unit:
            rows = read_all(unit, DIMENSION, chunk_rows=5)
            heads = unit.heads(EVERYTHING)
            (whole,) = unit.digests([EVERYTHING])

        np.testing.assert_array_equal(rows.ids, heads.ids)
        np.testing.assert_array_equal(rows.digests, heads.digests)
        assert whole == sum_digests(rows.digests)
        if vector_type == "bytea":  # a third opinion, from what was stored
            expected = [row_digest(key_of(key, unit.id_kind), pack(vector, vector_type)) for key, vector in stored]
            assert sorted(map(tuple, rows.digests.tolist())) == sorted(expected)
        counts = Counter(key for key, _ in stored)
        keys = to_json(rows.ids, unit.id_kind)
        assert all(code or counts[key] == 1 for key, code in zip(keys, rows.quarantine.tolist(), strict=True))

    check()
    connection.close()


_ANY_DIMENSION: dict[str, LiteralString] = {
    "vector": "ALTER TABLE {table} ALTER {vector} TYPE vector",
    "halfvec": "ALTER TABLE {table} ALTER {vector} TYPE halfvec",
}
INSERT: dict[str, LiteralString] = {
    "bytea": """INSERT INTO "Documents" VALUES (%s, %s)""",
    "vector": """INSERT INTO "Documents" VALUES (%s, %s::text::vector)""",
    "halfvec": """INSERT INTO "Documents" VALUES (%s, %s::text::halfvec)""",
    "float4[]": """INSERT INTO "Documents" VALUES (%s, %s::text::float4[])""",
}


def key_of(key: Any, kind: IdKind) -> bytes:
    return key_bytes(value_at(parse_ids([key], kind), 0, kind), kind)


def pack(vector: Any, vector_type: str) -> Any:
    if vector is None or isinstance(vector, bytes):
        return vector
    if vector_type == "bytea":
        return np.array(vector, "<f4").tobytes()
    if vector_type == "float4[]":
        return "{" + ",".join("NULL" if element is None else repr(element) for element in vector) + "}"
    return "[" + ",".join(map(repr, vector)) + "]"


# --- quarantine

BAD: dict[str, list[tuple[LiteralString, str]]] = {
    "bytea": [
        ("NULL", "NullVector"),
        (r"'\\x'", "WrongDimension"),
        (r"decode(repeat('00', 11), 'hex')", "WrongDimension"),
        (r"decode('0000c07f0000000000000000', 'hex')", "NotFinite"),
        (r"decode('0000807f0000000000000000', 'hex')", "NotFinite"),
        (r"decode(repeat('00', 12), 'hex')", "ZeroVector"),
    ],
    "vector": [("NULL", "NullVector"), ("'[1,2]'", "WrongDimension"), ("'[0,0,-0]'", "ZeroVector")],
    "halfvec": [("NULL", "NullVector"), ("'[1,2]'", "WrongDimension"), ("'[0,0,-0]'", "ZeroVector")],
    "float4[]": [
        ("NULL", "NullVector"),
        ("'{}'", "WrongDimension"),
        ("'{1,2}'", "WrongDimension"),
        ("'[0:2]={1,2,3}'", "WrongDimension"),
        ("'{{1,2,3}}'", "WrongDimension"),
        ("'{{1},{2},{3}}'", "WrongDimension"),
        ("'{1,NULL,3}'", "NotFinite"),
        ("'{NULL,NULL,NULL}'", "NotFinite"),
        ("'{1,NULL,3,4}'", "WrongDimension"),
        ("'{1,NaN,3}'", "NotFinite"),
        ("'{1,-Infinity,3}'", "NotFinite"),
        ("'{0,0,0}'", "ZeroVector"),
    ],
}


def reasons(rows: Rows, kind: IdKind) -> dict[Any, str]:
    return {key: QUARANTINE[code - 1].value for key, code in zip(to_json(rows.ids, kind), rows.quarantine.tolist(), strict=True) if code}


@pytest.mark.parametrize("vector_type", VECTOR_TYPES)
def test_each_bad_vector_is_kept_out_for_its_reason_and_stops_no_other(database: Database, tmp_path: Path, vector_type: str) -> None:
    table = make_table(database, Form("text", vector_type, Rule.NONE, has_model=False, dimension=DIMENSION), rows=30)
    if vector_type in _ANY_DIMENSION:
        table.execute(_ANY_DIMENSION[vector_type])
    keys = table.live_keys[5:]
    expected = {}
    for key, (value, reason) in zip(keys, BAD[vector_type], strict=False):
        table.spoil(key, value)
        expected[key] = reason
    table.duplicate(keys[20])
    expected[keys[20]] = "DuplicateId"

    with source_of(table, tmp_path).unit(seconds=30.0) as unit:
        rows = read_all(unit, DIMENSION)
        heads = unit.heads(EVERYTHING)

    assert reasons(rows, unit.id_kind) == expected
    assert not rows.vectors[rows.quarantine != 0].any()
    np.testing.assert_array_equal(rows.digests, heads.digests)
    good = rows.quarantine == 0
    vectors = dict(zip(to_json(rows.ids[good], unit.id_kind), rows.vectors[good], strict=True))
    assert vectors.keys() == table.indexed.keys()
    for key, vector in table.indexed.items():
        np.testing.assert_array_equal(vectors[key], vector)


@pytest.mark.parametrize("value", ["'[0:2]={1,2,3}'", "'{1,NULL,3}'"])
def test_arrays_that_are_all_bad_in_one_way_are_quarantined_not_refused(database: Database, tmp_path: Path, value: LiteralString) -> None:
    table = make_table(database, Form("bigint", "float4[]", Rule.NONE, has_model=False, dimension=DIMENSION), rows=5)
    for key in table.live_keys:
        table.spoil(key, value)

    with source_of(table, tmp_path).unit(seconds=30.0) as unit:
        assert np.all(read_all(unit, DIMENSION).quarantine > 0)


@pytest.mark.parametrize("vector_type", VECTOR_TYPES)
def test_a_table_of_another_dimension_is_refused(database: Database, tmp_path: Path, vector_type: str) -> None:
    table = make_table(database, Form("uuid", vector_type, Rule.NONE, has_model=False, dimension=DIMENSION), rows=5)

    with pytest.raises(SourceError) as caught, source_of(table, tmp_path, dimension=4).unit(seconds=30.0):
        pass

    assert caught.value.reason is SourceReason.DIMENSION_MISMATCH
    assert "3" in caught.value.message


LONG = ["x" * 257, "x" * 300, "ä" * 129, "ä" * 128 + "x", "東" * 256 + "a", "東" * 256 + "b", "x" * 2000]


@pytest.mark.parametrize("is_indexed", [True, False])
def test_texts_too_long_are_kept_out_and_still_balance(database: Database, tmp_path: Path, *, is_indexed: bool) -> None:
    form = Form("text", "vector", Rule.BOOLEAN, dimension=DIMENSION, is_indexed=is_indexed, collation="" if is_indexed else '"C"')
    table = make_table(database, form, rows=40)
    keys = [*LONG, "x" * 255, "ä" * 127 + "x"]
    table.insert(keys=keys)

    with source_of(table, tmp_path).unit(seconds=30.0) as unit:
        rows = read_all(unit, DIMENSION)
        heads = unit.heads(EVERYTHING)
        values = [
            None,
            *(value_at(rows.ids, place, unit.id_kind) for place in range(1, len(rows)) if rows.ids[place] != rows.ids[place - 1]),
            None,
        ]
        ranges = [Range(low, high) for low, high in itertools.pairwise(values)]
        digests = unit.digests(ranges)
        totals = unit.totals(np.unique(rows.ids)[1:], EVERYTHING)
        long = rows.ids[rows.quarantine != 0]
        read = unit.rows(long)
        alone = unit.digest_without(EVERYTHING, value_at(long, 0, unit.id_kind))

    assert [QUARANTINE[code - 1].value for code in rows.quarantine[rows.quarantine != 0]] == ["IdTooLong"] * len(LONG)
    assert set(to_json(rows.ids[rows.quarantine == 0], unit.id_kind)) == table.indexed.keys()
    np.testing.assert_array_equal(rows.ids, heads.ids)
    np.testing.assert_array_equal(np.sort(rows.digests, axis=0), np.sort(heads.digests, axis=0))
    assert rows.ids.dtype.itemsize <= 4 * 257
    assert [digest.count for digest in digests] == totals.counts.tolist() == np.unique(rows.ids, return_counts=True)[1].tolist()
    assert sum_digests(read.digests) == sum_digests(rows.digests[rows.quarantine != 0])
    assert sum_digests(rows.digests).count - alone.count == np.count_nonzero(rows.ids == long[0])
