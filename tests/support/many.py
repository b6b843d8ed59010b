"""Many VectorIndexes on a real API server, and one stand-in for all their pods: quick, so that what is measured is the operator."""

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.support.operator_process import QUIET
from tests.support.vector_index import GOLDEN, make_manifest, merge
from vectorindex_operator import api, names
from vectorindex_operator.api import Json

T = TypeVar("T")
AT_ONCE = 16
"""Requests in flight: more make an API server on two cores only slower."""

_RESOURCES = {names.KIND: names.PLURAL} | {kind: plural for kind, (_, _, plural) in names.CHILDREN.items()}


class Api:
    """The API server as an administrator reaches it, with nothing between: what any client needs at least for a write."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server: str = cluster["server"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=AT_ONCE, ssl=self._tls)
        self._session = aiohttp.ClientSession(self._server, connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Json:
        """Send one request and return the answer; raise AssertionError when it is refused."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, headers={"Content-Type": content_type}) as response:
            text = await response.text()
        assert response.ok, f"{method} {path}: {response.status} {text[:300]}"
        answer: Json = json.loads(text)
        return answer

    async def create(self, manifest: Json) -> Json:
        """Make an object."""
        return await self.send("POST", path_of(manifest["kind"], manifest["metadata"]["namespace"]), manifest)

    async def set_status(self, kind: str, namespace: str, name: str, status: Json) -> Json:
        """Write the status of an object, as its controller does."""
        path = f"{path_of(kind, namespace)}/{name}/status"
        return await self.send("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def read_list(self, kind: str, namespace: str) -> list[Json]:
        """Return all objects of a kind in a namespace."""
        found: list[Json] = (await self.send("GET", path_of(kind, namespace)))["items"]
        return found


def path_of(kind: str, namespace: str) -> str:
    """Return the path of a kind's objects."""
    version = names.API_VERSIONS[kind]
    return f"/{'apis' if '/' in version else 'api'}/{version}/namespaces/{namespace}/{_RESOURCES[kind]}"


async def create_indexes(bare: Api, namespace: str, count: int, **spec: Any) -> None:
    """Make so many VectorIndexes at once."""
    await asyncio.gather(*(bare.create(make_manifest(f"docs-{number:04}", namespace, **spec)) for number in range(count)))


class Background:
    """An event loop in a thread of its own, for tests that are no coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 120) -> T:
        """Run the coroutine to its end and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def stop(self) -> None:
        """End the loop; nothing may be running in it any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ManyMembers:
    """Answers `GET /v1/status` for every pod of a namespace, each at an address of its own, and reads live files as kubelets would."""

    def __init__(self, bare: Api, namespace: str) -> None:
        self.asked = 0
        self._bare, self._namespace = bare, namespace
        self._golden = merge(json.loads(GOLDEN.read_text()), QUIET)
        self._documents: dict[str, Json] = {}  # by address
        self._live: dict[str, str] = {}  # hash of the live file by name of the ConfigMap
        self._runner: web.AppRunner | None = None

    async def serve(self, addresses: Iterable[str]) -> None:
        """Let every pod get an address, answer there, and be ready."""
        pods = await self._bare.read_list("Pod", self._namespace)
        for pod, address in zip(pods, addresses, strict=False):
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            files = {"podUid": pod["metadata"]["uid"], "podName": pod["metadata"]["name"]}
            files["identityHash"] = volumes["identity"]["configMap"]["name"].rpartition("-")[2]
            self._documents[address] = merge(self._golden, {"identity": {**files, "live": volumes["live"]["configMap"]["name"]}})
        await self.read_live()
        self.prove()
        application = web.Application()
        application.router.add_get(names.STATUS_PATH, self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        for address in self._documents:
            await web.TCPSite(self._runner, address, names.OPS_PORT).start()
        await asyncio.gather(*(self._bring_up(document["identity"]["podName"], ip) for ip, document in self._documents.items()))

    async def _bring_up(self, pod: str, ip: str) -> None:
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}
        await self._bare.set_status("Pod", self._namespace, pod, status)

    async def read_live(self) -> None:
        """Let all members have read their live files as they are now."""
        maps = await self._bare.read_list("ConfigMap", self._namespace)
        live = {one["metadata"]["name"]: one["data"]["live.json"] for one in maps if "live.json" in one.get("data", {})}
        self._live = {name: api.short_hash(content) for name, content in live.items()}

    def prove(self, **proof: Any) -> None:
        """Let all members have proven their index just now; `proof` is what their checks found new."""
        at = api.format_time(datetime.now(UTC))
        for address, document in self._documents.items():
            self._documents[address] = merge(document, {"proof": {"provenAt": at, "asOf": at, **proof}})

    async def stop(self) -> None:
        """Let nothing answer any more."""
        if self._runner:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        document = self._documents[request.transport.get_extra_info("sockname")[0]]
        self.asked += 1
        return web.json_response(merge(document, {"identity": {"liveHash": self._live[document["identity"]["live"]]}}))


def addresses_of_loopback(first: int = 80) -> Iterator[str]:
    """Return addresses that a test may take for pods: the kernel gives all of 127.0.0.0/8 to loopback."""
    return (f"127.0.{third}.{last}" for third in range(first, 128) for last in range(2, 250))


@contextmanager
def background() -> Iterator[Background]:
    """Provide a loop in a thread until the context ends."""
    one = Background()
    try:
        yield one
    finally:
        one.stop()
