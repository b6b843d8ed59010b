"""Process 1 of the Postgres image: set the database up when there is none yet, then become the server.

Understands the settings of the official image that a demo needs. Standard library only.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

SOCKETS = Path("/var/run/postgresql")
SCRIPTS = Path("/docker-entrypoint-initdb.d")


class SetupError(Exception):
    """The database cannot be set up; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What the environment asks for. `password` is None when the environment names none."""

    data: Path
    user: str
    database: str
    password: str | None = field(repr=False)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Turn the environment into settings; raise SetupError when they contradict each other."""
    password, file = environment.get("POSTGRES_PASSWORD"), environment.get("POSTGRES_PASSWORD_FILE")
    if password and file:
        raise SetupError("set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, not both")
    if file:
        try:
            password = Path(file).read_text().rstrip("\n")
        except OSError as error:
            raise SetupError(f"POSTGRES_PASSWORD_FILE names {file}, which cannot be read: {error.strerror}") from error
    user = environment.get("POSTGRES_USER") or "postgres"
    data = Path(environment.get("PGDATA") or "/var/lib/postgresql/data")
    return Settings(data=data, user=user, database=environment.get("POSTGRES_DB") or user, password=password or None)


def server_command(arguments: list[str], data: Path) -> list[str]:
    """Return what to run: the server with the given options, or another program that the arguments name."""
    if arguments and arguments[0] != "postgres" and not arguments[0].startswith("-"):
        return arguments
    options = arguments[1:] if arguments[:1] == ["postgres"] else arguments
    return ["postgres", "-D", str(data), "-c", "listen_addresses=*", "-c", f"unix_socket_directories={SOCKETS}", *options]


def is_empty(data: Path) -> bool:
    """Tell whether there is no database yet."""
    return not (data / "PG_VERSION").exists()


def set_up(settings: Settings) -> None:
    """Make the database cluster, the database and what the SQL scripts make. It appears in its place only when complete."""
    if settings.password is None:
        raise SetupError("there is no database yet, and to make one a password is needed: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE")
    partial = settings.data.with_name(settings.data.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()  # the password lies in no file
    os.write(write, f"{settings.password}\n".encode())
    os.close(write)
    run(
        "initdb",
        f"--pgdata={partial}",
        f"--username={settings.user}",
        f"--pwfile=/dev/fd/{read}",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        inherited=read,
    )
    os.close(read)
    with (partial / "pg_hba.conf").open("a") as rules:
        rules.write("\nhost all all all scram-sha-256\n")
    # Nobody from outside may see a database that is half made: the socket only.
    run("pg_ctl", f"--pgdata={partial}", "--wait", f"--options=-c listen_addresses='' -c unix_socket_directories={SOCKETS}", "start")
    try:
        if settings.database != "postgres":
            run("createdb", f"--host={SOCKETS}", f"--username={settings.user}", "--maintenance-db=postgres", settings.database)
        for script in sorted(SCRIPTS.glob("*.sql")):
            print(f"running {script}", flush=True)
            psql = ("psql", f"--host={SOCKETS}", f"--username={settings.user}", f"--dbname={settings.database}")
            run(*psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={script}")
    finally:
        run("pg_ctl", f"--pgdata={partial}", "--wait", "--mode=fast", "stop")
    partial.rename(settings.data)


def run(*command: str, inherited: int | None = None) -> None:
    """Run a program of Postgres to its end."""
    passed = () if inherited is None else (inherited,)
    if code := subprocess.run(command, stdin=subprocess.DEVNULL, pass_fds=passed, check=False).returncode:
        raise SetupError(f"{command[0]} exited {code}; its output says why")


def leave(_signal: int, _frame: FrameType | None) -> None:
    """End in order: process 1 ignores signals that nobody handles."""
    sys.exit(143)


def main() -> None:
    """Set up if need be, then become the server, so that signals reach it directly."""
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    try:
        settings = read_settings(os.environ)
        command = server_command(sys.argv[1:], settings.data)
        if command[0] == "postgres" and is_empty(settings.data):
            set_up(settings)
    except SetupError as error:
        sys.exit(f"error: {error}")
    os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)


if __name__ == "__main__":
    main()
