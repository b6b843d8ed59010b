"""TLS with an authority of our own: each sslMode, each way to be refused with its own reason, and rotation without a restart."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import SUPERUSER, EmbeddedPostgres, find_system_binaries
from tests.support.tls import Authority, Certificate
from vectorindex_indexer.config import PostgresAddress, SslMode
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason

PASSWORD = "canary-58b1"
HBA = """\
local all postgres trust
hostssl postgres certain 127.0.0.1/32 cert clientcert=verify-full
hostssl postgres careful 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
host postgres all 127.0.0.1/32 scram-sha-256
"""


class TlsServer:
    """A Postgres that knows TLS, and its two authorities: of its own certificates, and of its clients'."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path) -> None:
        self.postgres = postgres
        self.authority = Authority(folder / "servers")
        self.clients = Authority(folder / "clients")
        self.good = self.authority.issue("good", alternative="IP:127.0.0.1")
        (postgres.data_folder / "pg_hba.conf").write_text(HBA)
        self.use(self.good)
        with self.admin() as connection:
            for role in ("plain", "certain", "careful"):
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")

    def admin(self) -> "psycopg.Connection[object]":
        return psycopg.connect(
            host=str(self.postgres.folder), port=self.postgres.address.port, user=SUPERUSER, dbname="postgres", autocommit=True
        )

    def use(self, certificate: Certificate | None) -> None:
        """Offer TLS with this certificate, or none."""
        self.postgres.stop()
        folder = self.postgres.data_folder
        settings = [f"ssl = {'on' if certificate else 'off'}"]
        chosen = certificate or self.good
        for name, path in (("cert", chosen.certificate), ("key", chosen.key), ("ca", self.clients.root.certificate)):
            shutil.copy(path, folder / f"tls-{name}")
            shutil.chown(folder / f"tls-{name}", folder.owner(), folder.group())
            (folder / f"tls-{name}").chmod(0o600)
            settings.append(f"ssl_{name}_file = 'tls-{name}'")
        (folder / "postgresql.auto.conf").write_text("\n".join(settings))
        self.postgres.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with EmbeddedPostgres(binaries=find_system_binaries()) as postgres:
        yield TlsServer(postgres, tmp_path_factory.mktemp("tls"))


@pytest.fixture
def folder(server: TlsServer, tmp_path: Path) -> Path:
    """The TLS and credentials folder of an index."""
    (tmp_path / "password").write_text(PASSWORD)
    shutil.copy(server.authority.root.certificate, tmp_path / "ca.crt")
    return tmp_path


def open_as(folder: Path, server: TlsServer, role: str, mode: SslMode, *, certificate: bool = False) -> bool:
    """Connect as an index would; tell whether the connection is encrypted."""
    (folder / "username").write_text(role)
    address = PostgresAddress("127.0.0.1", server.postgres.address.port, "postgres", mode, certificate)
    with Connector(address, credentials=folder, tls=folder, application_name="vectorindex search/docs").open() as connection:
        (encrypted,) = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() or (None,)
    return bool(encrypted)


def refusal(
    folder: Path, server: TlsServer, role: str, mode: SslMode, *, host: str = "127.0.0.1", certificate: bool = False
) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_as(folder, server, role, mode, certificate=certificate)
    assert PASSWORD not in caught.value.message
    assert str(folder) not in caught.value.message
    return caught.value


def give(folder: Path, certificate: Certificate, mode: int = 0o640) -> None:
    """Put a client certificate where a mounted Secret would be."""
    shutil.copy(certificate.certificate, folder / "tls.crt")
    shutil.copy(certificate.key, folder / "tls.key")
    (folder / "tls.key").chmod(mode)


VERIFYING = [SslMode.VERIFY_CA, SslMode.VERIFY_FULL]


# --- the server's certificate


@pytest.mark.parametrize(
    ("mode", "encrypted"),
    [(SslMode.DISABLE, False), (SslMode.REQUIRE, True), (SslMode.VERIFY_CA, True), (SslMode.VERIFY_FULL, True)],
)
def test_each_mode_connects_to_the_right_server(server: TlsServer, folder: Path, mode: SslMode, *, encrypted: bool) -> None:
    server.use(server.good)

    assert open_as(folder, server, "plain", mode) is encrypted


@pytest.mark.parametrize("mode", [mode for mode in SslMode if mode is not SslMode.DISABLE])
def test_a_server_without_tls_is_refused_by_every_mode_that_asks_for_it(server: TlsServer, folder: Path, mode: SslMode) -> None:
    server.use(None)

    assert refusal(folder, server, "plain", mode).reason is SourceReason.TLS_NOT_OFFERED


@pytest.mark.parametrize("mode", VERIFYING)
def test_a_certificate_of_another_authority_is_untrusted(server: TlsServer, folder: Path, mode: SslMode) -> None:
    server.use(server.clients.issue("impostor", alternative="IP:127.0.0.1"))

    assert refusal(folder, server, "plain", mode).reason is SourceReason.TLS_UNTRUSTED
    assert open_as(folder, server, "plain", SslMode.REQUIRE)


