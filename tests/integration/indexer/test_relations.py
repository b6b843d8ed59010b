"""What can't be proven is refused with a reason, wherever below the source it lies; what can is not."""

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.postgres import Database
from tests.support.replica import make_source, write_settings
from tests.support.tables import Form, Rule, Table, make_table
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import compile_statement
from vectorindex_indexer.rows import Range
from vectorindex_indexer.source import Source, Unit

EVERYTHING = Range(None, None)
COLUMNS = '"Id" bigint, "Vector" bytea, "Model" text, "Deleted" boolean'


def source_of(table: Table, folder: Path, **index: Any) -> Source:
    return make_source(write_settings(folder, table.manifest(**index), table.database.create_reader()))


def refusal(table: Table, folder: Path) -> tuple[SourceReason, str]:
    with pytest.raises(SourceError) as caught, source_of(table, folder).unit(seconds=10.0) as unit:
        unit.heads(EVERYTHING)
    assert not caught.value.retryable
    return caught.value.reason, caught.value.message


def count(table: Table, folder: Path) -> int:
    with source_of(table, folder).unit(seconds=10.0) as unit:
        return len(unit.heads(EVERYTHING).ids)


def put_view(table: Table, *definitions: str) -> None:
    """Put a view in place of the table, which is `stored` now; the last definition is the view's, those before make v1, v2 and so on."""
    table.execute("ALTER TABLE {table} RENAME TO stored")
    for number, definition in enumerate(definitions[:-1], start=1):
        table.execute(f"CREATE VIEW v{number} AS {definition}")
    table.execute("CREATE VIEW {table} AS " + definitions[-1])


@pytest.fixture
def table(database: Database) -> Table:
    """Offer a table with its tombstone in a column."""
    made = make_table(database, Form("bigint", "bytea", Rule.BOOLEAN), rows=10)
    made.execute(
        "CREATE FOREIGN DATA WRAPPER nothing",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
        f"CREATE FOREIGN TABLE far ({COLUMNS}) SERVER elsewhere",
        "CREATE MATERIALIZED VIEW old AS SELECT * FROM {table}",
        "CREATE FUNCTION any_time() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT 0::bigint'",
        "CREATE FUNCTION at_times() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 0::bigint'",
        "CREATE FUNCTION always() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 0::bigint'",
    )
    return made


FAR = "SELECT * FROM far"
OLD = "SELECT * FROM old"
STORED = "SELECT * FROM stored"


@pytest.mark.parametrize(
    ("definitions", "said"),
    [
        ([FAR], "public.far, from which public.Documents has rows, is a foreign table"),
        ([FAR, "SELECT * FROM v1"], "is a foreign table"),
        ([FAR, "SELECT * FROM v1", f"{STORED} UNION ALL SELECT * FROM v2"], "is a foreign table"),
        ([f"{STORED} WHERE EXISTS ({FAR})"], "is a foreign table"),
        ([f'WITH w AS ({FAR}) {STORED} WHERE "Id" IN (SELECT "Id" FROM w)'], "is a foreign table"),
        ([OLD], "public.old, from which public.Documents has rows, is a materialized view"),
        ([OLD, "SELECT * FROM v1"], "is a materialized view"),
        ([f"{STORED} WHERE random() < 2"], "random()"),
        (['SELECT "Id" + any_time() AS "Id", "Vector", "Model", "Deleted" FROM stored'], "any_time()"),
        ([f"{STORED} WHERE at_times() = 0"], "at_times()"),
        ([f"{STORED} ORDER BY 1 LIMIT 5"], "LIMIT"),
        ([f"{STORED} OFFSET 1", "SELECT * FROM v1"], "view public.v1, from which"),
        ([f"{STORED} TABLESAMPLE BERNOULLI (50)"], "TABLESAMPLE"),
    ],
)
def test_what_can_not_be_proven_below_a_view_is_refused(table: Table, tmp_path: Path, definitions: list[str], said: str) -> None:
    put_view(table, *definitions)

    reason, message = refusal(table, tmp_path)

    assert reason is SourceReason.TYPE_UNSUPPORTED
    assert said in message


