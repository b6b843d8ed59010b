"""Certificates for tests: an authority of our own, and what it signs. Made by openssl."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

_CONFIGURATION: Final = """
[ca]
default_ca = ours
[ours]
database = {folder}/index
new_certs_dir = {folder}
policy = names
rand_serial = yes
default_md = sha256
copy_extensions = copy
unique_subject = no
x509_extensions = signed
[signed]
authorityKeyIdentifier = keyid
[names]
commonName = supplied
"""
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """Two PEM files that belong together."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files are in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self.root = Certificate(folder / "ca.crt", folder / "ca.key")
        _openssl("req", "-x509", *_KEY, "-subj", f"/CN={folder.name}", "-days", "2", *_out(self.root))

    def issue(self, name: str, *, alternative: str = "", expired: bool = False) -> Certificate:
        """Return a certificate for a name, valid for two days or until yesterday.

        `alternative` is a subjectAltName, such as `IP:127.0.0.1`: then the name itself counts no more as that of a host.
        """
        issued = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        request = self._folder / "request"
        extension = ("-addext", f"subjectAltName={alternative}") if alternative else ()
        _openssl("req", *_KEY, "-subj", f"/CN={name}", *extension, "-out", request, "-keyout", issued.key)
        (self._folder / "index").touch()
        configuration = self._folder / "configuration"
        configuration.write_text(_CONFIGURATION.format(folder=self._folder))
        end = datetime.now(UTC) + timedelta(days=-1 if expired else 2)
        dates = ("-startdate", _date(end - timedelta(days=4)), "-enddate", _date(end))
        signer = ("-cert", self.root.certificate, "-keyfile", self.root.key)
        _openssl("ca", "-batch", "-notext", "-config", configuration, *signer, *dates, "-in", request, "-out", issued.certificate)
        return issued


def _out(certificate: Certificate) -> tuple[object, ...]:
    return ("-out", certificate.certificate, "-keyout", certificate.key)


def _date(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%SZ}"


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl (apt-get install openssl) ended with {done.returncode}: {done.stderr}"
