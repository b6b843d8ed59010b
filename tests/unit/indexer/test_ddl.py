import re
from collections.abc import Iterator

import pytest
from psycopg import sql

from vectorindex_indexer.config import (
    ColumnTombstone,
    Identity,
    IndexSpec,
    MetadataTombstone,
    Missing,
    PostgresAddress,
    SourceSpec,
    SslMode,
    TableName,
)
from vectorindex_indexer.ddl import Columns, quote, write_digest_expressions, write_script
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.predicate import DeletedKind

EMBEDDINGS = TableName("public", "embeddings")
GUESSED = Columns()
METADATA = MetadataTombstone(TableName("Meta", "User"), "Order", "deleted", "model", Missing.DEAD)


def make_spec(
    *,
    table: TableName = EMBEDDINGS,
    model: str | None = "m",
    tombstone: ColumnTombstone | MetadataTombstone | None = None,
    digests: tuple[str, str] | None = None,
) -> SourceSpec:
    address = PostgresAddress("pg", 5432, "app", SslMode.DISABLE)
    return SourceSpec(address, table, "id", "vector", None if model is None else "model", model, tombstone, digests)


def write(spec: SourceSpec, columns: Columns = GUESSED, role: str = "reader") -> str:
    return write_script(Identity("docs", "search", "", spec, IndexSpec(3), ""), columns, role)