@pytest.mark.parametrize(
    "definition",
    [
        STORED,
        f'{STORED} WHERE always() = 0 AND now() > \'2020-01-01\' AND upper("Model") = upper("Model")',
        'SELECT s."Id", s."Vector", s."Model", s."Deleted" FROM stored s JOIN stored t USING ("Id") GROUP BY 1, 2, 3, 4',
    ],
)
def test_a_view_of_tables_is_read(table: Table, tmp_path: Path, definition: str) -> None:
    put_view(table, definition)

    assert count(table, tmp_path) == len(table.live)


def test_a_foreign_partition_is_refused(table: Table, tmp_path: Path) -> None:
    table.execute(
        "DROP TABLE {table} CASCADE",
        f"CREATE TABLE {{table}} ({COLUMNS}) PARTITION BY RANGE ({{id}})",
        "CREATE TABLE near PARTITION OF {table} FOR VALUES FROM (0) TO (10)",
    )
    assert count(table, tmp_path) == 0
    table.execute("CREATE FOREIGN TABLE beyond PARTITION OF {table} FOR VALUES FROM (10) TO (20) SERVER elsewhere")

    reason, message = refusal(table, tmp_path)

    assert reason is SourceReason.TYPE_UNSUPPORTED
    assert "public.beyond" in message


@pytest.mark.parametrize("name", ["far", "old"])
def test_what_can_not_be_locked_is_refused_as_a_source(table: Table, tmp_path: Path, name: str) -> None:
    table.name = name

    assert refusal(table, tmp_path)[0] is SourceReason.TYPE_UNSUPPORTED


# --- hidden rows

HIDE = ("ALTER TABLE {0} ENABLE ROW LEVEL SECURITY", 'CREATE POLICY positive ON {0} USING ("Id" > 0)')


def hide(table: Table, name: str) -> None:
    table.execute(*(statement.format(name) for statement in HIDE))


def test_row_security_is_refused(table: Table, tmp_path: Path) -> None:
    hide(table, "{table}")

    assert refusal(table, tmp_path)[0] is SourceReason.ROW_SECURITY


def test_row_security_of_a_role_that_sees_everything_is_no_matter(table: Table, tmp_path: Path) -> None:
    hide(table, "{table}")
    login = table.database.create_reader()
    table.execute(f'ALTER ROLE "{login.username}" BYPASSRLS')

    with make_source(write_settings(tmp_path, table.manifest(), login)).unit(seconds=10.0) as unit:
        assert len(unit.heads(EVERYTHING).ids) == len(table.live)


@pytest.mark.parametrize("invoker", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_row_security_below_views_is_refused(table: Table, tmp_path: Path, depth: int, *, invoker: bool) -> None:
    put_view(table, *[STORED, "SELECT * FROM v1", "SELECT * FROM v2"][:depth])
    if invoker:
        table.execute("ALTER VIEW {table} SET (security_invoker = true)")
    hide(table, "stored")

    reason, message = refusal(table, tmp_path)

    assert reason is SourceReason.ROW_SECURITY
    assert "public.stored" in message


def test_row_security_of_the_metadata_is_refused(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form("uuid", "vector", Rule.METADATA_LIVE), rows=10)
    table.execute("ALTER TABLE {metadata} ENABLE ROW LEVEL SECURITY")

    assert refusal(table, tmp_path)[0] is SourceReason.ROW_SECURITY


# --- columns


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE {table} ALTER {id} TYPE char(30)", "character"),
        ("ALTER TABLE {table} ALTER {id} TYPE name USING 'a'", "name"),
        ("ALTER TABLE {table} ALTER {id} TYPE numeric", "numeric"),
        ("ALTER TABLE {table} ALTER {vector} TYPE float8[] USING NULL", "double precision[]"),
        ("ALTER TABLE {table} ALTER {vector} TYPE text USING NULL", "text"),
        ("ALTER TABLE {table} ALTER {deleted} TYPE int USING 0", "integer"),
        ("ALTER TABLE {table} DROP {vector}, ADD {vector} bytea GENERATED ALWAYS AS ('abcd'::bytea) VIRTUAL", "virtual"),
    ],
)
def test_a_column_of_an_unfit_type_is_refused(table: Table, tmp_path: Path, change: str, said: str) -> None:
    table.execute("DROP MATERIALIZED VIEW old", change)

    reason, message = refusal(table, tmp_path)

    assert reason is SourceReason.TYPE_UNSUPPORTED
    assert said in message


