"""The Postgres that is measured against: the tests' own, with the settings of a server and a data folder that is kept for each size."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from cluster.paths import cache
from tests.support.postgres import EmbeddedPostgres

SETTINGS: Final = {
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "random_page_cost": "1.1",
    "max_parallel_workers_per_gather": "0",  # one statement, one core: what is compared must not depend on who gets workers
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "wal_level": "minimal",  # a table filled in the transaction that made it is not logged as well
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",  # tables are vacuumed once when filled, and nothing runs beside a measurement
}

SESSION_SECONDS: Final = 10.0  # the longest that the process of a session is waited for


def default_folder() -> Path:
    """Return where tables are kept: the cache of this project, or for root, whose home Postgres may not enter, the system's cache."""
    if os.geteuid() == 0:
        return Path("/var/cache/vectorindex/benchmarks")
    return cache() / "benchmarks"


def name_of(binaries: Path | None) -> str:
    """Return the name of the folder for the data of a Postgres: no other can read them."""
    if binaries is None:
        return "tests"
    return subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


def forget(folder: Path) -> None:
    """Remove all kept tables."""
    shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A running server and the CPU time its sessions took."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self.address = postgres.address
        self._admin = self.connect("bench-admin")
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._permanent = self._children()  # our own session, and those that work for all

    @property
    def version(self) -> str:
        """The version of Postgres."""
        return str(self._admin.execute("SHOW server_version").fetchall()[0][0])

    @property
    def psql(self) -> Path:
        """The program psql of this server's version."""
        return self._postgres.binaries / "psql"

    def connect(self, application: str = "bench") -> psycopg.Connection[Any]:
        """Open an autocommit connection of the superuser."""
        return psycopg.connect(self.address.conninfo("postgres", application_name=application), autocommit=True)

    def close(self) -> None:
        """End our own session."""
        self._admin.close()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all sessions that ended. Waits for those that are about to: only then it is known."""
        deadline = time.monotonic() + SESSION_SECONDS
        while self._children() - self._permanent and time.monotonic() < deadline:
            time.sleep(0.001)  # a poll with a limit
        fields = Path(f"/proc/{self._postgres.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / self._ticks  # user and system time of the children that were waited for

    def _children(self) -> set[str]:
        pid = self._postgres.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def run_psql(self, statement: str) -> "Usage":
        """Have psql run one statement and drop what it prints. Raises CalledProcessError."""
        address = self.address
        command = [str(self.psql), "--no-psqlrc", "--quiet", "--command", statement]
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGUSER": address.admin.username,
            "PGPASSWORD": address.admin.password,
            "PGDATABASE": "postgres",
            "PGSSLMODE": "disable",
        }
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return wait_for(process)


@dataclass(frozen=True)
class Usage:
    """What a process that ended has used. Its peak of memory is for itself to tell: the kernel counts in what it was forked from."""

    cpu_seconds: float
    peak_rss_bytes: int = 0


def wait_for(process: "subprocess.Popen[Any]") -> Usage:
    """Wait for a process and return what it used, it alone. Raises CalledProcessError when it failed."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Usage(usage.ru_utime + usage.ru_stime)


@contextmanager
def running_server(folder: Path, binaries: Path | None = None) -> Iterator[Server]:
    """Start the server whose data are kept in this folder, and stop it at the end. `binaries` names the programs of another Postgres."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    postgres = EmbeddedPostgres(SETTINGS, folder, binaries)
    try:
        postgres.start()
        server = Server(postgres)
        try:
            yield server
        finally:
            server.close()
    finally:
        postgres.close()
