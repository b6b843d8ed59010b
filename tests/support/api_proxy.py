"""An HTTP proxy before a real API server: tells what was asked of it, and makes faults as a test scripts them.

The caller's own token is passed on, so that its rights stay real.
"""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from tests.support.tls import Authority
from vectorindex_operator.api import Json

T = TypeVar("T")

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length", "accept-encoding"})


@dataclass(frozen=True)
class Call:
    """One request to the API server, in Kubernetes' own words; `code` is that of its answer, 0 while there is none."""

    method: str
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    target: str = ""
    is_kopfs: bool = False
    at: float = field(default_factory=time.monotonic)
    code: int = 0

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"

    @property
    def right(self) -> tuple[str, str, str]:
        """Group, resource with subresource, and verb: what a role must grant."""
        return self.group, f"{self.resource}/{self.subresource}" if self.subresource else self.resource, self.verb

    def __str__(self) -> str:
        return f"{self.verb} {self.right[1]} {self.namespace}/{self.name} -> {self.code}"


@dataclass(frozen=True)
class Reply:
    """An answer in place of the API server's."""

    code: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, in parts that each may be left out."""

    answer: Callable[[Call], Reply | None] | None = None
    """Returns what is answered without asking the API server, or None to ask it."""

    done: Callable[[Call], object] | None = None
    """Called in a thread of its own with what the API server has answered, before the caller learns of it."""

    event: Callable[[Call, bytes], bool] | None = None
    """Returns whether a line of a watch is passed on."""


@dataclass
class _Stream:
    """A watch that is open."""

    call: Call
    lines: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)


class ApiProxy:
    """A proxy on a port of loopback, in a thread of its own."""

    def __init__(self, server: str, authority: bytes, folder: Path) -> None:
        self._server = server
        self._upstream = ssl.create_default_context(cadata=authority.decode())
        self._own = Authority(folder)
        self._folder = folder
        self._calls: list[Call] = []
        self._faults: list[Fault] = []
        self._streams: list[_Stream] = []
        self._answers: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(16)
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-proxy", daemon=True)
        self.port = 0

    # --- for tests ---

    def calls(self) -> list[Call]:
        """Return all requests so far that were answered, in the order of their answers; a watch counts as answered when it opens."""
        with self._lock:
            return list(self._calls)

    def writes(self, namespace: str = "") -> list[Call]:
        """Return those that change something."""
        return [call for call in self.calls() if call.is_write and namespace in ("", call.namespace)]

    @contextlib.contextmanager
    def fault(
        self,
        *,
        answer: Callable[[Call], Reply | None] | None = None,
        done: Callable[[Call], object] | None = None,
        event: Callable[[Call, bytes], bool] | None = None,
    ) -> Iterator[None]:
        """Let this go wrong as long as the context lasts; see `Fault`."""
        fault = Fault(answer, done, event)
        self._faults = [*self._faults, fault]
        try:
            yield
        finally:
            self._faults = [one for one in self._faults if one is not fault]

    def answers(self, *resources: str) -> dict[str, Reply]:
        """Return the newest answer to each list of these resources, by what was asked; of all resources when none is named."""
        with self._lock:
            known = dict(self._answers)
        return {target: reply for target, reply in known.items() if not resources or parse_call("GET", target).resource in resources}

    @contextlib.contextmanager
    def stale(self, known: Mapping[str, Reply]) -> Iterator[None]:
        """Answer lists as they once were, and let watches of the same resources tell nothing, as a server does whose cache lags behind.

        Reads of single objects are up to date, as Kubernetes promises for them. What the watches did not tell comes afterwards.
        """
        resources = {parse_call("GET", target).resource for target in known}
        with self.fault(answer=lambda call: known.get(call.target), event=lambda call, _: call.resource not in resources):
            yield
        self.cut()

    def tell(self, line: bytes, resource: str = "") -> int:
        """Send a line in all watches there are, or in those of one resource, as if the API server had; return in how many."""
        return self._on_loop(self._put(line, resource))

    def cut(self, resource: str = "") -> int:
        """End all watches, or those of one resource; return how many."""
        return self._on_loop(self._put(None, resource))

    def watched(self) -> list[str]:
        """Return the resources of the open watches."""
        return sorted(stream.call.resource for stream in self._streams)

    def wrap(self, kubeconfig: Path) -> Path:
        """Return a kubeconfig beside this one, with the same user, that leads through the proxy."""
        config = json.loads(kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": b64encode(self._own.root.certificate.read_bytes()).decode(),
        }
        path = self._folder / kubeconfig.name
        path.write_text(json.dumps(config))
        return path

    # --- life ---

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._on_loop(self._listen())

    def stop(self) -> None:
        """Cut everything and end."""
        self._on_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._threads.shutdown()

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        certificate = self._own.issue("api", alternative="IP:127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._upstream, limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        self._runner = web.ServerRunner(web.Server(self._serve, handler_cancellation=True, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._put(None, "")
        await self._runner.cleanup()
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.25)  # aiohttp closes TLS connections only in the loop's next rounds

    # --- requests ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        is_kopfs = request.headers.get("User-Agent", "").startswith("kopf")
        call = replace(parse_call(request.method, request.raw_path), is_kopfs=is_kopfs)
        body = await request.read()
        reply = await self._find_fault(call)
        if reply is not None:
            return _respond(await self._note(call, reply))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._session.request(request.method, self._server + request.raw_path, data=body or None, headers=headers) as answer:
            if call.verb == "watch" and answer.status == 200:
                return await self._stream(request, replace(call, code=answer.status), answer)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return _respond(await self._note(call, Reply(answer.status, await answer.read(), kept)))

    async def _find_fault(self, call: Call) -> Reply | None:
        for fault in self._faults:
            if fault.answer:
                reply = await self._in_thread(fault.answer, call)
                if reply is not None:
                    return reply
        return None

    async def _note(self, call: Call, reply: Reply) -> Reply:
        answered = replace(call, code=reply.code)
        with self._lock:
            self._calls.append(answered)
            if call.verb == "list" and reply.code == 200:
                self._answers[call.target] = reply
        for fault in self._faults:
            if fault.done:
                await self._in_thread(fault.done, answered)
        return reply

    def _in_thread(self, work: Callable[[Call], T], call: Call) -> Awaitable[T]:
        return self._loop.run_in_executor(self._threads, work, call)

    async def _stream(self, request: web.BaseRequest, call: Call, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        stream = _Stream(call)
        with self._lock:
            self._calls.append(call)
        self._streams = [*self._streams, stream]
        pump = asyncio.create_task(self._pump(stream, answer))
        try:
            while (line := await stream.lines.get()) is not None:
                await response.write(line)
            await response.write_eof()
        except (ConnectionError, aiohttp.ClientError):  # the caller has gone
            pass
        finally:
            self._streams = [one for one in self._streams if one is not stream]
            pump.cancel()
        return response

    async def _pump(self, stream: _Stream, answer: aiohttp.ClientResponse) -> None:
        buffer = b""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if all(fault.event(stream.call, line) for fault in self._faults if fault.event):
                        stream.lines.put_nowait(line + b"\n")
        stream.lines.put_nowait(None)

    async def _put(self, line: bytes | None, resource: str) -> int:
        chosen = [stream for stream in self._streams if resource in ("", stream.call.resource)]
        for stream in chosen:
            stream.lines.put_nowait(line)
        return len(chosen)


def _respond(reply: Reply) -> web.Response:
    headers = {"Content-Type": "application/json", **reply.headers}
    return web.Response(status=reply.code, body=reply.body, headers=headers)


def parse_call(method: str, target: str) -> Call:
    """Return what a request is in the words of a role; a path that is no resource's has none."""
    path, _, query = target.partition("?")
    parts = path.strip("/").split("/")
    verb = _VERBS.get(method, "get")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return Call(method, verb, target=target)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    if method == "GET" and not name:
        verb = "watch" if parse_qs(query).get("watch", [""])[0] in ("true", "1") else "list"
    if method == "DELETE" and not name:
        verb = "deletecollection"
    return Call(method, verb, group, resource, subresource, namespace, name, target)


def refuse(code: int, reason: str, message: str = "by the test", **headers: str) -> Reply:
    """Return a refusal as the API server words it; `Retry_After="1"` becomes a header."""
    kept = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(code, json.dumps(_status(code, reason, message)).encode(), kept)


def error_line(code: int, reason: str) -> bytes:
    """Return a line of a watch that says that the watch failed."""
    return json.dumps({"type": "ERROR", "object": _status(code, reason, "by the test")}).encode() + b"\n"


def _status(code: int, reason: str, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


@contextlib.contextmanager
def api_proxy(kubeconfig: Path, folder: Path) -> Iterator[ApiProxy]:
    """Provide a proxy before the API server of this kubeconfig until the context ends."""
    server = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
    proxy = ApiProxy(server["server"].rstrip("/"), b64decode(server["certificate-authority-data"]), folder / "proxy")
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
