"""The real ports: a replica that is told to stop fails no request, and slow clients are put off."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection

import pytest

from tests.support.keepalive import ask_until_closed
from tests.support.replica import wait_until
from tests.support.served import ServedIndex
from vectorindex_indexer import server
from vectorindex_indexer.server import open_ports

BODY = json.dumps({"vector": [1, 2, 3, 4]}).encode()
PATH = "/v1/indexes/docs/search"


class Running:
    """A server in a thread of its own; ends as SIGTERM would end it."""

    def __init__(self, served: ServedIndex, drain: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ports = open_ports("127.0.0.1", 0, 0)
        self.search_port, self.ops_port = self.ports.numbers
        self.handlers: dict[int, tuple[object, tuple[object, ...]]] = {}
        self.loop = asyncio.new_event_loop()
        # Signals reach the main thread only; the handlers are kept to be called as the loop would.
        monkeypatch.setattr(self.loop, "add_signal_handler", lambda number, call, *args: self.handlers.update({number: (call, args)}))
        monkeypatch.setattr(self.loop, "remove_signal_handler", self.handlers.get)
        self.thread = threading.Thread(target=self._run, args=(served, drain))
        self.thread.start()
        wait_until("the server", lambda: signal.SIGTERM in self.handlers and answers(self.ops_port))

    def _run(self, served: ServedIndex, drain: timedelta) -> None:
        self.loop.run_until_complete(server.serve(served, self.ports, drain, "0.1.0"))
        self.loop.close()

    def terminate(self) -> None:
        call, args = self.handlers[signal.SIGTERM]
        self.loop.call_soon_threadsafe(call, *args)  # type: ignore[arg-type]


def answers(port: int) -> bool:
    try:
        return get(port, "/livez") == 200
    except OSError:
        return False


def get(port: int, path: str) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status


@contextmanager
def running(served: ServedIndex, monkeypatch: pytest.MonkeyPatch, drain: float = 1.0) -> Iterator[Running]:
    one = Running(served, timedelta(seconds=drain), monkeypatch)
    try:
        yield one
    finally:
        if one.thread.is_alive():
            one.terminate()
        one.thread.join(timeout=20)
        assert not one.thread.is_alive()


def test_no_request_fails_while_a_replica_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients keep their connections; each goes elsewhere once it is told that this one closes."""
    served = ServedIndex()
    outcomes: list[int | str] = []
    with running(served, monkeypatch) as one:
        clients = [threading.Thread(target=ask_until_closed, args=(one.search_port, PATH, BODY, outcomes)) for _ in range(8)]
        for client in clients:
            client.start()
        wait_until("some answers", lambda: len(outcomes) > 50)
        one.terminate()
        for client in clients:
            client.join(timeout=10)
        assert served.accepting is False
        one.thread.join(timeout=20)

    assert set(outcomes) == {200}
    assert served.stopped


def test_while_draining_a_new_client_is_served_and_told_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    served = ServedIndex()
    with running(served, monkeypatch, drain=3.0) as one:
        one.terminate()
        wait_until("draining", lambda: not served.accepting)
        with closing(HTTPConnection("127.0.0.1", one.search_port, timeout=5)) as connection:
            connection.request("POST", PATH, BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            answer.read()
        assert get(one.ops_port, "/readyz") == 503
        one.terminate()  # a second request to stop ends the draining


@pytest.mark.parametrize("sent", [b"", b"POST ", b"POST / HTTP/1.1\r\nx: "])
def test_a_client_that_does_not_finish_its_head_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with running(ServedIndex(), monkeypatch) as one, socket.create_connection(("127.0.0.1", one.search_port), timeout=10) as client:
        client.sendall(sent)
        started = time.monotonic()
        assert client.recv(100) == b""
        assert time.monotonic() - started < 8


def test_a_head_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(ServedIndex(), monkeypatch) as one, socket.create_connection(("127.0.0.1", one.search_port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):  # it may be closed while we still send
            for _ in range(40):
                client.sendall(b"x: " + b"y" * 4000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            assert client.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
