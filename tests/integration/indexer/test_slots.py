"""Slots that limit how many loads read one database: how many there are, how long one waits, and what frees them."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.postgres import Database, EmbeddedPostgres, Login
from tests.support.replica import wait_until
from vectorindex_indexer.config import PostgresAddress, SslMode
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.errors import LoadRefusedError, SourceError
from vectorindex_indexer.names import ProofReason, SourceReason
from vectorindex_indexer.slots import hold_slot

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from tests.integration.indexer.test_slots import connector_to
from vectorindex_indexer.slots import hold_slot
folder, host, port, database = sys.argv[1:]
with hold_slot(connector_to(Path(folder), host, int(port), database), 1, wait_seconds=5, hold_seconds=60, beat_seconds=0.3):
    print("held", flush=True)
    time.sleep(60)  # it is killed or stopped long before
"""


def connector_to(folder: Path, host: str, port: int, database: str) -> Connector:
    address = PostgresAddress(host, port, database, SslMode.DISABLE)
    return Connector(address, credentials=folder, tls=folder, application_name="vectorindex search/docs")


def write_login(folder: Path, login: Login) -> None:
    (folder / "username").write_text(login.username)
    (folder / "password").write_text(login.password)


@pytest.fixture
def connector(database: Database, tmp_path: Path) -> Connector:
    write_login(tmp_path, database.create_reader())
    return connector_to(tmp_path, database.address.host, database.address.port, database.name)


@contextmanager
def other_process(database: Database, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the only slot; it is killed at the end."""
    arguments = [str(folder), database.address.host, str(database.address.port), database.name]
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def can_hold(connector: Connector, slots: int = 1, wait_seconds: float = 0.0) -> bool:
    try:
        with hold_slot(connector, slots, wait_seconds=wait_seconds, hold_seconds=10):
            return True
    except LoadRefusedError:
        return False


@pytest.mark.parametrize("slots", [1, 3])
def test_there_are_as_many_slots_as_said_and_one_more_waits_in_vain_for_so_long(connector: Connector, slots: int) -> None:
    with ExitStack() as held:
        for _ in range(slots):
            held.enter_context(hold_slot(connector, slots, wait_seconds=0, hold_seconds=60))
        started = time.monotonic()

        with pytest.raises(LoadRefusedError) as caught, hold_slot(connector, slots, wait_seconds=1.0, hold_seconds=60):
            pass

        assert 0.9 < time.monotonic() - started < 5.0
        assert caught.value.reason is ProofReason.REBUILD_SLOT_BUSY
        assert f"({slots})" in caught.value.message
    assert can_hold(connector, slots)


def test_a_slot_that_is_let_go_goes_to_who_waits(connector: Connector) -> None:
    got = threading.Event()

    def wait() -> None:
        with hold_slot(connector, 1, wait_seconds=20, hold_seconds=60):
            got.set()

    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.5)
    assert got.wait(10)
    thread.join()


def test_who_waits_holds_no_transaction_and_the_holder_no_snapshot(connector: Connector, database: Database) -> None:
    thread = threading.Thread(target=can_hold, args=(connector, 1, 3.0))
    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60):
        thread.start()
        wait_until("one holds, one waits", lambda: len(database.backends(application_like="vectorindex slot search/docs")) == 2)

        def holds_no_snapshot() -> bool:
            query = """SELECT count(backend_xmin), count(backend_xid) FROM pg_stat_activity
                WHERE application_name LIKE 'vectorindex slot%' AND state LIKE 'idle in%'"""
            with database.admin_connect() as connection:
                return connection.execute(query).fetchone() == (0, 0)

        for _ in range(20):  # who waits asks now and then, each time in a transaction that lasts for a moment
            wait_until("one at most is in a transaction", lambda: len(database.idle_in_transaction()) <= 1, 1)
            wait_until("nobody holds a snapshot", holds_no_snapshot, 1)
            time.sleep(0.02)  # between two looks at a state that must hold all the time
    thread.join()
    database.expect_no_backends()


def test_an_error_in_the_block_lets_the_slot_go(connector: Connector, database: Database) -> None:
    with pytest.raises(RuntimeError), hold_slot(connector, 1, wait_seconds=0, hold_seconds=60):
        raise RuntimeError

    assert can_hold(connector)
    wait_until("no session left", lambda: not database.backends())


def test_slots_of_another_database_are_others(connector: Connector, database: Database, tmp_path: Path) -> None:
    other = database.server.create_database()
    elsewhere = connector_to(tmp_path, other.address.host, other.address.port, other.name)

    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60):
        assert can_hold(elsewhere)


def test_a_killed_holder_frees_its_slot_at_once(connector: Connector, database: Database, tmp_path: Path) -> None:
    with other_process(database, tmp_path) as holder:
        assert not can_hold(connector)
        holder.kill()
        assert can_hold(connector, wait_seconds=5.0)


def test_a_hanging_holder_loses_its_slot_and_a_living_one_does_not(connector: Connector, database: Database, tmp_path: Path) -> None:
    with other_process(database, tmp_path) as holder:
        time.sleep(2.0)  # longer than Postgres waits for a beat: this holder is alive
        assert not can_hold(connector)

        holder.send_signal(signal.SIGSTOP)

        assert can_hold(connector, wait_seconds=10.0)
        assert not database.idle_in_transaction()


def test_a_slot_is_held_for_no_longer_than_agreed(connector: Connector, database: Database) -> None:
    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=0.5):
        assert can_hold(connector, wait_seconds=10.0)
        assert not database.idle_in_transaction()


def test_a_slot_lost_to_an_administrator_does_not_stop_the_load(
    connector: Connector, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60, beat_seconds=0.1):
        assert database.terminate_backends() == 1
        wait_until("the loss to be noticed", lambda: "was lost" in caplog.text)
    assert can_hold(connector)


def test_waiting_can_be_broken_off(connector: Connector) -> None:
    def stop() -> None:
        raise SourceError(SourceReason.CONNECTION_LOST, "the process is stopping")

    with (
        hold_slot(connector, 1, wait_seconds=0, hold_seconds=60),
        pytest.raises(SourceError, match="stopping"),
        hold_slot(connector, 1, wait_seconds=60, hold_seconds=60, waiting=stop),
    ):
        pass


def test_a_server_that_freezes_holds_nobody_up(tmp_path: Path) -> None:
    with EmbeddedPostgres() as server:
        write_login(tmp_path, server.address.admin)
        connector = connector_to(tmp_path, server.address.host, server.address.port, "postgres")
        with ExitStack() as frozen:
            with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60, beat_seconds=0.2):
                frozen.enter_context(server.frozen())
                time.sleep(0.5)  # a beat is under way now
                started = time.monotonic()
            assert time.monotonic() - started < 8.0

            with pytest.raises(SourceError) as caught, hold_slot(replace(connector, connect_seconds=2), 1, wait_seconds=1, hold_seconds=60):
                pass
            assert caught.value.retryable
        assert can_hold(connector, wait_seconds=10.0)
