"""Opens connections to Postgres and gives its refusals our own words; what is done with a connection is left to others.

Nothing but the arguments decides where a connection goes: no `PG*` variable, service or password file has a say.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import psycopg

from vectorindex_indexer.config import PostgresAddress, SslMode, read_credentials
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.tls import is_out_of_time, private_file

CONNECT_SECONDS: Final = 10
"""Longest wait for a connection. A server that needs longer is as good as away."""

_SSL_MODES: Final = {
    SslMode.DISABLE: "disable",
    SslMode.REQUIRE: "require",
    SslMode.VERIFY_CA: "verify-ca",
    SslMode.VERIFY_FULL: "verify-full",
}


@dataclass(frozen=True)
class Connector:
    """Opens one connection at a time. Credentials and CA are read anew for each, so a rotated password needs no restart."""

    address: PostgresAddress
    credentials: Path
    tls: Path
    application_name: str
    connect_seconds: int = CONNECT_SECONDS

    def named(self, purpose: str) -> Self:
        """Return a connector whose sessions are told from the others: `vectorindex <purpose> <namespace>/<name>`."""
        program, _, index = self.application_name.partition(" ")
        return replace(self, application_name=f"{program} {purpose} {index}")

    def open(self) -> psycopg.Connection:
        """Connect. Raise SourceError with the reason why not."""
        try:
            with self._client_certificate() as certificate:
                parameters = self._parameters() | certificate
                return psycopg.connect(**parameters, prepare_threshold=None)  # type: ignore[arg-type]
        except psycopg.Error as error:
            # They hold the connection that was being made, and the server would keep a session for it.
            traceback.clear_frames(error.__traceback__)
            raise self._explain(connect_error(error, self.address)) from None  # its text may quote the server
        except UnicodeError:
            raise SourceError(SourceReason.HOST_UNREACHABLE, f"{self.address.host!r} is no valid host name") from None

    def _explain(self, error: SourceError) -> SourceError:
        """Return the error, or a more precise one."""
        if error.reason is not SourceReason.TLS_UNTRUSTED or not is_out_of_time(
            self.address, self._root_certificate(), self.connect_seconds
        ):
            return error
        message = f"the certificate of {self.address.host}:{self.address.port}, or of its CA, has expired or is not valid yet"
        return SourceError(SourceReason.TLS_EXPIRED, message)

    def _parameters(self) -> dict[str, str | int]:
        credentials = read_credentials(self.credentials)
        parameters: dict[str, str | int] = {
            "host": self.address.host,
            "port": self.address.port,
            "dbname": self.address.database,
            "user": credentials.username,
            "password": credentials.password,
            "passfile": os.devnull,
            "application_name": self.application_name,
            "client_encoding": "UTF8",
            "require_auth": "scram-sha-256,none",  # never a password in the clear, whatever the server asks for
            "sslmode": _SSL_MODES[self.address.ssl_mode],
            "sslrootcert": str(self._root_certificate()),
            "sslcertmode": "disable",
            "sslcrl": str(self.tls / "unused"),  # without this word, it looks in the home folder
            "gssencmode": "disable",
            "connect_timeout": self.connect_seconds,
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        return parameters | {keyword: value for keyword, value in _neutral_defaults().items() if keyword not in parameters}

    def _root_certificate(self) -> Path:
        if self.address.ssl_mode not in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL):
            # With a file that exists, libpq would verify under `require` too; without this word, it looks in the home folder.
            return self.tls / "unused"
        path = self.tls / "ca.crt"
        if not path.is_file():
            mode = self.address.ssl_mode.value
            raise SourceError(SourceReason.TLS_FAILED, f"sslMode {mode} needs a CA certificate, but the TLS folder has no ca.crt")
        return path

    @contextlib.contextmanager
    def _client_certificate(self) -> Iterator[dict[str, str | int]]:
        """Offer what libpq needs to show our certificate, while it connects; nothing when the index has none."""
        if not self.address.client_certificate:
            yield {}
            return
        certificate, key = (_read_tls(self.tls, name) for name in ("tls.crt", "tls.key"))
        with private_file("tls.crt", certificate) as certificate_path, private_file("tls.key", key) as key_path:
            # A password that fits no key: without one, an encrypted key would make libpq ask the terminal.
            yield {"sslcertmode": "allow", "sslcert": certificate_path, "sslkey": key_path, "sslpassword": "none"}


def _read_tls(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        problem = "has no" if isinstance(error, FileNotFoundError) else "has an unreadable"
        message = f"a client certificate is asked for, but the TLS folder {problem} {name}"
        raise SourceError(SourceReason.CLIENT_CERTIFICATE_REFUSED, message, retryable=True) from None


def _neutral_defaults() -> dict[str, str]:
    """Give every option that the environment would set its built-in value instead. A service can only fill what isn't given."""
    options = psycopg.pq.Conninfo.get_defaults()
    return {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in options
        if option.envvar and option.envvar.decode() in os.environ and option.keyword != b"service"
    }


_REFUSED: Final = SourceReason.CLIENT_CERTIFICATE_REFUSED

