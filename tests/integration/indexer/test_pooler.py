"""A whole life of a replica through PgBouncer in transaction mode, and nothing of it seen by other clients of the same sessions."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from examples.wordnet.load import MODEL, live_rows
from tests.support.damage import damage_both
from tests.support.pooler import Pooler, pooler
from tests.support.postgres import Login, MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import make_manifest, make_source, running_replica, wait_until, write_settings
from tests.support.writers import run_writers
from vectorindex_indexer.config import Settings
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.errors import LoadRefusedError, SourceError
from vectorindex_indexer.load import EVERYTHING
from vectorindex_indexer.names import Result, SourceReason
from vectorindex_indexer.replica import Replica
from vectorindex_indexer.slots import hold_slot

LEAKABLE = (
    "application_name",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "max_parallel_workers_per_gather",
    "row_security",
    "search_path",
    "statement_timeout",
)


@pytest.fixture
def database(make_wordnet_database: MakeWordnetDatabase) -> WordnetDatabase:
    return make_wordnet_database(rows=2000)


@pytest.fixture
def login(database: WordnetDatabase) -> Login:
    return database.create_reader()


@pytest.fixture
def bouncer(database: WordnetDatabase, login: Login) -> Iterator[Pooler]:
    with pooler(database.address, login) as made:
        yield made


def settings_through(bouncer: Pooler, database: WordnetDatabase, login: Login, folder: Path, **changes: Any) -> Settings:
    return write_settings(folder, make_manifest(database, source__postgres__port=bouncer.address.port, **changes), login)


@pytest.fixture
def settings(bouncer: Pooler, database: WordnetDatabase, login: Login, tmp_path: Path) -> Settings:
    return settings_through(bouncer, database, login, tmp_path)


def connector_of(settings: Settings) -> Connector:
    return make_source(settings)._connector


def show_settings(bouncer: Pooler, database: WordnetDatabase, login: Login) -> dict[str, str]:
    """Return what a client of ordinary ways finds in the session that it is given."""
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
    conninfo = bouncer.address.conninfo(database.name, login, application_name="test-client")
    with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
        return dict(connection.execute(query, [list(LEAKABLE)]).fetchall())


def live_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        return [int(key) for key in live_rows(connection)[0]]


def answered_ids(replica: Replica) -> list[int]:
    view = replica.view
    return [] if view is None else sorted(view.live_entries()[0].tolist())


def test_a_replica_loads_proves_follows_and_repairs_through_it_and_leaves_no_trace(
    settings: Settings, bouncer: Pooler, database: WordnetDatabase, login: Login
) -> None:
    before = show_settings(bouncer, database, login)
    assert set(before) == set(LEAKABLE)
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert answered_ids(replica) == live_ids(database)
        assert replica.status().proof.result == Result.OK
        gone = live_ids(database)[:5]
        with run_writers(database, 4), database.admin_connect() as connection:
            connection.execute("UPDATE faiss_metadata SET deleted = true WHERE entity_id = ANY(%s) AND model_name = %s", [gone, MODEL])
            for _ in range(100):
                assert show_settings(bouncer, database, login) == before
                assert replica.status().proof.result == Result.OK, replica.status().proof.message
        wait_until("followed", lambda: answered_ids(replica) == live_ids(database))
        assert not set(gone) & set(answered_ids(replica))
        assert show_settings(bouncer, database, login) == before

    open_states = ("idle in transaction", "idle in transaction (aborted)")
    everybody = database.backends(application_like="%", states=open_states)
    assert not [one for one in everybody if one.application != "test-admin"]
    assert all(pool["cl_active"] == pool["cl_waiting"] == 0 for pool in bouncer.ask("SHOW POOLS") if pool["database"] == database.name)


def test_a_saved_index_is_taken_up_and_its_drift_repaired_through_it(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
    done = damage_both(settings.data, missing=20, changed=10, ghosts=[])

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        repair = replica.status().repairs[0]
        assert (repair.result, repair.drift.missing, repair.drift.changed) == ("repaired", len(done.missing), len(done.changed))
        assert answered_ids(replica) == live_ids(database)
        assert replica.status().proof.result == Result.OK


def test_a_slot_is_held_by_one_and_freed_for_the_next(settings: Settings, database: WordnetDatabase) -> None:
    connector = connector_of(settings)
    got = threading.Event()

    def wait() -> None:
        with hold_slot(connector, 1, wait_seconds=20, hold_seconds=60):
            got.set()

    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60, beat_seconds=0.1):
        with pytest.raises(LoadRefusedError), hold_slot(connector, 1, wait_seconds=0.5, hold_seconds=60):
            pass
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.5)
    assert got.wait(10)
    thread.join()
    with database.admin_connect() as connection:
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_a_slot_of_a_client_that_vanished_is_free_again(settings: Settings) -> None:
    connector = connector_of(settings)
    first = hold_slot(connector, 1, wait_seconds=0, hold_seconds=0.3)  # then our side of the connection is closed without a word
    with first, hold_slot(connector, 1, wait_seconds=10, hold_seconds=60):
        pass


def test_without_a_free_session_it_waits_no_longer_than_the_pooler_says(database: WordnetDatabase, login: Login, tmp_path: Path) -> None:
    with pooler(database.address, login, sessions=1, wait_seconds=1) as bouncer:
        source = make_source(settings_through(bouncer, database, login, tmp_path))
        with psycopg.connect(bouncer.address.conninfo(database.name, login)) as other:
            other.execute("SELECT 1")
            with pytest.raises(SourceError) as caught, source.unit(seconds=20.0):
                pass
            assert caught.value.retryable
            assert caught.value.reason is SourceReason.TOO_MANY_CONNECTIONS
        with source.unit(seconds=20.0) as unit:
            assert len(unit.heads(EVERYTHING).ids) == database.counts.live


def test_what_the_pooler_refuses_has_a_reason(bouncer: Pooler, database: WordnetDatabase, login: Login, tmp_path: Path) -> None:
    def reason_of(changed: Login = login, **changes: Any) -> SourceReason:
        source = make_source(settings_through(bouncer, database, changed, tmp_path, **changes))
        with pytest.raises(SourceError) as caught, source.unit(seconds=20.0):
            pass
        assert login.password not in caught.value.message
        return caught.value.reason

    assert reason_of(Login(login.username, "wrong")) == SourceReason.AUTHENTICATION_FAILED
    assert reason_of(Login("nobody_known", "x")) == SourceReason.AUTHENTICATION_FAILED
    assert reason_of(source__postgres__database="nowhere") == SourceReason.DATABASE_MISSING
    with database.admin_connect() as connection:
        connection.execute(f'REVOKE SELECT ON embeddings FROM "{login.username}"')
    assert reason_of() == SourceReason.PERMISSION_DENIED


def test_a_pooler_whose_server_is_away_is_told(database: WordnetDatabase, login: Login, tmp_path: Path) -> None:
    away = database.address.__class__("127.0.0.1", 1, database.address.admin)
    with pooler(away, login, wait_seconds=2) as bouncer:
        source = make_source(settings_through(bouncer, database, login, tmp_path))
        for _ in range(2):
            with pytest.raises(SourceError) as caught, source.unit(seconds=20.0):
                pass
            assert caught.value.retryable
            assert caught.value.reason is SourceReason.TOO_MANY_CONNECTIONS
            assert "Postgres is away" in caught.value.message
