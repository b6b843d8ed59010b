"""Reading a real Postgres: the predicate against independent SQL, digests of both sides, the locked snapshot, and every way it can fail."""

import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.wordnet.load import MODEL, Variant, live_rows
from tests.support.postgres import Database, MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import make_manifest, make_source, wait_until, write_settings
from tests.support.tables import Form, Rule, make_table
from vectorindex_indexer.digest import sum_digests
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.keys import value_at
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.predicate import compile_statement
from vectorindex_indexer.rows import Range, Rows
from vectorindex_indexer.source import Source, Unit

EVERYTHING = Range(None, None)


def source_of(database: WordnetDatabase, folder: Path, **changes: Any) -> Source:
    return make_source(write_settings(folder, make_manifest(database, **changes), database.create_reader()))


def read_all(source: Source, chunk_rows: int = 50_000) -> Rows:
    with source.unit(seconds=30.0) as unit:
        return Rows.concatenate(list(unit.stream(EVERYTHING, chunk_rows)), source.index.dimension)


def count(unit: Unit) -> int:
    return int(unit.totals(np.empty(0, np.int64), EVERYTHING).counts[0])


def execute(database: Database, statement: str, *values: Any) -> None:
    with database.admin_connect() as connection:
        connection.execute(statement, values)


# --- digests


@pytest.mark.parametrize("variant", list(Variant))
def test_postgres_and_python_compute_the_same_digest_of_every_real_row(
    make_wordnet_database: MakeWordnetDatabase, tmp_path: Path, variant: Variant
) -> None:
    database = make_wordnet_database(rows=10_000, variant=variant)
    source = source_of(database, tmp_path)

    rows = read_all(source)
    with source.unit(seconds=30.0) as unit:
        heads = unit.heads(EVERYTHING)
        (whole,) = unit.digests([EVERYTHING])
        parts = unit.digests([Range(None, 150_000_000), Range(150_000_000, 200_500_000), Range(200_500_000, None)])

    assert len(rows) == database.counts.live
    np.testing.assert_array_equal(rows.ids, heads.ids)
    np.testing.assert_array_equal(rows.digests, heads.digests)
    np.testing.assert_array_equal(rows.stamps, heads.stamps)
    assert whole == sum_digests(rows.digests)
    assert whole == parts[0] + parts[1] + parts[2]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_many_ranges_are_digested_like_each_alone(
    make_wordnet_database: MakeWordnetDatabase, tmp_path: Path, step: int, *, indexed: bool
) -> None:
    database = make_wordnet_database(rows=1000)
    if not indexed:
        execute(database, "ALTER TABLE embeddings DROP CONSTRAINT embeddings_pkey")
    source = source_of(database, tmp_path)
    rows = read_all(source)
    bounds = [None, *(int(key) for key in rows.ids[20:-20:20]), None]
    ranges = [Range(low, high) for low, high in itertools.pairwise(bounds)][::step]
    assert len(ranges) > 20

    with source.unit(seconds=30.0) as unit:
        found = unit.digests(ranges)

    for one, digest in zip(ranges, found, strict=True):
        low = 0 if one.low is None else np.searchsorted(rows.ids, one.low)
        high = len(rows) if one.high is None else np.searchsorted(rows.ids, one.high)
        assert digest == sum_digests(rows.digests[low:high])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.integers(0, 299), bit=st.integers(0, 384 * 32 - 1), of_the_id=st.booleans())