_POOLER_BUSY: Final = "the pooler at {where} had no session of Postgres for us in time: all are taken, or Postgres is away"

# libpq passes on no SQLSTATE of a refused connection, so its text is all there is. It is matched, never shown.
_CONNECT_TEXTS: Final[tuple[tuple[str, SourceReason, str, bool], ...]] = (
    ("too many connections", SourceReason.TOO_MANY_CONNECTIONS, "{where} has no connection left for us", True),
    ("too many clients", SourceReason.TOO_MANY_CONNECTIONS, "{where} has no connection left for us", True),
    ("remaining connection slots", SourceReason.TOO_MANY_CONNECTIONS, "{where} has no connection left for us", True),
    ("no more connections allowed", SourceReason.TOO_MANY_CONNECTIONS, "{where} has no connection left for us", True),
    ("requires a valid client certificate", _REFUSED, "{where} asks for a client certificate, and none was given", False),
    ("certificate authentication failed", _REFUSED, "{where} let our client certificate not pass for this user", False),
    ("alert unknown ca", _REFUSED, "{where} does not know the CA of our client certificate", False),
    ("alert certificate expired", _REFUSED, "{where} found our client certificate expired", False),
    ("alert certificate required", _REFUSED, "{where} asks for a client certificate, and none was given", False),
    ("could not read certificate file", _REFUSED, "tls.crt in the TLS folder can't be read as a certificate", False),
    ("private key file", _REFUSED, "tls.key in the TLS folder is no unencrypted key of the certificate in tls.crt", True),
    ("certificate present, but not private key", _REFUSED, "tls.key in the TLS folder can't be read as a key", True),
    ("password authentication failed", SourceReason.AUTHENTICATION_FAILED, "{where} refused user name or password", False),
    ("authentication failed", SourceReason.AUTHENTICATION_FAILED, "{where} refused our authentication", False),
    ("password supplied", SourceReason.AUTHENTICATION_FAILED, "{where} asks for a password, but the one given is empty", False),
    (
        "authentication method requirement",
        SourceReason.AUTHENTICATION_FAILED,
        "{where} asks for another authentication than scram-sha-256, which alone is allowed; see password_encryption and pg_hba.conf",
        False,
    ),
    (
        "no pg_hba.conf entry",
        SourceReason.AUTHENTICATION_FAILED,
        "{where} has no rule that lets this user in from here with this sslMode (pg_hba.conf)",
        False,
    ),
    ("pg_hba.conf rejects", SourceReason.AUTHENTICATION_FAILED, "{where} has a rule that rejects this user (pg_hba.conf)", False),
    ("not permitted to log in", SourceReason.AUTHENTICATION_FAILED, "{where}: the role may not log in", False),
    ("permission denied for database", SourceReason.PERMISSION_DENIED, "{where}: the role lacks CONNECT on the database", False),
    ("does not support ssl", SourceReason.TLS_NOT_OFFERED, "{where} does not offer TLS, but sslMode {mode} asks for it", False),
    ("does not match host name", SourceReason.TLS_WRONG_HOST, "the certificate of {where} is for another host name", False),
    ("certificate verify failed", SourceReason.TLS_UNTRUSTED, "the certificate of {where} is not signed by the CA in ca.crt", False),
    ("root certificate file", SourceReason.TLS_FAILED, "ca.crt in the TLS folder can't be read as a certificate", False),
    ("query_wait_timeout", SourceReason.TOO_MANY_CONNECTIONS, _POOLER_BUSY, True),
    ("server_login_retry", SourceReason.HOST_UNREACHABLE, "the pooler at {where} can't reach Postgres", True),
    ("pgbouncer cannot connect", SourceReason.HOST_UNREACHABLE, "the pooler at {where} can't reach Postgres", True),
    ("no such database", SourceReason.DATABASE_MISSING, "the pooler at {where} knows no such database", False),
    ("no such user", SourceReason.AUTHENTICATION_FAILED, "the pooler at {where} knows no such user", False),
    ("conflict with recovery", SourceReason.STATEMENT_CANCELLED, "{where} broke off the connection: it stood in the way of replay", True),
    ("starting up", SourceReason.HOST_UNREACHABLE, "{where} is starting up", True),
    ("shutting down", SourceReason.HOST_UNREACHABLE, "{where} is shutting down", True),
    ("not accepting connections", SourceReason.HOST_UNREACHABLE, "{where} is not accepting connections", True),
    ("failed to resolve host", SourceReason.HOST_UNREACHABLE, "{where}: no such host name", True),
    ("could not translate host name", SourceReason.HOST_UNREACHABLE, "{where}: no such host name", True),
    ("connection refused", SourceReason.HOST_UNREACHABLE, "{where} refused the connection: nothing listens there", True),
    ("no route to host", SourceReason.HOST_UNREACHABLE, "{where}: no route to host", True),
    ("unreachable", SourceReason.HOST_UNREACHABLE, "{where}: network unreachable", True),
    ("timed out", SourceReason.HOST_UNREACHABLE, "{where} did not answer in time", True),
    ("timeout expired", SourceReason.HOST_UNREACHABLE, "{where} did not answer in time", True),
    ("server closed the connection", SourceReason.HOST_UNREACHABLE, "{where} closed the connection before it was set up", True),
    ("connection reset", SourceReason.HOST_UNREACHABLE, "{where} reset the connection before it was set up", True),
    ("ssl error", SourceReason.TLS_FAILED, "{where}: no agreement on TLS", False),
    ("ssl syscall error", SourceReason.TLS_FAILED, "{where}: broke off while TLS was set up", True),
    ("received invalid response", SourceReason.HOST_UNREACHABLE, "{where} answered, but is no Postgres", False),
)


