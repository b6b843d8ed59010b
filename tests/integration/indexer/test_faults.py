"""Connections that fail under a running replica: it serves on, says why, follows again, and leaves no transaction open."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from examples.wordnet.load import MODEL, live_rows
from tests.support.gate import gate
from tests.support.postgres import EmbeddedPostgres, Login, Server, WordnetDatabase, create_wordnet_database
from tests.support.replica import make_manifest, running_replica, wait_until, write_settings
from vectorindex_indexer.belief import Terms
from vectorindex_indexer.config import PostgresAddress, Settings, SslMode
from vectorindex_indexer.connect import Connector, statement_error
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import Result, SourceReason
from vectorindex_indexer.replica import Replica
from vectorindex_indexer.source import Unit

ROWS = 2000
PERIOD = 3
DEADLINE = 2.0
OFTEN = {"consistency__periodSeconds": PERIOD, "consistency__maxSourceDutyPercent": 100}  # a check each period, however slow the machine


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, which it may freeze."""
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def database(embedded: EmbeddedPostgres) -> Iterator[WordnetDatabase]:
    server = Server(embedded.address)
    yield create_wordnet_database(server, ROWS)
    server.clean()


@pytest.fixture
def login(database: WordnetDatabase) -> Login:
    return database.create_reader()


@pytest.fixture
def settings(database: WordnetDatabase, login: Login, tmp_path: Path) -> Settings:
    return write_settings(tmp_path, make_manifest(database, **OFTEN), login)


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the source less time for one transaction than the two minutes that it has."""
    monkeypatch.setattr("vectorindex_indexer.replica.Terms", partial(Terms, deadline=DEADLINE))


def answered_ids(replica: Replica) -> list[int]:
    view = replica.view
    assert view is not None, "nothing is served"
    return sorted(view.live_entries()[0].tolist())


def live_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        return [int(key) for key in live_rows(connection)[0]]


def tombstone(database: WordnetDatabase, keys: list[int]) -> None:
    with database.admin_connect() as connection:
        connection.execute("UPDATE faiss_metadata SET deleted = true WHERE entity_id = ANY(%s) AND model_name = %s", [keys, MODEL])


def assert_follows_again(replica: Replica, database: WordnetDatabase, within: float) -> None:
    """The replica proves itself within so many seconds, follows what happens upstream, and leaves no session behind."""
    wait_until("proven again", lambda: replica.status().proof.result == Result.OK, within)
    tombstone(database, live_ids(database)[:3])
    wait_until("followed", lambda: answered_ids(replica) == live_ids(database), 2 * PERIOD)
    assert not database.idle_in_transaction()
    wait_until("no session of ours", lambda: not database.backends())


# --- frozen and silent servers


def test_a_server_that_freezes_in_a_statement_is_left_at_the_deadline_and_followed_again(
    embedded: EmbeddedPostgres, database: WordnetDatabase, settings: Settings, short_deadline: None
) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        before = answered_ids(replica)
        with database.admin_connect(autocommit=False) as locker:
            locker.execute("LOCK TABLE embeddings IN ACCESS EXCLUSIVE MODE")
            wait_until("a statement under way", lambda: any(one.state == "active" for one in database.backends()))
            with embedded.frozen():
                frozen = time.monotonic()
                wait_until("unknown", lambda: replica.status().proof.result == Result.UNKNOWN)
                assert time.monotonic() - frozen < DEADLINE + 1
                status = replica.status()
                assert status.proof.reason == SourceReason.STATEMENT_CANCELLED
                assert "the connection was closed" in status.source.message
                assert replica.is_ready()
                assert answered_ids(replica) == before, "it serves on"
            locker.rollback()

        assert_follows_again(replica, database, PERIOD)


def test_a_server_that_freezes_between_two_checks_is_told_and_followed_again(
    embedded: EmbeddedPostgres, database: WordnetDatabase, settings: Settings
) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        with embedded.frozen():
            wait_until("unknown", lambda: replica.status().proof.result == Result.UNKNOWN)
            assert replica.status().proof.reason == SourceReason.HOST_UNREACHABLE
            assert "in time" in replica.status().source.message
            assert replica.is_ready()

        assert_follows_again(replica, database, PERIOD)


def test_a_connection_that_goes_silent_is_left_at_the_deadline_and_followed_again(
    database: WordnetDatabase, login: Login, tmp_path: Path, short_deadline: None
) -> None:
    with gate(database.address.host, database.address.port) as door:
        manifest = make_manifest(database, source__postgres__port=door.port, **OFTEN)
        with running_replica(write_settings(tmp_path, manifest, login)) as replica:
            wait_until("ready", replica.is_ready)
            with database.admin_connect(autocommit=False) as locker:
                locker.execute("LOCK TABLE embeddings IN ACCESS EXCLUSIVE MODE")
                wait_until("a statement under way", lambda: any(one.state == "active" for one in database.backends()))
                assert door.silence()
                silent = time.monotonic()
                wait_until("unknown", lambda: replica.status().proof.result == Result.UNKNOWN)
                assert time.monotonic() - silent < DEADLINE + 1
                assert replica.is_ready()
                locker.rollback()

            assert_follows_again(replica, database, PERIOD)


def test_a_connection_that_never_came_about_is_closed_at_once(tmp_path: Path) -> None:
    """Else a server that thaws would find one session more for each time we tried."""
    login = Login("nobody", "nothing")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = PostgresAddress("127.0.0.1", silent.getsockname()[1], "postgres", SslMode.DISABLE)
        (tmp_path / "username").write_text(login.username)
        (tmp_path / "password").write_text(login.password)
        connector = Connector(address, credentials=tmp_path, tls=tmp_path, application_name="vectorindex search/docs", connect_seconds=2)
        with pytest.raises(SourceError, match="did not answer in time") as kept:
            connector.open()
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(5)
            while accepted.recv(4096):
                pass  # what it said, up to its end

    assert kept.value.retryable


# --- a load that is broken off


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a load read a hundred rows at a time, so that it can be met in its middle."""
    stream = Unit.stream
    monkeypatch.setattr(Unit, "stream", lambda unit, one, chunk_rows=100: stream(unit, one, min(chunk_rows, 100)))


