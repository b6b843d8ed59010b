"""What `vectorindex-indexer sql` prints, run by a real psql on a real Postgres, is what it says to be."""

import re
import secrets
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from tests.support.postgres import Database, Login
from tests.support.psql import run_psql
from tests.support.replica import write_settings
from vectorindex_indexer import digest
from vectorindex_indexer.config import Identity, Settings, load_identity
from vectorindex_indexer.predicate import DeletedKind, LiveRows, compile_statement

DIMENSION = 3
VECTORS = [(1.5, -2.0, 0.25), (0.0, -0.0, 3e-5), (7.0, 8.0, 9.0)]
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=1 << 127), uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")]
INTEGERS = [-3, 0, 32767]

# Names that go wrong when a single one isn't quoted.
SCHEMA, TABLE, ID, VECTOR, MODEL, DELETED = "Select", "User", "Order", "group", "Model", "Deleted"
DIGESTS = ("High", "default")


@dataclass(frozen=True)
class Owner:
    """A database whose owner is no superuser, and the login of that owner."""

    database: Database
    login: Login

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database.conninfo(self.login), autocommit=True)


@pytest.fixture
def owner(database: Database) -> Owner:
    login = database.server.create_role()
    name = sql.Identifier(login.username)
    with database.admin_connect() as connection:
        connection.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database.name), name))
    return Owner(database, login)


@pytest.fixture
def role(owner: Owner) -> Iterator[str]:
    """Offer a name for the role that the script makes, gone after the test."""
    name = f'Re"ad\\er; :x -- {secrets.token_hex(4)}'
    yield name
    with owner.database.admin_connect() as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(name)))


def make_manifest(owner: Owner, **source: Any) -> dict[str, Any]:
    table = {
        "postgres": owner.database.as_source("reader"),
        "table": {"schema": SCHEMA, "name": TABLE},
        "columns": {"id": ID, "vector": VECTOR, "model": MODEL},
        "model": "m",
        "tombstone": {"column": DELETED},
        "digests": {"columns": list(DIGESTS)},
    }
    spec = {"source": table | source, "index": {"dimension": DIMENSION, "metric": "L2", "type": "Flat"}}
    return {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "docs"}, "spec": spec}