def connect_error(error: psycopg.Error, address: PostgresAddress) -> SourceError:
    """Say in our words why a connection did not come about."""
    where = f"{address.host}:{address.port}"
    mode = address.ssl_mode.value
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return SourceError(SourceReason.HOST_UNREACHABLE, f"{where} did not answer in time", retryable=True)
    text = str(error).lower()
    if f'database "{address.database.lower()}" does not exist' in text:
        return SourceError(SourceReason.DATABASE_MISSING, f"{where} has no database {address.database!r}")
    if 'role "' in text and "does not exist" in text:
        return SourceError(SourceReason.AUTHENTICATION_FAILED, f"{where} has no such role")
    for needle, reason, message, retryable in _CONNECT_TEXTS:
        if needle in text:
            return SourceError(reason, message.format(where=where, mode=mode), retryable=retryable)
    return SourceError(SourceReason.SOURCE_ERROR, f"{where} refused the connection for a reason we have no word for", retryable=True)


_STATES: Final[dict[str, tuple[SourceReason, str]]] = {
    "3F000": (SourceReason.TABLE_MISSING, "a schema that holds {what} does not exist"),
    "42P01": (SourceReason.TABLE_MISSING, "table {what} does not exist"),
    "42703": (SourceReason.COLUMN_MISSING, "a column of {what} does not exist"),
    "42809": (
        SourceReason.TYPE_UNSUPPORTED,
        "{what} is of a kind that can't be proven; supported are tables, partitioned tables and views",
    ),
    "42501": (SourceReason.PERMISSION_DENIED, "our role may not read {what}; grant USAGE on the schema and SELECT on the whole table"),
    "55P03": (SourceReason.STATEMENT_CANCELLED, "{what} stayed locked by somebody else for too long"),
    "57014": (SourceReason.STATEMENT_CANCELLED, "a statement on {what} was cancelled, by a time-out or an administrator"),
    "40001": (SourceReason.STATEMENT_CANCELLED, "a statement on {what} was cancelled by a conflict, such as with recovery on a standby"),
    "40P01": (SourceReason.STATEMENT_CANCELLED, "a statement on {what} was cancelled by a deadlock"),
    "53300": (SourceReason.TOO_MANY_CONNECTIONS, "Postgres has no connection left for us"),
    "57P01": (SourceReason.CONNECTION_LOST, "the connection was terminated by an administrator"),
    "57P02": (SourceReason.CONNECTION_LOST, "the connection was lost: the server crashed"),
    "57P03": (SourceReason.HOST_UNREACHABLE, "Postgres is not accepting connections"),
    "57P04": (SourceReason.DATABASE_MISSING, "the database that held {what} was dropped"),
    "25P04": (SourceReason.STATEMENT_CANCELLED, "the transaction on {what} was ended by a time-out of the server"),
    "25P03": (SourceReason.CONNECTION_LOST, "the connection was closed by Postgres: it was idle in a transaction for too long"),
}
_RETRYABLE_CLASSES: Final = ("08", "40", "53", "57P", "55P03", "57014", "25P")


def statement_error(error: psycopg.Error, what: str) -> SourceError:
    """Say in our words why a statement failed. `what` names the tables it was about."""
    state = error.sqlstate
    if "query_wait_timeout" in str(error):  # of PgBouncer; its SQLSTATE says only that the connection failed
        message = f"a pooler had no session of Postgres for {what} in time: all are taken, or Postgres is away"
        return SourceError(SourceReason.TOO_MANY_CONNECTIONS, message, retryable=True)
    if state is None:
        return SourceError(SourceReason.CONNECTION_LOST, f"the connection was lost while reading {what}", retryable=True)
    if state == "42501" and error.diag.source_function == "check_enable_rls":  # the text is in the server's language, this isn't
        return SourceError(SourceReason.ROW_SECURITY, f"row security of {what} may hide rows from our role")
    retryable = state.startswith(_RETRYABLE_CLASSES)
    if state in _STATES:
        reason, message = _STATES[state]
        return SourceError(reason, message.format(what=what), retryable=retryable)
    if state.startswith("08"):
        return SourceError(SourceReason.CONNECTION_LOST, f"the connection was lost while reading {what}", retryable=True)
    return SourceError(SourceReason.SOURCE_ERROR, f"Postgres failed while reading {what} (SQLSTATE {state})", retryable=retryable)