def meet_load(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Do something once, in the middle of the first load; return the rows that had been read by then."""
    advance, met = Replica._advance, list[int]()

    def meet(replica: Replica, generation: int, done: int, expected: int) -> None:
        advance(replica, generation, done, expected)
        if done and not met:
            met.append(done)
            assert replica.view is None
            act()

    monkeypatch.setattr(Replica, "_advance", meet)
    return met


def test_a_backend_killed_in_the_middle_of_a_load_leaves_no_partial_index(
    embedded: EmbeddedPostgres, login: Login, tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(embedded.address)
    database = create_wordnet_database(server, 10_000)
    reasons: set[str] = set()

    def act() -> None:
        assert database.terminate_backends() >= 1
        tombstone(database, live_ids(database)[-5:])

    met = meet_load(monkeypatch, act)
    settings = write_settings(tmp_path, make_manifest(database), database.create_reader())
    with running_replica(settings) as replica:

        def ready() -> bool:
            reasons.add(replica.status().source.reason)
            return replica.is_ready()

        wait_until("ready", ready)

        assert 0 < met[0] < database.counts.live, "it was the middle"
        assert SourceReason.CONNECTION_LOST in reasons
        assert answered_ids(replica) == live_ids(database), "retried from a new snapshot"
        assert replica.status().proof.result == Result.OK
        assert not database.idle_in_transaction()
    server.clean()


# --- refusals


def test_no_refusal_is_asked_for_again_in_a_hot_loop(embedded: EmbeddedPostgres, settings: Settings) -> None:
    (settings.credentials / "password").write_text("wrong")
    before = embedded.log_text().count("password authentication failed")
    seconds = 2 * PERIOD
    with running_replica(settings):
        time.sleep(seconds)  # the thing measured is how little happens in that time
        tries = embedded.log_text().count("password authentication failed") - before

    # After each failure a pause that doubles from half a second up to the period.
    assert 2 <= tries <= 5


@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        ("ALTER ROLE {role} PASSWORD 'other'", SourceReason.AUTHENTICATION_FAILED),
        ("ALTER ROLE {role} NOLOGIN", SourceReason.AUTHENTICATION_FAILED),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", SourceReason.TOO_MANY_CONNECTIONS),
        ("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC", SourceReason.PERMISSION_DENIED),
        ("REVOKE USAGE ON SCHEMA public FROM PUBLIC", SourceReason.PERMISSION_DENIED),
        ("REVOKE SELECT ON embeddings FROM {role}", SourceReason.PERMISSION_DENIED),
        ("ALTER TABLE faiss_metadata ENABLE ROW LEVEL SECURITY", SourceReason.ROW_SECURITY),
        ("ALTER TABLE embeddings RENAME TO elsewhere", SourceReason.TABLE_MISSING),
        ("ALTER TABLE embeddings RENAME vector TO elsewhere", SourceReason.COLUMN_MISSING),
        ("ALTER TABLE embeddings ALTER vector TYPE text USING 'x'", SourceReason.TYPE_UNSUPPORTED),
    ],
)
def test_each_refusal_while_running_has_its_reason_and_serving_goes_on(
    database: WordnetDatabase, settings: Settings, caplog: pytest.LogCaptureFixture, refuse: str, reason: SourceReason
) -> None:
    login = Login(*((settings.credentials / name).read_text() for name in ("username", "password")))
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        with database.admin_connect() as connection:
            connection.execute(refuse.format(role=login.username, database=database.name))
        for _ in range(2):  # the first may have been under way
            seen = replica.status().proof.checked_at
            wait_until("a check", partial(lambda seen: replica.status().proof.checked_at > seen, seen))
        status = replica.status()

        assert status.source.reason == reason
        assert replica.is_ready()
        assert status.proof.result == Result.UNKNOWN
        told = json.dumps([status.source.message, status.proof.message]) + caplog.text + replica.metrics.render().decode()
        assert login.password not in told
        assert not database.idle_in_transaction()


def test_a_dropped_database_and_its_return_are_told(database: WordnetDatabase, settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        with database.server.connect() as connection:
            connection.execute(f"ALTER DATABASE {database.name} WITH ALLOW_CONNECTIONS false")
            wait_until("unknown", lambda: replica.status().proof.result == Result.UNKNOWN)
            connection.execute(f"ALTER DATABASE {database.name} WITH ALLOW_CONNECTIONS true")
            wait_until("proven again", lambda: replica.status().proof.result == Result.OK)
            connection.execute(f"ALTER DATABASE {database.name} RENAME TO {database.name}_away")
            wait_until("the reason", lambda: replica.status().source.reason == SourceReason.DATABASE_MISSING)
            assert replica.is_ready()
            connection.execute(f"ALTER DATABASE {database.name}_away RENAME TO {database.name}")

        assert_follows_again(replica, database, PERIOD + 1)


def test_a_restarted_server_is_followed_again(embedded: EmbeddedPostgres, database: WordnetDatabase, settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        embedded.stop()
        wait_until("the reason", lambda: replica.status().source.reason == SourceReason.HOST_UNREACHABLE)
        assert replica.is_ready()
        embedded.start()

        assert_follows_again(replica, database, PERIOD + 1)


def test_a_rotated_password_is_used_within_a_period(database: WordnetDatabase, login: Login, settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        with database.admin_connect() as connection:
            connection.execute(f"ALTER ROLE {login.username} PASSWORD 'rotated-canary'")
        wait_until("the reason", lambda: replica.status().source.reason == SourceReason.AUTHENTICATION_FAILED)
        (settings.credentials / "password").write_text("rotated-canary\n")

        assert_follows_again(replica, database, PERIOD + 1)


def test_waiting_for_a_lock_is_bounded_and_tried_again(database: WordnetDatabase, settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        with database.admin_connect(autocommit=False) as locker:
            locker.execute("LOCK TABLE faiss_metadata IN ACCESS EXCLUSIVE MODE")
            wait_until("the reason", lambda: replica.status().source.reason == SourceReason.STATEMENT_CANCELLED)
            assert "locked" in replica.status().source.message
            assert replica.is_ready()
            locker.rollback()

        assert_follows_again(replica, database, PERIOD + 1)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (psycopg.errors.ConnectionFailure, SourceReason.CONNECTION_LOST, True),
        (psycopg.errors.ProtocolViolation, SourceReason.CONNECTION_LOST, True),
        (psycopg.errors.SerializationFailure, SourceReason.STATEMENT_CANCELLED, True),
        (psycopg.errors.DeadlockDetected, SourceReason.STATEMENT_CANCELLED, True),
        (psycopg.errors.DiskFull, SourceReason.SOURCE_ERROR, True),
        (psycopg.errors.OutOfMemory, SourceReason.SOURCE_ERROR, True),
        (psycopg.errors.TooManyConnections, SourceReason.TOO_MANY_CONNECTIONS, True),
        (psycopg.errors.AdminShutdown, SourceReason.CONNECTION_LOST, True),
        (psycopg.errors.CrashShutdown, SourceReason.CONNECTION_LOST, True),
        (psycopg.errors.CannotConnectNow, SourceReason.HOST_UNREACHABLE, True),
        (psycopg.errors.DatabaseDropped, SourceReason.DATABASE_MISSING, True),
        (psycopg.errors.LockNotAvailable, SourceReason.STATEMENT_CANCELLED, True),
        (psycopg.errors.QueryCanceled, SourceReason.STATEMENT_CANCELLED, True),
        (psycopg.errors.IdleInTransactionSessionTimeout, SourceReason.CONNECTION_LOST, True),
        (psycopg.errors.UndefinedTable, SourceReason.TABLE_MISSING, False),
        (psycopg.errors.InsufficientPrivilege, SourceReason.PERMISSION_DENIED, False),
        (psycopg.errors.InternalError_, SourceReason.SOURCE_ERROR, False),
    ],
)
def test_each_class_of_errors_is_tried_again_or_not(error: type[psycopg.Error], reason: SourceReason, *, retryable: bool) -> None:
    found = statement_error(error("the server's own words: canary"), "public.docs")

    assert (found.reason, found.retryable) == (reason, retryable)
    assert "canary" not in found.message