def print_sql(settings: Settings, *arguments: str) -> str:
    command = [sys.executable, "-m", "vectorindex_indexer", "sql", "--config", str(settings.config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def create_table(owner: Owner, id_type: str = "bigint", vector_type: str = "bytea", deleted: str = "boolean DEFAULT false") -> None:
    with owner.connect() as connection:
        connection.execute(f'CREATE SCHEMA "{SCHEMA}"')
        columns = f'"{ID}" {id_type} NOT NULL, "{VECTOR}" {vector_type}, "{MODEL}" varchar, "{DELETED}" {deleted}'
        connection.execute(f'CREATE TABLE "{SCHEMA}"."{TABLE}" ({columns})')


def fill(owner: Owner, rows: int, *, vector_bytes: int = 4 * DIMENSION, metadata: bool = False) -> None:
    vector = f"float4send(i) || decode(repeat('00', {vector_bytes - 4}), 'hex')"
    with owner.connect() as connection:
        connection.execute(f'INSERT INTO "{SCHEMA}"."{TABLE}" SELECT i, {vector}, \'m\', i % 10 = 0 FROM generate_series(1, {rows}) i')
        if metadata:
            connection.execute(f'CREATE TABLE "{SCHEMA}"."Meta" ("{ID}" bigint, "{DELETED}" boolean, "{MODEL}" text)')
            connection.execute(f'INSERT INTO "{SCHEMA}"."Meta" SELECT "{ID}", "{DELETED}", \'m\' FROM "{SCHEMA}"."{TABLE}"')


def to_bytes(vector: tuple[float, ...] | None, vector_type: str) -> bytes | None:
    """Return what the wire carries, written down here a second time."""
    if vector is None:
        return None
    kind, header = {"bytea": ("<{}f", b""), "vector": (">{}f", struct.pack(">2H", 3, 0)), "halfvec": (">{}e", struct.pack(">2H", 3, 0))}[
        vector_type
    ]
    return header + struct.pack(kind.format(len(vector)), *vector)


def signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


@pytest.mark.parametrize("vector_type", ["bytea", "vector", "halfvec"])
@pytest.mark.parametrize("id_type", ["smallint", "integer", "bigint", "uuid"])
def test_digest_columns_hold_the_digests_that_a_replica_makes(
    owner: Owner, role: str, tmp_path: Path, id_type: str, vector_type: str
) -> None:
    create_table(owner, id_type, vector_type)
    settings = write_settings(tmp_path, make_manifest(owner), owner.login)
    kind = "uuid" if id_type == "uuid" else "integer"
    run_psql(owner.database, print_sql(settings, "--id-type", kind, "--vector-type", vector_type, "--role", role), owner.login)

    ids: list[Any] = UUIDS if id_type == "uuid" else INTEGERS
    wire = dict(zip(ids, [*VECTORS[:2], None], strict=True))
    with owner.connect() as connection:
        for row, vector in wire.items():
            stored = to_bytes(vector, "bytea") if vector_type == "bytea" else None if vector is None else str(list(vector))
            connection.execute(f'INSERT INTO "{SCHEMA}"."{TABLE}" VALUES (%s, %s, \'m\', false)', [row, stored])
        found = connection.execute(f'SELECT "{ID}", "{DIGESTS[0]}", "{DIGESTS[1]}" FROM "{SCHEMA}"."{TABLE}"').fetchall()
    for row, high, low in found:
        key = row.bytes if id_type == "uuid" else digest.key_bytes(row)
        assert (high, low) == tuple(map(signed, digest.row_digest(key, to_bytes(wire[row], vector_type)))), (row, wire[row])
    assert len(found) == 3


def test_a_digest_column_is_made_anew_when_the_vector_changes(owner: Owner, role: str, tmp_path: Path) -> None:
    create_table(owner)
    fill(owner, 1)
    settings = write_settings(tmp_path, make_manifest(owner), owner.login)
    run_psql(owner.database, print_sql(settings, "--role", role), owner.login)
    with owner.connect() as connection:
        connection.execute(f'UPDATE "{SCHEMA}"."{TABLE}" SET "{VECTOR}" = %s', [to_bytes(VECTORS[0], "bytea")])
        ((high,),) = connection.execute(f'SELECT "{DIGESTS[0]}" FROM "{SCHEMA}"."{TABLE}"').fetchall()
        with pytest.raises(errors.GeneratedAlways):
            connection.execute(f'UPDATE "{SCHEMA}"."{TABLE}" SET "{DIGESTS[0]}" = 1')
    assert high == signed(digest.row_digest(digest.key_bytes(1), to_bytes(VECTORS[0], "bytea"))[0])


def test_the_role_may_read_the_tables_and_do_nothing_else(owner: Owner, role: str, tmp_path: Path) -> None:
    create_table(owner)
    fill(owner, 20, metadata=True)
    with owner.connect() as connection:
        connection.execute(f'CREATE TABLE "{SCHEMA}".other (id bigint)')
    metadata = {"table": {"schema": SCHEMA, "name": "Meta"}, "id": ID, "deleted": DELETED, "model": MODEL}
    settings = write_settings(tmp_path, make_manifest(owner, tombstone={"metadata": metadata}), owner.login)
    run_psql(owner.database, print_sql(settings, "--role", role), owner.login)

    login = Login(role, secrets.token_urlsafe(16))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(owner.database.conninfo(login))
    with owner.connect() as connection:  # what \password does
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(login.password)))

    with psycopg.connect(owner.database.conninfo(login), autocommit=True) as reader:
        for table in (TABLE, "Meta"):
            assert reader.execute(f'SELECT count(*) FROM "{SCHEMA}"."{table}"').fetchone() == (20,)
        with reader.transaction():
            reader.execute(f'LOCK TABLE "{SCHEMA}"."{TABLE}" IN ACCESS SHARE MODE')
        for forbidden in (
            f'INSERT INTO "{SCHEMA}"."{TABLE}" VALUES (99)',
            f'UPDATE "{SCHEMA}"."{TABLE}" SET "{MODEL}" = NULL',
            f'DELETE FROM "{SCHEMA}"."Meta"',
            f'TRUNCATE "{SCHEMA}"."Meta"',
            f'DROP TABLE "{SCHEMA}"."Meta"',
            f'SELECT * FROM "{SCHEMA}".other',
            f'CREATE TABLE "{SCHEMA}".mine (id bigint)',
            "CREATE ROLE mine",
            "CREATE DATABASE mine",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/passwd')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(forbidden)


def explain(owner: Owner, what: str, identity: Identity, only: str) -> str:
    """Return how Postgres means to read the live rows, asked in the words of the live-row predicate itself."""
    rows = LiveRows(identity.source, DeletedKind.BOOLEAN)
    clause, values = compile_statement(rows.clause)
    with owner.connect() as connection, psycopg.ClientCursor(connection) as cursor:
        statement = f'EXPLAIN SELECT {what} FROM "{SCHEMA}"."{TABLE}" AS t WHERE {clause} AND {only}'
        return "\n".join(line for (line,) in cursor.execute(statement.encode(), values))


def test_the_indexes_are_what_the_checks_need(owner: Owner, role: str, tmp_path: Path) -> None:
    create_table(owner)
    fill(owner, 20_000, vector_bytes=1536)
    settings = write_settings(tmp_path, make_manifest(owner), owner.login)
    identity = load_identity(settings.config)
    sums, one_range = f'count(*), sum("{DIGESTS[0]}"), sum("{DIGESTS[1]}")', f't."{ID}" >= 100 AND t."{ID}" < 200'
    with owner.connect() as connection:
        connection.execute(f'VACUUM (ANALYZE) "{SCHEMA}"."{TABLE}"')
    assert "Seq Scan" in explain(owner, f't."{VECTOR}"', identity, one_range)

    run_psql(owner.database, print_sql(settings, "--role", role), owner.login)

    assert 'Index Only Scan using "User_vectorindex_digests"' in explain(owner, sums, identity, "true")
    assert 'Index Only Scan using "User_vectorindex_digests"' in explain(owner, sums, identity, one_range)
    assert re.search(r'(?<!Only )Index Scan using "User_vectorindex_', explain(owner, f't."{VECTOR}"', identity, one_range))


def test_types_are_looked_up_when_asked(owner: Owner, role: str, tmp_path: Path) -> None:
    with owner.database.admin_connect() as connection:
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("GRANT USAGE ON SCHEMA extensions TO PUBLIC")
        connection.execute("ALTER EXTENSION vector SET SCHEMA extensions")
    create_table(owner, "integer", f"extensions.vector({DIMENSION})", "timestamptz")
    settings = write_settings(tmp_path, make_manifest(owner), owner.login)
    script = print_sql(settings, "--connect", "--credentials", str(settings.credentials), "--role", role)
    assert '"extensions".vector_send("group")' in script
    assert 'GRANT USAGE ON SCHEMA "Select", "extensions" TO' in script
    assert 'WHERE "Deleted" IS NULL' in script
    run_psql(owner.database, script, owner.login)

    again = print_sql(settings, "--connect", "--credentials", str(settings.credentials))
    assert "There is one already." in again


def test_a_wrong_guess_of_a_type_fails_and_makes_nothing(owner: Owner, tmp_path: Path) -> None:
    for id_type, vector_type, options in (
        ("uuid", "bytea", ()),
        ("text", "bytea", ()),
        ("bigint", "vector", ()),
        ("bigint", "bytea", ("--vector-type", "vector")),
        ("bigint", "bytea", ("--id-type", "uuid")),
    ):
        create_table(owner, id_type, vector_type)
        settings = write_settings(tmp_path, make_manifest(owner), owner.login)
        alter = "ALTER TABLE" + print_sql(settings, *options).partition("ALTER TABLE")[2]
        with pytest.raises(AssertionError, match=r"does not exist|could not convert"):
            run_psql(owner.database, alter, owner.login)
        with owner.connect() as connection:
            connection.execute(f'DROP SCHEMA "{SCHEMA}" CASCADE')


def test_a_partitioned_table_takes_the_script_too(owner: Owner, role: str, tmp_path: Path) -> None:
    with owner.connect() as connection:
        connection.execute(f'CREATE SCHEMA "{SCHEMA}"')
        columns = f'"{ID}" bigint, "{VECTOR}" bytea, "{MODEL}" text, "{DELETED}" boolean'
        connection.execute(f'CREATE TABLE "{SCHEMA}"."{TABLE}" ({columns}) PARTITION BY HASH ("{ID}")')
        for part in range(2):
            connection.execute(
                f'CREATE TABLE "{SCHEMA}".p{part} PARTITION OF "{SCHEMA}"."{TABLE}" FOR VALUES WITH (MODULUS 2, REMAINDER {part})'
            )
    fill(owner, 100)
    settings = write_settings(tmp_path, make_manifest(owner), owner.login)
    run_psql(owner.database, print_sql(settings, "--connect", "--credentials", str(settings.credentials), "--role", role), owner.login)
    with owner.connect() as connection:
        assert connection.execute(f'SELECT count("{DIGESTS[0]}") FROM "{SCHEMA}"."{TABLE}"').fetchone() == (100,)