@pytest.mark.parametrize(
    ("id_type", "other", "fits"),
    [
        ("bigint", "smallint", True),
        ("smallint", "bigint", True),
        ("text", "varchar(9)", True),
        ("uuid", "text", False),
        ("text", "bigint", False),
    ],
)
def test_the_ids_of_the_metadata_are_of_the_same_kind(database: Database, tmp_path: Path, id_type: str, other: str, *, fits: bool) -> None:
    table = make_table(database, Form(id_type, "bytea", Rule.METADATA_LIVE), rows=0)
    table.execute("ALTER TABLE {metadata} ALTER {ref} TYPE " + other + " USING NULL")

    if fits:
        assert count(table, tmp_path) == 0
    else:
        assert refusal(table, tmp_path)[0] is SourceReason.TYPE_UNSUPPORTED


@pytest.mark.parametrize(
    ("ours", "theirs"), [('"C"', '"POSIX"'), ('"C"', ""), ('"C.utf8"', '"C"'), ('"C.utf8"', '"C.utf8"'), ("", '"C.utf8"')]
)
def test_texts_of_table_and_metadata_may_have_other_collations(database: Database, tmp_path: Path, ours: str, theirs: str) -> None:
    table = make_table(database, Form("text", "bytea", Rule.METADATA_DEAD, collation=ours), rows=40)
    table.execute("ALTER TABLE {metadata} ALTER {ref} TYPE text" + (f" COLLATE {theirs}" if theirs else ""))

    with source_of(table, tmp_path).unit(seconds=10.0) as unit:
        heads = unit.heads(EVERYTHING)
        totals = unit.totals(heads.ids[5:6], EVERYTHING)

    assert [key.decode() for key in heads.ids.tolist()] == table.live_keys
    assert totals.counts.tolist() == [5, len(table.live) - 5]


# --- indexes


@pytest.mark.parametrize(
    ("collation", "index", "serves"),
    [
        ("", '("Id")', True),  # the database itself sorts by bytes
        ("", '("Id" COLLATE "C")', True),
        ('"C"', '("Model", "Id")', True),
        ('"C.utf8"', '("Id")', False),
        ('"C.utf8"', '("Id" COLLATE "C")', True),
        ('"C.utf8"', '("Model", "Id" COLLATE "C")', True),
        ('"C.utf8"', '("Id" text_pattern_ops)', False),
        ('"C"', '("Id" text_pattern_ops)', False),
        ('"C"', '("Deleted", "Id")', False),
        ('"C"', '("Id") WHERE NOT "Deleted"', False),
    ],
)
def test_an_index_counts_only_if_it_orders_texts_by_their_bytes(
    database: Database, tmp_path: Path, collation: str, index: str, *, serves: bool
) -> None:
    table = make_table(database, Form("text", "bytea", Rule.BOOLEAN, is_indexed=False, collation=collation), rows=200)
    table.execute("CREATE INDEX served ON {table} " + index, "ANALYZE {table}")

    with source_of(table, tmp_path).unit(seconds=10.0) as unit:
        assert unit.id_index is serves
        unit._connection.execute("SET LOCAL enable_seqscan = off")
        plan = explain(unit, Range(b"a", b"b"))

    if "WHERE" not in index and "Deleted" not in index:  # Postgres would use those, but not for every order and range that we ask for
        assert bool(re.search(r'Index Cond: .*"Id".* >= ', plan)) is serves, plan


def explain(unit: Unit, one: Range) -> str:
    text, values = compile_statement(sa.select(unit._live.relation(unit._within(one)).c.id))
    return "\n".join(row[0] for row in unit._connection.execute(f"EXPLAIN {text}".encode(), values).fetchall())
