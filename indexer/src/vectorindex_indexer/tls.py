"""What libpq leaves to be done for TLS: a private place for our key, and why a server's certificate was not believed."""

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vectorindex_indexer.config import PostgresAddress

_SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_OUT_OF_TIME: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


@contextlib.contextmanager
def private_file(name: str, content: bytes) -> Iterator[str]:
    """Offer a path to content that only this process can open, in memory: nothing is left behind, even if the process is killed.

    libpq takes a key from a file only, and refuses one that its group may read unless it belongs to root. A mounted Secret neither
    belongs to root for sure nor is it closed to the group. Where there are no files in memory, it is a temporary one.
    """
    if not hasattr(os, "memfd_create"):  # not Linux
        with tempfile.NamedTemporaryFile(prefix=name) as temporary:
            temporary.write(content)
            temporary.flush()
            yield temporary.name
        return
    descriptor = os.memfd_create(name)
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def is_out_of_time(address: PostgresAddress, authority: Path, seconds: float) -> bool:
    """Tell whether a server's certificate, or one it hangs on, is believed by nobody because it has expired or is not valid yet.

    libpq only says that it was not believed. Asks the server once more, without any name or password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(authority)
        with socket.create_connection((address.host, address.port), seconds) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) == b"S":
                context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_code in _OUT_OF_TIME
    except OSError:
        pass
    return False