def statements(script: str) -> list[str]:
    """Return what is left of a script without its comments, one statement a line."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    return [" ".join(part.split()) for part in code.split(";") if part.strip()]


def comments(script: str) -> str:
    return " ".join(line.removeprefix("--").strip() for line in script.splitlines() if line.startswith("--"))


def identifiers(statement: str) -> Iterator[str]:
    return (match[1] for match in re.finditer(r'"((?:[^"]|"")*)"', statement))


@pytest.mark.parametrize("name", ["plain", "Mixed", "select", 'quo"te', "ä", "a b", 'x"; DROP TABLE t; --'])
def test_names_are_quoted_as_psycopg_quotes_them(name: str) -> None:
    assert quote(name) == sql.Identifier(name).as_string(None)


def test_the_script_makes_a_role_that_may_read_exactly_the_tables() -> None:
    script = statements(write(make_spec(tombstone=METADATA)))
    assert script[:4] == [
        'CREATE ROLE "reader" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION',
        'GRANT CONNECT ON DATABASE "app" TO "reader"',
        'GRANT USAGE ON SCHEMA "public", "Meta" TO "reader"',
        'GRANT SELECT ON TABLE "public"."embeddings", "Meta"."User" TO "reader"',
    ]
    assert not [statement for statement in script[4:] if "GRANT" in statement or "ROLE" in statement]


def test_the_schema_of_pgvector_is_opened_when_it_is_another() -> None:
    known = write(make_spec(), Columns(vector_type="vector", vector_schema="extensions"))
    assert 'GRANT USAGE ON SCHEMA "public", "extensions" TO "reader"' in statements(known)
    same = write(make_spec(), Columns(vector_type="vector", vector_schema="public"))
    assert 'GRANT USAGE ON SCHEMA "public" TO "reader"' in statements(same)
    assert "a schema of their own" in comments(write(make_spec(), Columns(vector_type="vector")))


def test_a_quoted_role_stays_one_name() -> None:
    script = write(make_spec(), role='x"; DROP TABLE embeddings; --')
    assert list(identifiers(script.splitlines()[0])) == []
    assert 'TO "x""; DROP TABLE embeddings; --";' in script


def test_no_password_is_printed_but_how_to_set_one() -> None:
    script = write(make_spec())
    assert "PASSWORD" not in " ".join(statements(script)).upper()
    assert '\\password "reader"' in script


@pytest.mark.parametrize(
    ("tombstone", "deleted", "clause"),
    [
        (None, DeletedKind.BOOLEAN, ""),
        (METADATA, DeletedKind.BOOLEAN, ""),
        (ColumnTombstone("Deleted"), DeletedKind.BOOLEAN, ' WHERE "Deleted" IS FALSE'),
        (ColumnTombstone("Deleted"), DeletedKind.TIMESTAMP, ' WHERE "Deleted" IS NULL'),
    ],
)
def test_the_covering_index_is_partial_where_the_tombstone_is_a_column(
    tombstone: ColumnTombstone | MetadataTombstone | None, deleted: DeletedKind, clause: str
) -> None:
    script = statements(write(make_spec(tombstone=tombstone, digests=("D1", "D2")), Columns(deleted=deleted)))
    index = 'CREATE INDEX CONCURRENTLY "embeddings_vectorindex_digests" ON "public"."embeddings" ("model", "id") INCLUDE ("D1", "D2")'
    assert index + clause in script


def test_without_a_model_key_the_indexes_begin_with_the_id() -> None:
    script = statements(write(make_spec(model=None)))
    assert 'CREATE INDEX CONCURRENTLY "embeddings_vectorindex_ids" ON "public"."embeddings" ("id")' in script
    assert any('embeddings" ("id") INCLUDE' in statement for statement in script)


def test_a_partitioned_table_gets_its_indexes_in_the_only_way_there_is() -> None:
    script = write(make_spec(), Columns(is_partitioned=True))
    assert not [statement for statement in statements(script) if "CONCURRENTLY" in statement]
    assert "The table is partitioned" in comments(script)


def test_an_index_that_is_there_is_not_made_again() -> None:
    script = write(make_spec(), Columns(has_id_index=True))
    assert "There is one already." in comments(script)
    assert "_vectorindex_ids" not in script


def test_metadata_gets_an_index_by_its_id() -> None:
    index = 'CREATE INDEX CONCURRENTLY "User_vectorindex_metadata" ON "Meta"."User" ("Order", "model") INCLUDE ("deleted")'
    assert index in statements(write(make_spec(tombstone=METADATA)))


def test_ranges_of_texts_are_indexed_byte_by_byte() -> None:
    script = statements(write(make_spec(), Columns(id_kind=IdKind.TEXT)))
    assert 'CREATE INDEX CONCURRENTLY "embeddings_vectorindex_ids" ON "public"."embeddings" ("model", "id" COLLATE "C")' in script
    sorted_so = statements(write(make_spec(), Columns(id_kind=IdKind.TEXT, collate=False)))
    assert 'CREATE INDEX CONCURRENTLY "embeddings_vectorindex_ids" ON "public"."embeddings" ("model", "id")' in sorted_so


@pytest.mark.parametrize(
    "columns",
    [Columns(id_kind=IdKind.TEXT), Columns(vector_type="float4[]"), Columns(vector_type="real[]"), Columns(is_view=True)],
    ids=["text", "float4[]", "real[]", "view"],
)
def test_where_digest_columns_are_impossible_a_sentence_says_why(columns: Columns) -> None:
    script = write(make_spec(digests=("d1", "d2")), columns)
    assert "GENERATED" not in script
    assert "d1" not in script
    assert re.search(r"Not for this table: .{40,}\.", comments(script))
    with pytest.raises(ValueError, match=r"\w+"):
        write_digest_expressions(make_spec(), columns)


def test_a_view_gets_no_ddl_at_all() -> None:
    assert all(statement.startswith(("CREATE ROLE", "GRANT")) for statement in statements(write(make_spec(), Columns(is_view=True))))


def test_names_of_digest_columns_come_from_the_manifest_or_are_offered_for_it() -> None:
    named = write(make_spec(digests=("High", "Low")))
    assert 'ADD COLUMN "High" bigint' in named
    assert "name them in the manifest" not in named
    assert "spec.source.digests: {columns: [vectorindex_digest_1, vectorindex_digest_2]}" in comments(write(make_spec()))


@pytest.mark.parametrize("length", [38, 39, 40, 63])
def test_names_of_indexes_are_never_cut_by_postgres(length: int) -> None:
    tables = [TableName("public", "t" * (length - 1) + last) for last in "ab"]
    names = [name for table in tables for name in identifiers(write(make_spec(table=table))) if "_vectorindex_" in name]
    assert len(names) == len(set(names)) == 4
    assert all(len(name) <= 63 for name in names)


def test_what_was_guessed_is_said() -> None:
    guessed = write(make_spec(tombstone=ColumnTombstone("deleted")), Columns(id_kind=IdKind.UUID, vector_type="halfvec"))
    assert "ids of kind uuid, vectors of type halfvec, a boolean as tombstone: as the options say" in comments(guessed)
    assert "as the catalogue has it" in comments(write(make_spec(), Columns(looked_up=True)))
