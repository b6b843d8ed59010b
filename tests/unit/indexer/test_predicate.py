import dataclasses

import numpy as np
import pytest
import sqlalchemy as sa

from vectorindex_indexer.config import ColumnTombstone, MetadataTombstone, Missing, PostgresAddress, SourceSpec, SslMode, TableName
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.keys_sql import KeySql, everywhere
from vectorindex_indexer.predicate import DeletedKind, LiveRows, compile_statement

KEYS = KeySql(IdKind.INTEGER)


def make_metadata(missing: Missing = Missing.DEAD, model: str | None = None) -> MetadataTombstone:
    return MetadataTombstone(TableName("public", "faiss_metadata"), "id", "deleted", model, missing)


def make_spec(tombstone: ColumnTombstone | MetadataTombstone | None = None, model: str | None = "minilm") -> SourceSpec:
    address = PostgresAddress("pg", 5432, "app", SslMode.DISABLE)
    column = None if model is None else "model"
    return SourceSpec(address, TableName("public", "embeddings"), "id", "vector", column, model, tombstone)


def text_of(rows: LiveRows) -> str:
    return " ".join(compile_statement(sa.select(rows.id).select_from(rows.table).where(rows.clause))[0].split())


MEANINGS = {
    "no rule": (make_spec(), None),
    "no model": (make_spec(model=None), None),
    "other model": (make_spec(model="minilm:q8"), None),
    "column": (make_spec(ColumnTombstone("deleted")), DeletedKind.BOOLEAN),
    "column of time": (make_spec(ColumnTombstone("deleted")), DeletedKind.TIMESTAMP),
    "other column": (make_spec(ColumnTombstone("gone")), DeletedKind.BOOLEAN),
    "metadata": (make_spec(make_metadata()), DeletedKind.BOOLEAN),
    "metadata of time": (make_spec(make_metadata()), DeletedKind.TIMESTAMP),
    "missing is live": (make_spec(make_metadata(Missing.LIVE)), DeletedKind.BOOLEAN),
    "metadata with model": (make_spec(make_metadata(model="model")), DeletedKind.BOOLEAN),
    "other table": (dataclasses.replace(make_spec(), table=TableName("public", "others")), None),
}


def test_each_meaning_has_a_fingerprint_of_its_own() -> None:
    fingerprints = {name: LiveRows(spec, kind).fingerprint for name, (spec, kind) in MEANINGS.items()}
    assert len(set(fingerprints.values())) == len(MEANINGS), fingerprints


def test_the_fingerprint_depends_on_nothing_but_the_meaning() -> None:
    elsewhere = dataclasses.replace(make_spec(), postgres=PostgresAddress("other", 1, "db", SslMode.REQUIRE))
    assert LiveRows(make_spec(), None).fingerprint == LiveRows(elsewhere, None).fingerprint


def test_null_in_a_boolean_tombstone_is_dead() -> None:
    assert 't."deleted" IS false' in text_of(LiveRows(make_spec(ColumnTombstone("deleted")), DeletedKind.BOOLEAN))


def test_null_in_a_time_is_live() -> None:
    assert 't."deleted" IS NULL' in text_of(LiveRows(make_spec(ColumnTombstone("deleted")), DeletedKind.TIMESTAMP))


@pytest.mark.parametrize(("missing", "asked"), [(Missing.DEAD, 2), (Missing.LIVE, 1)])
def test_metadata_is_asked_and_never_joined(missing: Missing, asked: int) -> None:
    text = text_of(LiveRows(make_spec(make_metadata(missing)), DeletedKind.BOOLEAN))
    assert text.count("EXISTS (SELECT 1") == asked
    assert "NOT (EXISTS" in text
    assert "JOIN" not in text


def test_the_key_is_bound_and_every_name_is_quoted() -> None:
    spec = dataclasses.replace(make_spec(model="x'; DROP TABLE y; --"), id_column="Order", table=TableName("select", "from"))
    rows = LiveRows(spec, None)
    text, values = compile_statement(sa.select(rows.id).select_from(rows.table).where(rows.clause))
    assert "DROP" not in text
    assert "x'; DROP TABLE y; --" in values.values()
    assert '"select"."from"' in text
    assert 't."Order"' in text


@pytest.mark.parametrize(
    "within", [everywhere, KEYS.between(1, 9), KEYS.between(None, 9), KEYS.between(1, None), KEYS.any_of(np.array([1, 2]))]
)
def test_every_relation_holds_the_whole_predicate(within: object) -> None:
    rows = LiveRows(make_spec(make_metadata()), DeletedKind.BOOLEAN)
    live = rows.relation(within)  # type: ignore[arg-type]
    text, _ = compile_statement(sa.select(live.c.vector))
    assert 't."model" = ' in text
    assert 't."id" IS NOT NULL' in text
    assert text.count("EXISTS (SELECT 1") == 2
