"""Digest columns of a real table: what is added up from them is what the bytes give, and what is no such column is refused."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.faults import lose_from_ledger
from tests.support.postgres import Connection, Database
from tests.support.psql import run_psql
from tests.support.replica import check, drifted, load_belief, make_source, wait_until, write_settings
from vectorindex_indexer.config import Settings, load_identity
from vectorindex_indexer.ddl import Columns, write_digest_expressions, write_script
from vectorindex_indexer.digest import EMPTY, Digest
from vectorindex_indexer.errors import NullSumError, SourceError
from vectorindex_indexer.keys import IdKind, value_at
from vectorindex_indexer.names import ProofReason, Result, SourceReason
from vectorindex_indexer.predicate import DeletedKind
from vectorindex_indexer.rows import Range, Totals
from vectorindex_indexer.source import Source, Unit

EVERYTHING = Range(None, None)
ROWS = 500
TOMBSTONES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "boolean": {"column": "deleted"},
    "timestamp": {"column": "gone"},
    "metadata": {"metadata": {"table": {"name": "meta"}, "id": "id", "deleted": "deleted", "missing": "Live"}},
}
IDS = {"smallint": "i - 250", "bigint": "i * 1000003 - 9", "uuid": "md5(i::text)::uuid"}
VECTORS = {
    "bytea": "float4send(i) || float4send(-i) || '\\x00000080'::bytea",
    "vector": "('[' || i || ',' || -i || ',0.5]')::vector",
    "halfvec": "('[' || i || ',' || -i || ',0.5]')::halfvec",
}


def make_settings(folder: Path, database: Database, tombstone: str = "boolean", **source: Any) -> Settings:
    table: dict[str, Any] = {
        "postgres": database.as_source("reader"),
        "table": {"name": "items"},
        "columns": {"id": "id", "vector": "vector", "model": "model"},
        "model": "m",
        "digests": {"columns": ["d1", "d2"]},
    }
    if TOMBSTONES[tombstone] is not None:
        table["tombstone"] = TOMBSTONES[tombstone]
    spec = {"source": table | source, "index": {"dimension": 3, "metric": "L2", "type": "Flat"}}
    manifest = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "docs"}, "spec": spec}
    return write_settings(folder, manifest, database.create_reader())


def create_table(connection: Connection, id_type: str = "bigint", vector_type: str = "bytea") -> None:
    """Make rows that are live and dead, of ours and of another model, some with a NULL vector and one id twice; and their metadata."""
    connection.execute(
        f"CREATE TABLE items (id {id_type}, vector {vector_type}, model text, deleted boolean DEFAULT false, gone timestamptz)"
    )
    connection.execute(
        f"INSERT INTO items SELECT {IDS[id_type]}, CASE WHEN i % 50 > 0 THEN {VECTORS[vector_type]} END, "
        f"CASE WHEN i % 20 = 0 THEN 'other' ELSE 'm' END, CASE i % 11 WHEN 0 THEN true WHEN 1 THEN NULL ELSE false END, "
        f"CASE WHEN i % 13 = 0 THEN now() END FROM generate_series(1, {ROWS}) i"
    )
    connection.execute("INSERT INTO items SELECT * FROM items WHERE model = 'm' AND deleted IS FALSE AND gone IS NULL LIMIT 1")
    connection.execute("CREATE TABLE meta AS SELECT id, deleted FROM items")
    connection.execute("ALTER TABLE items ALTER id SET NOT NULL")


def add_digests(database: Database, settings: Settings, columns: Columns) -> None:
    """Run what `vectorindex-indexer sql` prints, but for the role."""
    script = write_script(load_identity(settings.config), columns, "nobody")
    run_psql(database, "-- 2. " + script.partition("\n-- 2. ")[2])


def choose_bounds(unit: Unit, count: int) -> Any:
    ids = unit.sample_ids(ROWS)
    return ids[:: max(1, len(ids) // (count + 1))][1 : count + 1]


def ranges_of(unit: Unit, bounds: Any, one: Range) -> list[Range]:
    edges = [one.low, *(value_at(bounds, place, unit.id_kind) for place in range(len(bounds))), one.high]
    return [Range(low, high) for low, high in pairwise(edges)]


def stored(totals: Totals) -> list[Digest]:
    assert totals.digests is not None
    assert totals.stamps is None
    assert [digest.count for digest in totals.digests] == totals.counts.tolist()
    return totals.digests


@pytest.mark.parametrize("tombstone", list(TOMBSTONES))
@pytest.mark.parametrize("vector_type", list(VECTORS))
@pytest.mark.parametrize("id_type", list(IDS))
def test_the_columns_add_up_to_what_the_bytes_do(
    id_type: str, vector_type: str, tombstone: str, database: Database, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path, database, tombstone)
    with database.admin_connect() as connection:
        create_table(connection, id_type, vector_type)
    kind = IdKind.UUID if id_type == "uuid" else IdKind.INTEGER
    deleted = DeletedKind.TIMESTAMP if tombstone == "timestamp" else DeletedKind.BOOLEAN
    add_digests(database, settings, Columns(id_kind=kind, vector_type=vector_type, deleted=deleted))

    with make_source(settings).unit(seconds=30) as unit:
        assert unit.has_stored_digests
        for count in (0, 1, 7, 100):
            bounds = choose_bounds(unit, count)
            found = stored(unit.totals(bounds, EVERYTHING))
            assert found == unit.digests(ranges_of(unit, bounds, EVERYTHING))
            assert sum(found, EMPTY).count > ROWS // 2
        part = Range(value_at(bounds, 10, kind), value_at(bounds, 90, kind))
        assert stored(unit.totals(bounds[11:90], part)) == unit.digests(ranges_of(unit, bounds[11:90], part))


def make_digested(database: Database, folder: Path) -> Settings:
    settings = make_settings(folder, database)
    with database.admin_connect() as connection:
        create_table(connection)
    add_digests(database, settings, Columns())
    return settings


def find_live_id(connection: Connection) -> int:
    ((row_id,),) = connection.execute(
        "SELECT id FROM items WHERE model = 'm' AND deleted IS FALSE AND vector IS NOT NULL GROUP BY id HAVING count(*) = 1 LIMIT 1"
    ).fetchall()
    return int(row_id)


def read_totals(source: Source) -> tuple[list[Digest], list[Digest]]:
    """Return what the columns and what the bytes add up to."""
    with source.unit(seconds=30) as unit:
        bounds = choose_bounds(unit, 5)
        return stored(unit.totals(bounds, EVERYTHING)), unit.digests(ranges_of(unit, bounds, EVERYTHING))


def test_the_columns_follow_every_kind_of_write(database: Database, tmp_path: Path) -> None:
    source = make_source(make_digested(database, tmp_path))
    seen = [read_totals(source)[0]]
    with database.admin_connect() as connection:
        for write in (
            "UPDATE items SET vector = vector || '\\x00'::bytea WHERE id % 7 = 0",
            "UPDATE items SET id = id + 1 WHERE id % 7 = 0",
            "DELETE FROM items WHERE id % 5 = 0",
            "SET session_replication_role = replica; UPDATE items SET vector = NULL WHERE id % 3 = 0",
        ):
            connection.execute(write)
            by_columns, by_bytes = read_totals(source)
            assert by_columns == by_bytes
            assert by_columns not in seen
            seen.append(by_columns)


def test_columns_that_no_longer_say_what_the_bytes_do_are_seen_beside_them(database: Database, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database)
    with database.admin_connect() as connection:
        create_table(connection)
        # A function that is called immutable and then made to be another one: Postgres keeps what it stored.
        connection.execute("CREATE FUNCTION first(bigint, bytea) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 1::bigint'")
        for column in ("d1", "d2"):
            connection.execute(f"ALTER TABLE items ADD {column} bigint GENERATED ALWAYS AS (first(id, vector)) STORED")
    by_columns, by_bytes = read_totals(make_source(settings))
    assert [digest.count for digest in by_columns] == [digest.count for digest in by_bytes]
    assert not [True for mine, theirs in zip(by_columns, by_bytes, strict=True) if mine == theirs]


def test_rows_without_a_stored_digest_are_never_a_sum(database: Database, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database)
    with database.admin_connect() as connection:
        create_table(connection)
        for column in ("d1", "d2"):  # NULL where the vector is
            connection.execute(f"ALTER TABLE items ADD {column} bigint GENERATED ALWAYS AS (octet_length(vector)::bigint) STORED")
    with make_source(settings).unit(seconds=30) as unit, pytest.raises(NullSumError, match=r"\d+ live rows .* digest columns"):
        unit.totals(unit.sample_ids(0), EVERYTHING)


GENERATED = "bigint GENERATED ALWAYS AS (octet_length(vector)::bigint)"
WRONG: dict[str, tuple[Sequence[str], SourceReason, str]] = {
    "missing": ([f"d1 {GENERATED} STORED"], SourceReason.COLUMN_MISSING, "'d2' of table public.items does not exist"),
    "type": ([f"d1 {GENERATED} STORED", "d2 integer"], SourceReason.TYPE_UNSUPPORTED, "'d2' .* has type integer, needed is bigint"),
    "ordinary": ([f"d1 {GENERATED} STORED", "d2 bigint DEFAULT 1"], SourceReason.TYPE_UNSUPPORTED, "'d2' .* is an ordinary column"),
    "virtual": ([f"d1 {GENERATED} VIRTUAL", f"d2 {GENERATED} STORED"], SourceReason.TYPE_UNSUPPORTED, "'d1' .* but not STORED"),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_what_is_no_digest_column_is_refused(wrong: str, database: Database, tmp_path: Path) -> None:
    columns, reason, message = WRONG[wrong]
    settings = make_settings(tmp_path, database)
    with database.admin_connect() as connection:
        create_table(connection)
        for column in columns:
            connection.execute(f"ALTER TABLE items ADD {column}")
    with pytest.raises(SourceError, match=message) as caught, make_source(settings).unit(seconds=30):
        pass
    assert caught.value.reason is reason
    assert "vectorindex-indexer sql" in caught.value.message


def test_a_view_has_no_digest_columns(database: Database, tmp_path: Path) -> None:
    make_digested(database, tmp_path)
    with database.admin_connect() as connection:
        connection.execute("CREATE VIEW shown AS SELECT * FROM items")
    settings = make_settings(tmp_path, database, table={"name": "shown"})
    with pytest.raises(SourceError, match="shown is a view") as caught, make_source(settings).unit(seconds=30):
        pass
    assert caught.value.reason is SourceReason.TYPE_UNSUPPORTED


def test_an_altered_expression_is_another_catalogue(database: Database, tmp_path: Path) -> None:
    source = make_source(make_digested(database, tmp_path))
    with source.unit(seconds=30) as unit:
        before = unit.as_of.fingerprint
    with database.admin_connect() as connection:
        connection.execute("ALTER TABLE items ALTER d1 SET EXPRESSION AS (id)")
    with source.unit(seconds=30) as unit:
        assert unit.as_of.fingerprint != before


def count_reads(database: Database) -> dict[str, tuple[int, int]]:
    """Return by index how many entries were read and how many rows were fetched for them; for the table, sequential scans and rows."""
    wait_until("no session is left: each tells its counts as it ends", lambda: not database.backends(), 30)
    with database.admin_connect() as connection:
        indexes = connection.execute("SELECT indexrelname::text, idx_tup_read, idx_tup_fetch FROM pg_stat_user_indexes").fetchall()
        tables = connection.execute("SELECT relname::text, seq_scan, seq_tup_read FROM pg_stat_user_tables").fetchall()
    return {name: (read, fetched) for name, read, fetched in indexes + tables}


def test_bytes_are_left_alone_when_the_columns_are_added_up(database: Database, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database)
    with database.admin_connect() as connection:
        create_table(connection)
        connection.execute("INSERT INTO items SELECT i, decode(repeat('00', 1536), 'hex'), 'm', false FROM generate_series(1, 20000) i")
    add_digests(database, settings, Columns())
    source = make_source(settings)
    with source.unit(seconds=30) as unit:  # the first looks at the width of some rows
        bounds = np.arange(1000, 20_000, 1000)
    before = count_reads(database)
    with source.unit(seconds=30) as unit:
        assert unit.id_index
        live = int(unit.totals(bounds, EVERYTHING).counts.sum())
    after = count_reads(database)
    name = "items_vectorindex_digests"
    assert (after[name][0] - before[name][0], after[name][1] - before[name][1]) == (live, 0)
    assert after["items"] == before["items"]


@pytest.mark.parametrize(
    ("index", "serves_ranges"),
    [
        ("(model, id) INCLUDE (d1, d2) WHERE NOT deleted", False),  # Postgres doesn't see that this follows from the live-row predicate
        ("(model, id) INCLUDE (d1, d2) WHERE deleted IS FALSE AND gone IS NULL", False),
        ("(model, id)", True),
        ("(model, id) INCLUDE (d1)", True),
    ],
)
def test_without_the_index_one_pass_over_the_table_does(index: str, serves_ranges: bool, database: Database, tmp_path: Path) -> None:
    source = make_source(make_digested(database, tmp_path))
    with database.admin_connect() as connection:
        connection.execute("DROP INDEX items_vectorindex_digests")
        connection.execute("DROP INDEX items_vectorindex_ids")
        connection.execute(f"CREATE INDEX ON items {index}")
    by_columns, by_bytes = read_totals(source)
    assert by_columns == by_bytes
    before = count_reads(database)
    with source.unit(seconds=30) as unit:
        assert unit.id_index is serves_ranges
        unit.totals(np.arange(0, 10**9, 10**7), EVERYTHING)
    assert count_reads(database)["items"][0] == before["items"][0] + 1


def test_a_replica_is_proven_by_the_columns_and_follows_them(database: Database, tmp_path: Path) -> None:
    settings = make_digested(database, tmp_path)
    source = make_source(settings)
    belief = load_belief(settings, source)
    with database.admin_connect() as connection:
        connection.execute(
            "UPDATE items SET vector = float4send(1) || float4send(2) || float4send(3) WHERE id = %s", [find_live_id(connection)]
        )
    outcome = check(source, belief)
    assert (outcome.findings.result, outcome.findings.drift.rows, outcome.findings.followed.rows) == (Result.OK, 0, 1)
    assert str(outcome.belief.root) == str(sum(read_totals(source)[1], EMPTY))


def test_a_lost_row_is_found_where_the_columns_tell_of_it(database: Database, tmp_path: Path) -> None:
    settings = make_digested(database, tmp_path)
    source = make_source(settings)
    belief = load_belief(settings, source)
    with database.admin_connect() as connection:
        lost = find_live_id(connection)
    outcome = check(source, lose_from_ledger(belief, lost))
    assert (outcome.findings.result, drifted(outcome.findings)) == (Result.OK, {"missing": [lost]})


def test_columns_that_lie_make_a_check_unknown(database: Database, tmp_path: Path) -> None:
    settings = make_digested(database, tmp_path)
    source = make_source(settings)
    belief = load_belief(settings, source)
    with database.admin_connect() as connection:
        connection.execute("ALTER TABLE items ALTER d1 SET EXPRESSION AS (id)")
    findings = check(source, belief).findings
    assert (findings.result, findings.reason) == (Result.UNKNOWN, ProofReason.STORED_DIGESTS_DIFFER)


def test_columns_beside_which_the_bytes_changed_are_found_when_content_is_compared(database: Database, tmp_path: Path) -> None:
    """What they hold is what the ledger holds, as after damage to the table's pages: nothing but the bytes themselves can tell."""
    settings = make_settings(tmp_path, database)
    spec = load_identity(settings.config).source
    right = write_digest_expressions(spec, Columns())
    with database.admin_connect() as connection:
        create_table(connection)
        for column, expression in zip(("d1", "d2"), right, strict=True):
            connection.execute(f"CREATE FUNCTION {column}(id bigint, vector bytea) RETURNS bigint IMMUTABLE RETURN {expression}")
            connection.execute(f"ALTER TABLE items ADD {column} bigint GENERATED ALWAYS AS ({column}(id, vector)) STORED")
    source = make_source(settings)
    belief = load_belief(settings, source)

    with database.admin_connect() as connection:
        ((row_id, first, second),) = connection.execute("SELECT id, d1, d2 FROM items WHERE id > 0 AND deleted IS FALSE LIMIT 1").fetchall()
        for column, expression, kept in zip(("d1", "d2"), right, (first, second), strict=True):
            lie = f"CASE WHEN id = {row_id} THEN {kept} ELSE {expression} END"
            connection.execute(f"CREATE OR REPLACE FUNCTION {column}(id bigint, vector bytea) RETURNS bigint IMMUTABLE RETURN {lie}")
        connection.execute("UPDATE items SET vector = vector || vector WHERE id = %s", [row_id])

    by_columns, by_bytes = read_totals(source)
    assert sum(by_columns, EMPTY) == belief.root != sum(by_bytes, EMPTY)
    findings = check(source, belief, whole=True, from_bytes=True).findings
    assert (findings.result, findings.reason) == (Result.UNKNOWN, ProofReason.STORED_DIGESTS_DIFFER)