def test_any_one_flipped_bit_is_seen_in_its_bucket_and_in_no_other(
    shared: tuple[WordnetDatabase, Source], row: int, bit: int, of_the_id: bool
) -> None:
    database, source = shared
    with database.admin_connect(autocommit=False) as connection, source.unit(seconds=30.0) as before:
        ids, _ = live_rows(connection)
        bounds = [None, int(ids[100]), int(ids[200]), None]
        ranges = [Range(low, high) for low, high in itertools.pairwise(bounds)]
        old = before.digests(ranges)
        key = int(ids[row % len(ids)])
        if of_the_id:
            new_key = key ^ (1 << (bit % 27))
            connection.execute("UPDATE embeddings SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [new_key, key, MODEL])
            connection.execute("UPDATE faiss_metadata SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [new_key, key, MODEL])
            places = {find_range(ranges, key), find_range(ranges, new_key)}
        else:
            flip = "UPDATE embeddings SET vector = set_bit(vector, %s, 1 - get_bit(vector, %s)) WHERE entity_id = %s AND model_name = %s"
            connection.execute(flip, [bit, bit, key, MODEL])
            places = {find_range(ranges, key)}
        connection.commit()
        with source.unit(seconds=30.0) as after:
            new = after.digests(ranges)
        undo(connection, key, key ^ (1 << (bit % 27)) if of_the_id else None, bit)

    assert {place for place, (ours, theirs) in enumerate(zip(old, new, strict=True)) if ours != theirs} == places


def find_range(ranges: list[Range], key: int) -> int:
    return sum(isinstance(one.low, int) and key >= one.low for one in ranges)


def undo(connection: psycopg.Connection[Any], key: int, moved_to: int | None, bit: int) -> None:
    if moved_to is None:
        flip = "UPDATE embeddings SET vector = set_bit(vector, %s, 1 - get_bit(vector, %s)) WHERE entity_id = %s AND model_name = %s"
        connection.execute(flip, [bit, bit, key, MODEL])
    else:
        connection.execute("UPDATE embeddings SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [key, moved_to, MODEL])
        connection.execute("UPDATE faiss_metadata SET entity_id = %s WHERE entity_id = %s AND model_name = %s", [key, moved_to, MODEL])
    connection.commit()


@pytest.fixture
def shared(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> tuple[WordnetDatabase, Source]:
    database = make_wordnet_database(rows=300)
    return database, source_of(database, tmp_path)


def test_leaving_out_one_row_changes_the_digest_by_that_row(shared: tuple[WordnetDatabase, Source]) -> None:
    _, source = shared
    rows = read_all(source)
    with source.unit(seconds=30.0) as unit:
        (whole,) = unit.digests([EVERYTHING])
        without = unit.digest_without(EVERYTHING, int(rows.ids[17]))

    assert whole - without == sum_digests(rows.digests[17:18])


def test_stamps_are_those_of_the_rows_bucket_by_bucket(shared: tuple[WordnetDatabase, Source]) -> None:
    _, source = shared
    with source.unit(seconds=30.0) as unit:
        heads = unit.heads(EVERYTHING)
        bounds = heads.ids[[50, 120, 250]]
        stamps = unit.totals(bounds, EVERYTHING)

    starts = [0, 50, 120, 250, len(heads.ids)]
    expected = [heads.stamps[low:high] for low, high in itertools.pairwise(starts)]
    assert stamps.counts.tolist() == [part.size for part in expected]
    assert stamps.stamps is not None
    assert stamps.stamps.tolist() == [int(np.add.reduce(part, dtype=np.uint64)) for part in expected]


def test_the_stamp_moves_with_the_row_and_with_its_metadata_but_not_otherwise(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared
    before = read_all(source)
    touched, marked = int(before.ids[3]), int(before.ids[9])
    execute(database, "UPDATE embeddings SET text = 'x' WHERE entity_id = %s AND model_name = %s", touched, MODEL)
    execute(database, "UPDATE faiss_metadata SET changed_at = now() WHERE entity_id = %s AND model_name = %s", marked, MODEL)
    execute(database, "SELECT * FROM embeddings WHERE entity_id = %s FOR UPDATE", int(before.ids[20]))

    after = read_all(source)

    assert set(after.ids[before.stamps != after.stamps].tolist()) == {touched, marked}


def test_rows_come_in_chunks_with_all_rows_of_an_id_together(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared
    execute(database, "ALTER TABLE embeddings DROP CONSTRAINT embeddings_pkey")
    execute(database, "INSERT INTO embeddings SELECT * FROM embeddings WHERE model_name = %s", MODEL)

    with source.unit(seconds=30.0) as unit:
        chunks = list(unit.stream(EVERYTHING, 7))

    assert sum(len(chunk) for chunk in chunks) == 2 * database.counts.live
    for chunk in chunks:
        _, counts = np.unique(chunk.ids, return_counts=True)
        assert set(counts.tolist()) == {2}
        assert np.all(chunk.quarantine > 0)


def test_counts_and_stamps_never_touch_a_vector_that_lies_apart(database: Database, tmp_path: Path) -> None:
    table = make_table(database, Form("bigint", "bytea", Rule.METADATA_DEAD, dimension=1024), rows=50)
    source = make_source(write_settings(tmp_path, table.manifest(), database.create_reader()))
    with source.unit(seconds=30.0) as unit:
        bounds = unit.sample_ids(5)
    before = toast_blocks(database)
    with source.unit(seconds=30.0) as unit:
        unit.totals(bounds, EVERYTHING)
        unit.survey(5)
        unit.next_range(None, 10)
    wait_until("the session to end", lambda: not database.backends())
    assert toast_blocks(database) == before
    with source.unit(seconds=30.0) as unit:
        unit.digests([EVERYTHING])
    wait_until("the reads to be told", lambda: toast_blocks(database) > before)  # so they would have been seen


def toast_blocks(database: Database) -> int:
    with database.admin_connect() as connection:
        row = connection.execute("SELECT sum(toast_blks_hit + toast_blks_read)::int FROM pg_statio_user_tables").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("rule", [Rule.BOOLEAN, Rule.METADATA_DEAD, Rule.METADATA_LIVE])
@pytest.mark.parametrize("id_type", ["bigint", "uuid", "text"])
def test_a_range_is_read_by_the_index_and_nothing_is_sorted_to_be_counted(
    database: Database, tmp_path: Path, id_type: str, rule: Rule
) -> None:
    table = make_table(database, Form(id_type, "bytea", rule), rows=4000)
    table.execute("ANALYZE")
    source = make_source(write_settings(tmp_path, table.manifest(), database.create_reader()))
    with source.unit(seconds=30.0) as unit:
        bounds = unit.sample_ids(200)
        few = Range(*(value_at(bounds, place, unit.id_kind) for place in (100, 102)))
        ranged = explained(unit, lambda: unit.totals(bounds[101:102], few))
        read = explained(unit, lambda: unit.digests([few]))
        counted = explained(unit, lambda: unit.totals(bounds, EVERYTHING))

    for plan in (ranged, read):
        assert re.search(r"Index Cond: .*\"Id\" (>=|<) ", plan), plan
        assert 'Seq Scan on "Documents" ' not in plan, plan
    assert "HashAggregate" in counted
    assert "Sort Key: (width_bucket" not in counted


def explained(unit: Unit, ask: Callable[[], object]) -> str:
    """Return the plans of what a unit asks for."""
    plans: list[str] = []
    fetch = unit._fetch

    def spy(query: sa.ClauseElement) -> list[tuple[Any, ...]]:
        text, values = compile_statement(query)
        plans.extend(row[0] for row in unit._connection.execute(f"EXPLAIN {text}".encode(), values).fetchall())
        return fetch(query)

    unit._fetch = spy  # type: ignore[method-assign]
    try:
        ask()
    finally:
        del unit._fetch
    return "\n".join(plans)


# --- the predicate


IDS = range(1, 9)


def make_two_tables(database: Database, tombstone: str) -> None:
    """Rows 1 to 8, and metadata for each way of being dead, alive, both, or unknown; another model knows better in vain."""
    execute(database, "CREATE TABLE embeddings (entity_id bigint, model_name text, vector bytea, deleted boolean, gone timestamptz)")
    for key in IDS:
        vector = np.full(384, key, "<f4").tobytes()
        values = [key, "m", vector, {1: False, 2: True, 3: None}.get(key, False), "2026-01-01" if key == 2 else None]
        execute(database, "INSERT INTO embeddings VALUES (%s, %s, %s, %s, %s)", *values)
        execute(database, "INSERT INTO embeddings VALUES (%s, 'other', %s, false, NULL)", key + 100, vector)
    execute(database, f"CREATE TABLE faiss_metadata (entity_id bigint, model_name text, deleted {tombstone})")
    dead, live = ("true", "false") if tombstone == "boolean" else ("'2026-01-01'", "NULL")
    rows = [(1, "m", live), (2, "m", dead), (3, "m", dead), (3, "m", live), (5, "other", live), (6, "other", dead), (6, "m", live)]
    rows += [(7, "m", "NULL")] if tombstone == "boolean" else []
    for key, model, value in rows:
        execute(database, f"INSERT INTO faiss_metadata VALUES (%s, %s, {value})", key, model)


@pytest.mark.parametrize(
    ("kind", "tombstone", "expected"),
    [
        ("boolean", None, {1, 2, 3, 4, 5, 6, 7, 8}),
        ("boolean", {"column": "deleted"}, {1, 4, 5, 6, 7, 8}),
        ("boolean", {"column": "gone"}, {1, 3, 4, 5, 6, 7, 8}),
        ("boolean", {"metadata": {"model": "model_name"}}, {1, 6}),
        ("boolean", {"metadata": {"model": "model_name", "missing": "Live"}}, {1, 4, 5, 6, 8}),
        ("boolean", {"metadata": {}}, {1, 5}),
        ("boolean", {"metadata": {"missing": "Live"}}, {1, 4, 5, 8}),
        ("timestamptz", {"metadata": {"model": "model_name"}}, {1, 6}),
        ("timestamptz", {"metadata": {"model": "model_name", "missing": "Live"}}, {1, 4, 5, 6, 7, 8}),
    ],
)
def test_each_tombstone_rule_lets_exactly_its_rows_live(
    database: Database, tmp_path: Path, kind: str, tombstone: dict[str, Any] | None, expected: set[int]
) -> None:
    make_two_tables(database, kind)
    if tombstone and "metadata" in tombstone:
        tombstone = {"metadata": {"table": {"name": "faiss_metadata"}, "id": "entity_id", "deleted": "deleted"} | tombstone["metadata"]}
    source = source_of(as_wordnet(database), tmp_path, source__model="m", source__tombstone=tombstone)

    rows = read_all(source)
    with source.unit(seconds=30.0) as unit:
        counted = count(unit)
        survey = unit.survey(counted)

    assert set(rows.ids.tolist()) == expected
    assert survey.live == counted == len(expected)
    assert survey.matching == len(expected)
    assert rows.vectors[:, 0].tolist() == rows.ids.tolist()


def as_wordnet(database: Database) -> WordnetDatabase:
    return WordnetDatabase(database.server, database.name, None, Variant.TWO_TABLES)  # type: ignore[arg-type]  # counts are not asked here


def test_hostile_identifiers_are_names_and_nothing_else(database: Database, tmp_path: Path) -> None:
    """The pattern of the manifest refuses them; the statements would be safe without it, too."""
    name = 'x"; DROP TABLE y; --'
    execute(database, "CREATE TABLE y (id bigint)")
    execute(database, 'CREATE TABLE "x""; DROP TABLE y; --" ("a""b" bigint, vector bytea)')
    execute(database, 'INSERT INTO "x""; DROP TABLE y; --" VALUES (1, %s)', np.ones(384, "<f4").tobytes())
    honest = source_of(as_wordnet(database), tmp_path, source__tombstone=None)
    spec = honest.spec.__class__(honest.spec.postgres, honest.spec.table.__class__("public", name), 'a"b', "vector", None, None, None)
    source = Source(spec, honest.index, honest._connector)

    assert read_all(source).ids.tolist() == [1]
    execute(database, "SELECT * FROM y")


# --- the locked snapshot


def test_a_truncate_cannot_come_between_the_snapshot_and_the_first_read(
    shared: tuple[WordnetDatabase, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock, a TRUNCATE that commits after the snapshot shows an empty table: the trap that the lock is for."""
    database, source = shared
    with source.unit(seconds=30.0) as unit:
        truncated = threading.Event()

        def truncate() -> None:
            execute(database, "TRUNCATE embeddings")
            truncated.set()

        thread = threading.Thread(target=truncate)
        thread.start()
        wait_until("TRUNCATE to wait for us", lambda: bool(waiting_backends(database)))
        assert count(unit) == database.counts.live
        assert len(unit.heads(EVERYTHING).ids) == database.counts.live
        assert not truncated.is_set()
    thread.join(timeout=10)
    assert truncated.is_set()
    with source.unit(seconds=30.0) as unit:
        assert count(unit) == 0


def waiting_backends(database: Database) -> list[tuple[Any, ...]]:
    with database.admin_connect() as connection:
        return connection.execute(
            "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
        ).fetchall()


def test_the_snapshot_is_taken_after_the_locks(shared: tuple[WordnetDatabase, Source]) -> None:
    """A row that commits while we wait for the lock is seen; a snapshot taken before would miss it."""
    database, source = shared
    with database.admin_connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE faiss_metadata IN ACCESS EXCLUSIVE MODE")
        writer.execute("INSERT INTO embeddings (entity_id, model_name, vector) VALUES (77, %s, %s)", [MODEL, np.ones(384, "<f4").tobytes()])
        writer.execute("INSERT INTO faiss_metadata (entity_id, model_name) VALUES (77, %s)", [MODEL])
        seen: list[bool] = []

        def read() -> None:
            with source.unit(seconds=30.0) as unit:
                seen.append(77 in unit.heads(EVERYTHING).ids)

        thread = threading.Thread(target=read)
        thread.start()
        wait_until("the reader to wait for the lock", lambda: bool(waiting_backends(database)))
        writer.commit()
    thread.join(timeout=10)
    assert seen == [True]


def test_one_unit_sees_one_moment(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared
    with source.unit(seconds=30.0) as unit:
        before = count(unit)
        execute(database, "DELETE FROM embeddings WHERE model_name = %s", MODEL)
        assert count(unit) == before
        assert len(unit.heads(EVERYTHING).ids) == before


def test_the_as_of_point_moves_with_commits_and_the_fingerprint_with_the_columns(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared
    points = []
    for statement in (
        "SELECT 1",
        "CREATE TABLE unrelated ()",
        "ALTER TABLE embeddings RENAME COLUMN text TO body",
        "ALTER TABLE embeddings RENAME COLUMN vector TO old; ALTER TABLE embeddings ADD COLUMN vector bytea",
    ):
        execute(database, statement)
        with source.unit(seconds=30.0) as unit:
            points.append(unit.as_of)

    assert len({point.incarnation for point in points}) == 1
    assert points[0].snapshot != points[1].snapshot
    assert points[0].fingerprint == points[1].fingerprint == points[2].fingerprint != points[3].fingerprint


# --- what goes wrong


def reason_of(source: Source) -> tuple[SourceReason, str]:
    with pytest.raises(SourceError) as caught, source.unit(seconds=5.0) as unit:
        unit.survey(count(unit))
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"source__postgres__port": 1}, SourceReason.HOST_UNREACHABLE, ":1"),
        ({"source__postgres__host": "no-such-host.invalid"}, SourceReason.HOST_UNREACHABLE, "no-such-host.invalid"),
        ({"source__postgres__database": "nowhere"}, SourceReason.DATABASE_MISSING, "nowhere"),
        ({"source__postgres__sslMode": "Require"}, SourceReason.TLS_NOT_OFFERED, "TLS"),
        ({"source__table__name": "nowhere"}, SourceReason.TABLE_MISSING, "nowhere"),
        ({"source__table__schema": "nowhere"}, SourceReason.TABLE_MISSING, "nowhere"),
        ({"source__tombstone__metadata__table__name": "nowhere"}, SourceReason.TABLE_MISSING, "nowhere"),
        ({"source__columns__id": "nowhere"}, SourceReason.COLUMN_MISSING, "nowhere"),
        ({"source__columns__vector": "nowhere"}, SourceReason.COLUMN_MISSING, "nowhere"),
        ({"source__columns__model": "nowhere"}, SourceReason.COLUMN_MISSING, "nowhere"),
        ({"source__tombstone__metadata__deleted": "nowhere"}, SourceReason.COLUMN_MISSING, "nowhere"),
        ({"source__columns__vector": "text"}, SourceReason.TYPE_UNSUPPORTED, "text"),
        ({"source__columns__id": "text"}, SourceReason.TYPE_UNSUPPORTED, "text"),
        ({"source__tombstone__metadata__deleted": "entity_id"}, SourceReason.TYPE_UNSUPPORTED, "entity_id"),
        ({"index__dimension": 100}, SourceReason.DIMENSION_MISMATCH, "384"),
    ],
)
def test_each_wrong_setting_has_its_reason_and_names_its_object(
    make_wordnet_database: MakeWordnetDatabase, tmp_path: Path, changes: dict[str, Any], reason: SourceReason, said: str
) -> None:
    database = make_wordnet_database(rows=300)

    found, message = reason_of(source_of(database, tmp_path, **changes))

    assert found == reason, message
    assert said in message
    database.expect_no_backends()


def test_pgvectors_dimension_is_compared_before_any_row_is_read(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> None:
    database = make_wordnet_database(rows=300, variant=Variant.PGVECTOR)

    assert reason_of(source_of(database, tmp_path, index__dimension=100))[0] == SourceReason.DIMENSION_MISMATCH


def test_a_materialized_view_is_refused_with_a_reason(shared: tuple[WordnetDatabase, Source], tmp_path: Path) -> None:
    database, _ = shared
    execute(database, "CREATE MATERIALIZED VIEW seen AS SELECT * FROM embeddings")

    found, message = reason_of(source_of(database, tmp_path / "view", source__table__name="seen"))

    assert found == SourceReason.TYPE_UNSUPPORTED
    assert "view" in message


def test_a_partitioned_table_is_read_like_any_other(database: Database, tmp_path: Path) -> None:
    execute(database, "CREATE TABLE embeddings (entity_id bigint, vector bytea) PARTITION BY RANGE (entity_id)")
    execute(database, "CREATE TABLE low PARTITION OF embeddings FOR VALUES FROM (0) TO (5)")
    execute(database, "CREATE TABLE high PARTITION OF embeddings FOR VALUES FROM (5) TO (10)")
    for key in range(10):
        execute(database, "INSERT INTO embeddings VALUES (%s, %s)", key, np.full(384, key + 1, "<f4").tobytes())
    manifest = make_manifest(as_wordnet(database), source__columns={"id": "entity_id", "vector": "vector"}, source__tombstone=None)
    del manifest["spec"]["source"]["model"]

    assert read_all(make_source(write_settings(tmp_path, manifest, database.create_reader()))).ids.tolist() == list(range(10))


def test_wrong_password_and_missing_rights_have_reasons_of_their_own(shared: tuple[WordnetDatabase, Source], tmp_path: Path) -> None:
    database, _ = shared
    login = database.create_reader()
    settings_of_login = write_settings(tmp_path, make_manifest(database), login)
    (tmp_path / "credentials" / "password").write_text("canary-5d1f")
    found, message = reason_of(make_source(settings_of_login))
    assert found == SourceReason.AUTHENTICATION_FAILED
    assert "canary" not in message

    (tmp_path / "credentials" / "password").unlink()
    assert reason_of(make_source(settings_of_login))[0] == SourceReason.CREDENTIALS_MISSING

    (tmp_path / "credentials" / "password").write_text(login.password)
    execute(database, f'REVOKE SELECT ON faiss_metadata FROM "{login.username}"')
    found, message = reason_of(make_source(settings_of_login))
    assert found == SourceReason.PERMISSION_DENIED
    assert "faiss_metadata" in message


def test_a_cancelled_statement_and_a_killed_backend_leave_nothing(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared
    with pytest.raises(SourceError) as caught, source.unit(seconds=30.0) as unit:
        database.terminate_backends()
        unit.survey(count(unit))
    assert caught.value.reason == SourceReason.CONNECTION_LOST
    assert caught.value.retryable
    database.expect_no_backends()


def test_an_error_of_ours_inside_a_unit_ends_its_session_too(shared: tuple[WordnetDatabase, Source]) -> None:
    database, source = shared

    class OursError(Exception):
        pass

    with pytest.raises(OursError), source.unit(seconds=30.0) as unit:
        unit.survey(count(unit))
        raise OursError
    database.expect_no_backends()


def test_leaving_a_stream_half_read_ends_its_session_at_once(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path) -> None:
    """A rollback would wait for the rest of the COPY."""
    database = make_wordnet_database(rows=10_000)
    source = source_of(database, tmp_path)
    started = time.monotonic()
    with source.unit(seconds=30.0) as unit:
        next(unit.stream(EVERYTHING, 10))
    assert time.monotonic() - started < 15
    wait_until("the session to end", lambda: not database.backends())


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers_is_left_in_time(shared: tuple[WordnetDatabase, Source], tmp_path: Path) -> None:
    database, _ = shared
    with silent_server() as port:
        started = time.monotonic()
        found, _ = reason_of(source_of(database, tmp_path / "silent", source__postgres__port=port))
    assert found == SourceReason.HOST_UNREACHABLE
    assert time.monotonic() - started < 20


def test_a_frozen_backend_is_left_at_the_deadline(shared: tuple[WordnetDatabase, Source]) -> None:
    """No time-out of the server's own can end a statement of a server that stands still."""
    database, source = shared
    frozen: list[int] = []
    started = time.monotonic()
    try:
        with pytest.raises(SourceError) as caught, source.unit(seconds=2.0) as unit:
            frozen += [backend.pid for backend in database.backends()]
            os.kill(frozen[0], signal.SIGSTOP)
            unit.survey(count(unit))
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - started < 10
    assert caught.value.retryable
    wait_until("the session to end", lambda: not database.backends())


def test_environment_and_home_of_the_process_have_no_say(shared: tuple[WordnetDatabase, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    database, source = shared
    for name, value in {
        "PGHOST": "nowhere.invalid",
        "PGOPTIONS": "-c default_transaction_read_only=off",
        "PGSSLMODE": "verify-full",
        "PGPASSWORD": "other",
        "PGTARGETSESSIONATTRS": "standby",
    }.items():
        monkeypatch.setenv(name, value)
    with source.unit(seconds=30.0) as unit:
        assert count(unit) == database.counts.live
