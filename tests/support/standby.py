"""A hot standby of a test's Postgres by streaming replication, and what may happen to one: it lags, it is promoted, it lost commits."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from tests.support.postgres import SUPERUSER, Connection, EmbeddedPostgres, PostgresError, Server, WordnetDatabase

WAIT_SECONDS = 30.0


class Standby(EmbeddedPostgres):
    """A server that repeats what another, of which it is a copy, has committed. It has the same roles and passwords."""

    def __init__(self, primary: EmbeddedPostgres, settings: dict[str, str] | None = None) -> None:
        self._primary = primary
        super().__init__(settings)
        self.address = replace(self.address, admin=primary.address.admin)

    def promote(self) -> None:
        """Make it a primary of its own."""
        with self.admin() as connection:
            connection.execute("SELECT pg_promote()")
        self._wait("it takes writes", "SELECT NOT pg_is_in_recovery()")

    def pause_replay(self) -> None:
        """Let it show no more of what arrives."""
        with self.admin() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
        self._wait("replay pauses", "SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def resume_replay(self) -> None:
        """Let it show what has arrived, and go on."""
        with self.admin() as connection:
            connection.execute("SELECT pg_wal_replay_resume()")

    def stop_receiving(self) -> None:
        """Cut it off: what the primary commits from now on never arrives."""
        with self.admin() as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
        self._wait("it receives no more", "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def catch_up(self) -> None:
        """Wait until it shows all that the primary has committed so far."""
        with psycopg.connect(self._primary.address.conninfo("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'test', '')")  # has what was written so far flushed, VACUUM's too
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        self._wait("it caught up", f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'")

    def admin(self) -> Connection:
        """Return an autocommit connection of the superuser."""
        return psycopg.connect(self.address.conninfo("postgres", application_name="test-admin"), autocommit=True)

    def see(self, database: WordnetDatabase) -> WordnetDatabase:
        """Return a database of the primary as this server has it."""
        return replace(database, server=Server(self.address))

    def _initialise(self) -> None:
        if self._owner is not None:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
        shutil.rmtree(self.data_folder, ignore_errors=True)
        origin = ["-h", str(self._primary.folder), "-p", str(self._primary.address.port), "-U", SUPERUSER]
        how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        command = [str(self.binaries / "pg_basebackup"), "-D", str(self.data_folder), *origin, *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **self._as_owner())
        if done.returncode != 0:
            self.close()
            raise PostgresError(f"pg_basebackup ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def _wait(self, what: str, question: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        with self.admin() as connection:
            while connection.execute(question).fetchone() != (True,):
                assert time.monotonic() < deadline, f"not within {WAIT_SECONDS:g} s: {what}\n{self.log_text()}"
                time.sleep(0.02)  # a poll with a limit


@contextmanager
def standby(primary: EmbeddedPostgres, settings: dict[str, str] | None = None) -> Iterator[Standby]:
    """Provide a running hot standby of this server until the context ends."""
    with Standby(primary, settings) as made:
        yield made
