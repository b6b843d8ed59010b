"""Opens both ports, guards them against slow and greedy clients, and ends the process without failing a request."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vectorindex_indexer.app import Doors, ReplicaPort, SearchApp, build_ops_app

CONNECTIONS: Final = 8192  # at once, idle ones included; beyond, the answer is 503
HEAD_SECONDS: Final = 10.0  # in which the head of a request must have come
HEAD_BYTES: Final = 64 * 1024
WRITE_SECONDS: Final = 30.0  # for which a client may refuse to take more of its answer
KEEP_ALIVE_SECONDS: Final = 75  # longer than clients' pools usually keep a connection, so that they close it, not we
GRACE_SECONDS: Final = 15  # for requests in flight when the draining is over
STOP_SECONDS: Final = 15.0  # for the replica's writer to end and to save the index

_log = logging.getLogger(__name__)


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with what it lacks: bounds on the time and size of a request's head, and on the time to take an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request soon."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._head_arrived()
        self._cancel_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before a head is complete."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Expect the rest of the head soon."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Note that the head is there."""
        self._head_arrived()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Give the client a while to take what was sent."""
        super().pause_writing()
        self._cancel_write_timer()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that it did."""
        self._cancel_write_timer()
        super().resume_writing()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_late)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _close_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us: two of them share one loop, and one way to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Lifecycle(ReplicaPort, Protocol):
    """A replica that can be started and stopped."""

    def start(self) -> None:
        """Start the writer thread."""

    def stop(self) -> None:
        """End it; returns when it has ended."""


@dataclass(frozen=True)
class Ports:
    """Listening sockets."""

    search: socket.socket
    ops: socket.socket

    @property
    def numbers(self) -> tuple[int, int]:
        """Search port and ops port."""
        return self.search.getsockname()[1], self.ops.getsockname()[1]


def open_ports(host: str, search_port: int, ops_port: int) -> Ports:
    """Return listening sockets; raise OSError when an address is taken. Port 0 takes any that is free."""
    search = _listen(host, search_port)
    try:
        return Ports(search, _listen(host, ops_port))
    except OSError:
        search.close()
        raise


def _listen(host: str, port: int) -> socket.socket:
    if ":" not in host:
        return socket.create_server((host, port), backlog=2048)
    return socket.create_server(
        (host, port), family=socket.AF_INET6, backlog=2048, dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6()
    )


async def serve(replica: Lifecycle, ports: Ports, drain: timedelta, version: str) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop; raise RuntimeError if a port stops being served without that."""
    doors = Doors(replica)
    search_app = SearchApp(replica, doors, version)
    search = _Server(_configure(search_app))
    ops = _Server(_configure(build_ops_app(replica, doors)))
    asked = _Asked()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.ask, signal.Signals(number).name)
    replica.start()
    search_task = asyncio.create_task(search.serve(sockets=[ports.search]))
    ops_task = asyncio.create_task(ops.serve(sockets=[ports.ops]))
    stopping = asyncio.create_task(asked.once.wait())
    try:
        await asyncio.wait({search_task, ops_task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failed = not asked.once.is_set()
        doors.start_draining()
        if not failed:
            _log.info("draining", extra={"reason": asked.reason, "seconds": drain.total_seconds()})
            await asked.wait_for_hurry(drain)
        search.should_exit = True
        await search_task
        search_app.close()
        await _stop(replica)
        ops.should_exit = True
        await ops_task
    finally:
        stopping.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if failed:
        raise RuntimeError("a port stopped being served")
    _log.info("stopped", extra={"reason": asked.reason})


class _Asked:
    """Counts requests to stop: the first drains, a second one ends the draining."""

    def __init__(self) -> None:
        self.once = asyncio.Event()
        self.reason = ""
        self._twice = asyncio.Event()

    def ask(self, reason: str) -> None:
        if self.once.is_set():
            self._twice.set()
        self.reason = self.reason or reason
        self.once.set()

    async def wait_for_hurry(self, longest: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest.total_seconds()):
                await self._twice.wait()


def _configure(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


async def _stop(replica: Lifecycle) -> None:
    """Stop the replica, but don't wait for ever: its writer may be in the middle of a build, which nothing can interrupt."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def stop() -> None:
        try:
            replica.stop()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed, as we did not wait
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=stop, name="stop", daemon=True).start()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await ended.wait()
    except TimeoutError:
        _log.warning("the writer is still busy; the process ends without it")