@pytest.mark.parametrize("mode", VERIFYING)
def test_an_expired_certificate_is_told_as_such(server: TlsServer, folder: Path, mode: SslMode) -> None:
    server.use(server.authority.issue("old", alternative="IP:127.0.0.1", expired=True))

    assert refusal(folder, server, "plain", mode).reason is SourceReason.TLS_EXPIRED


def test_another_host_name_is_refused_where_names_count(server: TlsServer, folder: Path) -> None:
    server.use(server.authority.issue("db.example", alternative="DNS:db.example"))

    assert refusal(folder, server, "plain", SslMode.VERIFY_FULL).reason is SourceReason.TLS_WRONG_HOST
    assert open_as(folder, server, "plain", SslMode.VERIFY_CA)


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_a_ca_file_that_is_none_is_told(server: TlsServer, folder: Path, content: str) -> None:
    server.use(server.good)
    (folder / "ca.crt").write_text(content)

    assert refusal(folder, server, "plain", SslMode.VERIFY_FULL).reason is SourceReason.TLS_FAILED


def test_a_new_authority_is_believed_without_a_restart(server: TlsServer, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    server.use(server.good)
    assert open_as(folder, server, "plain", SslMode.VERIFY_FULL)
    other = Authority(tmp_path_factory.mktemp("rotation") / "next")
    server.use(other.issue("next", alternative="IP:127.0.0.1"))
    assert refusal(folder, server, "plain", SslMode.VERIFY_FULL).reason is SourceReason.TLS_UNTRUSTED

    with (folder / "ca.crt").open("ab") as bundle:
        bundle.write(other.root.certificate.read_bytes())

    assert open_as(folder, server, "plain", SslMode.VERIFY_FULL)
    server.use(server.good)
    assert open_as(folder, server, "plain", SslMode.VERIFY_FULL), "a bundle holds both"


# --- ours


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("role", ["certain", "careful"])
def test_our_certificate_lets_us_in_whatever_the_mode_of_its_files(server: TlsServer, folder: Path, role: str, mode: int) -> None:
    """`certain` needs no password beside it, `careful` does. libpq itself takes no key that others may read."""
    server.use(server.good)
    give(folder, server.clients.issue("certain"), mode)
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert open_as(folder, server, role, SslMode.VERIFY_FULL, certificate=True)

    assert len(list(Path("/proc/self/fd").iterdir())) == before, "a copy of the key was left behind"
    assert not list(Path(tempfile.gettempdir()).glob("tls.*"))


def test_our_certificate_lets_us_in_on_a_system_without_files_in_memory(
    server: TlsServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    server.use(server.good)
    give(folder, server.clients.issue("certain"))

    assert open_as(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert not list(Path(tempfile.gettempdir()).glob("tls.*"))


@pytest.mark.parametrize("role", ["certain", "careful"])
def test_without_a_certificate_where_one_is_asked_for_the_reason_says_so(server: TlsServer, folder: Path, role: str) -> None:
    server.use(server.good)

    error = refusal(folder, server, role, SslMode.VERIFY_FULL)

    assert error.reason is SourceReason.CLIENT_CERTIFICATE_REFUSED
    assert "none was given" in error.message


def test_a_certificate_of_an_unknown_authority_is_refused(server: TlsServer, folder: Path) -> None:
    server.use(server.good)
    give(folder, server.authority.issue("certain"))

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, "CA of our client certificate" in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)


def test_a_certificate_of_somebody_else_is_refused(server: TlsServer, folder: Path) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("somebody"))

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, "for this user" in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)


def test_an_expired_client_certificate_is_refused_until_it_is_renewed(server: TlsServer, folder: Path) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("certain", expired=True))

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, "expired" in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)
    give(folder, server.clients.issue("certain"))
    assert open_as(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_missing_file_of_our_certificate_is_named_and_tried_again(server: TlsServer, folder: Path, missing: str) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("certain"))
    (folder / missing).unlink()

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, error.retryable) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)
    assert missing in error.message


def test_a_key_of_another_certificate_is_told(server: TlsServer, folder: Path) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("certain"))
    shutil.copy(server.clients.issue("other").key, folder / "tls.key")

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, "tls.key" in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_a_file_that_is_no_certificate_or_key_is_told(server: TlsServer, folder: Path, name: str) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("certain"))
    (folder / name).write_text("nothing of the kind")

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, name in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(server: TlsServer, folder: Path) -> None:
    server.use(server.good)
    give(folder, server.clients.issue("certain"))
    files = ["-in", str(folder / "tls.key"), "-out", str(folder / "locked")]
    subprocess.run(["openssl", "pkcs8", "-topk8", *files, "-passout", "pass:secret"], check=True, capture_output=True)
    (folder / "locked").rename(folder / "tls.key")

    error = refusal(folder, server, "certain", SslMode.VERIFY_FULL, certificate=True)

    assert (error.reason, "unencrypted" in error.message) == (SourceReason.CLIENT_CERTIFICATE_REFUSED, True)
