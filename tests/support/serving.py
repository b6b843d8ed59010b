"""The command `vectorindex-indexer serve` as a process of its own: its ports, its log, and its end."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any, Final

from tests.support.replica import wait_until
from vectorindex_indexer.config import Settings

COMMAND: Final = (sys.executable, "-m", "vectorindex_indexer")
SECONDS: Final = 60.0  # the longest that a process may take to start or to end


def build_options(settings: Settings) -> list[str]:
    """Return the options that name a replica's files."""
    folders = {"--config": settings.config, "--credentials": settings.credentials, "--tls": settings.tls, "--data": settings.data}
    if settings.live is not None:
        folders["--live"] = settings.live
    return [str(part) for pair in folders.items() for part in pair]


class Serving:
    """A `serve` process: its ports, and what it logged."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        command = [*COMMAND, "serve", "--host", "127.0.0.1", "--search-port", "0", "--ops-port", "0", "--log-format", "json", *arguments]
        self.process = subprocess.Popen([*command, *build_options(settings)], stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until("listening", lambda: bool(self.find("listening")) or self.process.poll() is not None, SECONDS)
        (listening,) = self.find("listening")
        self.search_port, self.ops_port = listening["search_port"], listening["ops_port"]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.endswith("\n"):  # else it was killed while it wrote
                self.lines.append(line)

    def find(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the log with a message."""
        return [line for line in map(json.loads, list(self.lines)) if line["message"] == message]

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask the port for operators."""
        with closing(HTTPConnection("127.0.0.1", self.ops_port, timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=SECONDS)
        self._reader.join(timeout=SECONDS)
        return code


@contextmanager
def serving(settings: Settings, *arguments: str) -> Iterator[Serving]:
    """Run a `serve` process until the context ends."""
    one = Serving(settings, *arguments)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()
