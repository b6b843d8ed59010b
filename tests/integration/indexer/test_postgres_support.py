"""The Postgres that the integration tests stand on: its own promises."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import Database, EmbeddedPostgres, Login

ROOT = Path(__file__).resolve().parents[3]
OURS = "vectorindex test/docs"


def test_databases_of_two_tests_have_nothing_in_common(database: Database) -> None:
    other = database.server.create_database()
    with database.admin_connect() as connection:
        connection.execute("CREATE TABLE t (v vector(3))")

    with other.admin_connect() as connection:
        row = connection.execute("SELECT to_regclass('t') IS NULL").fetchone()

    assert row == (True,)


def test_reader_reads_tables_made_later_and_writes_none(database: Database) -> None:
    login = database.create_reader()
    with database.admin_connect() as connection:
        connection.execute("CREATE TABLE t (v int)")

    with psycopg.connect(database.conninfo(login), autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO t VALUES (1)")


def test_wrong_password_is_refused(database: Database) -> None:
    login = Login(database.create_reader().username, "wrong")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.conninfo(login))


def test_our_idle_transactions_are_listed_and_others_are_not(database: Database) -> None:
    ours = psycopg.connect(database.conninfo(application_name=OURS))
    theirs = psycopg.connect(database.conninfo(application_name="app"))
    with ours, theirs:
        ours.execute("SELECT 1")
        theirs.execute("SELECT 1")

        assert [backend.application for backend in database.idle_in_transaction()] == [OURS]

        ours.rollback()
        assert database.idle_in_transaction() == []


def test_terminated_backends_are_ours_alone(database: Database) -> None:
    ours = psycopg.connect(database.conninfo(application_name=OURS))
    theirs = psycopg.connect(database.conninfo(application_name="app"))
    with theirs:
        assert database.terminate_backends() == 1

        with pytest.raises(psycopg.OperationalError):
            ours.execute("SELECT 1")
        assert theirs.execute("SELECT 1").fetchone() == (1,)
    ours.close()


def test_restart_keeps_the_data_and_close_leaves_nothing() -> None:
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.address.conninfo("postgres")) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS v")
        server.stop(signal.SIGQUIT)
        server.start()
        with psycopg.connect(server.address.conninfo("postgres")) as connection:
            assert connection.execute("SELECT v FROM t").fetchone() == (1,)
        pid = server.pid

    assert not server.folder.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_server_ends_when_its_test_run_is_killed() -> None:
    program = "from tests.support.postgres import *; s = EmbeddedPostgres(); s.start(); print(s.pid, s.folder, flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()

        owner.kill()

    wait_until_gone(int(pid))
    with EmbeddedPostgres():  # the next run removes what the killed one has left
        assert not Path(folder).exists()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


def test_a_session_of_ours_that_stays_idle_in_a_transaction_is_noticed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.postgres.LEAVE_SECONDS", 0.2)
    with psycopg.connect(database.conninfo(application_name="vectorindex default/docs slot")) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(AssertionError, match="idle in a transaction"):
            database.assert_no_session_is_left()
    database.assert_no_session_is_left()
