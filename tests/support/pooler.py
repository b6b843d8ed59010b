"""PgBouncer in transaction mode before a test's Postgres: Debian's, as many installations have it."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.support.postgres import UNPRIVILEGED_USER, Address, Login, find_free_port

START_SECONDS = 20.0
CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pooler_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = {clients}
query_wait_timeout = {wait_seconds}
server_login_retry = 1
admin_users = postgres
logfile = {folder}/log
pidfile = {folder}/pid
"""


@dataclass(frozen=True)
class Pooler:
    """A running PgBouncer."""

    address: Address
    folder: Path

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Ask its console, such as `SHOW POOLS`."""
        with psycopg.connect(self.address.conninfo("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            cursor = connection.execute(command)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def log_text(self) -> str:
        """Return what it has logged."""
        return (self.folder / "log").read_text()


@contextmanager
def pooler(server: Address, *logins: Login, sessions: int = 2, clients: int = 50, wait_seconds: int = 20) -> Iterator[Pooler]:
    """Provide a pooler that lets these logins share so many sessions of the server, each for one transaction at a time."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert program is not None, "pgbouncer is not installed; run as root: apt-get install pgbouncer"
    folder = Path(tempfile.mkdtemp(prefix="vectorindex-pooler-"))
    address = Address("127.0.0.1", find_free_port(), server.admin)
    values = {"host": server.host, "port": server.port, "pooler_port": address.port, "folder": folder}
    values |= {"sessions": sessions, "clients": clients, "wait_seconds": wait_seconds}
    (folder / "configuration").write_text(CONFIGURATION.format(**values))
    users = [server.admin, *logins]
    (folder / "users").write_text("".join(f'"{user.username}" "{user.password}"\n' for user in users))
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        owner = pwd.getpwnam(UNPRIVILEGED_USER)
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    process = subprocess.Popen(
        [program, "--quiet", folder / "configuration"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **identity,
    )
    made = Pooler(address, folder)
    try:
        _wait_until_ready(made, process)
        yield made
    finally:
        process.terminate()  # at once, without waiting for clients
        process.wait(START_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(made: Pooler, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"pgbouncer ended at its start: {made.log_text()}"
        with suppress(psycopg.OperationalError, FileNotFoundError):
            made.ask("SHOW VERSION")
            return
        time.sleep(0.05)
    raise AssertionError(f"pgbouncer takes no connection after {START_SECONDS:.0f} s: {made.log_text()}")
