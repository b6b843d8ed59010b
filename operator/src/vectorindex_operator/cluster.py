"""Reads and writes Kubernetes objects as plain JSON over the official client; every refusal becomes one of our errors."""

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException

from vectorindex_operator import api, names
from vectorindex_operator.api import Event, Json, Status, VectorIndex
from vectorindex_operator.errors import ClusterError, ConflictError, LeadershipLostError, NotFoundError, RejectedError
from vectorindex_operator.fence import Fence
from vectorindex_operator.metrics import API_REQUESTS, LEASE_REQUESTS

log = logging.getLogger(__name__)

TIMEOUT: Final = timedelta(seconds=30)
TRIES: Final = 3
PATIENCE: Final = timedelta(seconds=20)
MAX_PAUSE: Final = timedelta(minutes=5)
PAGE: Final = 500
MAX_ERROR: Final = 300
MOST_UNDECLARED: Final = 10
"""Fields of the status that are left out, one answer after the other, where the definition is older than this operator."""

_UNDECLARED: Final = re.compile(r"\.status(\.\S+): field not declared in schema")
_ELEMENT: Final = re.compile(r"\[[^]]*\]")

_KINDS: Final = {
    "Event": ("v1", "events"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    names.KIND: (names.API_VERSION, names.PLURAL),
    **{kind: (names.API_VERSIONS[kind], plural) for kind, (_, _, plural) in names.CHILDREN.items()},
}

_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"  # the client escapes what goes out under the bare name
_MERGE: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"


class Cluster:
    """The API server, as the operator uses it; no write passes a shut fence. Use as an async context manager."""

    def __init__(self, fence: Fence, component: str = names.FIELD_MANAGER) -> None:
        self._fence = fence
        self._component = component
        self._client: client.ApiClient | None = None
        self._pause = _Pause()
        self._untold: set[str] = set()

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except ConfigException:
            await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        self._client = client.ApiClient(settings)
        rest = self._client.rest_client
        self._connector = _FencedConnector(self._check_fence, rest.maxsize, rest.ssl_context)
        rest.configuration.client_session_kwargs = {"connector": self._connector}
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            await self._connector.close()

    async def read(self, kind: str, namespace: str, name: str) -> Json | None:
        """Return the object, or None when there is none."""
        try:
            return await self._request("GET", _path(kind, namespace, name))
        except NotFoundError:
            return None

    async def read_list(self, kind: str, namespace: str, selector: str = "") -> tuple[list[Json], int]:
        """Return all objects with these labels in the namespace, or in all when it is empty, and the version that the list shows."""
        items: list[Json] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            answer = await self._request("GET", _path(kind, namespace), query)
            items += answer["items"]
            more = answer["metadata"].get("continue")
            if not more:
                return items, int(answer["metadata"]["resourceVersion"])
            query["continue"] = more

    async def read_watched(self, kind: str, namespace: str) -> tuple[list[Json], int]:
        """Return what the watches of this kind show, in the namespace or in all when it is empty, and its version."""
        return await self.read_list(kind, namespace, "" if kind == names.KIND else f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}")

    async def create(self, manifest: Json) -> Json:
        """Make the object and return it; raise ConflictError when one of that name exists. Never changes an existing one."""
        path = _path(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._request("POST", path, {"fieldManager": names.FIELD_MANAGER}, manifest)

    async def apply(self, manifest: Json, live: Json) -> Json:
        """Put the object into the built state by server-side apply and return it; raise ConflictError unless it is still as in `live`."""
        meta = live["metadata"]
        path = _path(manifest["kind"], meta["namespace"], meta["name"])
        version = meta["resourceVersion"]
        created = _find_creation(live)
        if created is not None:
            # What POST wrote counts as another manager's. Taken over first, so that what we leave out from now on goes away.
            patch = [
                {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "replace", "path": f"/metadata/managedFields/{created}/operation", "value": "Apply"},
            ]
            answer = await self._request("PATCH", path, {"fieldManager": names.FIELD_MANAGER}, patch, _JSON_PATCH)
            version = answer["metadata"]["resourceVersion"]
        guarded = {**manifest, "metadata": {**manifest["metadata"], "uid": meta["uid"], "resourceVersion": version}}
        return await self._request("PATCH", path, {"fieldManager": names.FIELD_MANAGER, "force": "true"}, guarded, _APPLY)

    async def delete(self, live: Json) -> None:
        """Delete the object if it is still as seen; its being gone already is fine."""
        meta = live["metadata"]
        guard = {"preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", _path(live["kind"], meta["namespace"], meta["name"]), body=guard)
        except NotFoundError:
            return

    async def annotate_pod(self, namespace: str, name: str, uid: str, annotations: Mapping[str, str]) -> Json:
        """Set annotations of one pod and return it; raise ConflictError when another pod has its name by now."""
        body = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        return await self._request("PATCH", _path("Pod", namespace, name), {"fieldManager": names.FIELD_MANAGER}, body, _MERGE)

    async def wish(self, live: Json, name: str, value: str) -> Json:
        """Set one annotation of a VectorIndex and return it; raise ConflictError unless it is still as in `live`."""
        meta = live["metadata"]
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "annotations": {name: value}}}
        path = _path(names.KIND, meta["namespace"], meta["name"])
        return await self._request("PATCH", path, {"fieldManager": names.WEBHOOK_MANAGER}, body, _MERGE)

    async def apply_status(self, index: VectorIndex, status: Status) -> Json:
        """Write the whole status and return the resource; raise ConflictError unless it is still as in `index`.

        A definition older than this operator declares less than it has to tell, and server-side apply then refuses all of it: what is not
        declared is left out, as the rest has to be told.
        """
        told = api.render(status)
        for _ in range(MOST_UNDECLARED):
            try:
                return await self._apply_status(index, told)
            except ClusterError as error:
                undeclared = {_ELEMENT.sub("", path) for path in _UNDECLARED.findall(str(error))}
                if not undeclared:
                    raise
            for path in undeclared:
                if path not in self._untold:
                    log.error("the definition is older than this operator, apply the one of its release: field=status%s", path)
                    self._untold.add(path)
                _drop(told, path.removeprefix(".").split("."))
        return await self._apply_status(index, told)

    async def _apply_status(self, index: VectorIndex, status: Json) -> Json:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": index.key.name,
                "namespace": index.key.namespace,
                "uid": index.uid,
                "resourceVersion": index.resource_version,
            },
            "status": status,
        }
        path = f"{_path(names.KIND, *index.key)}/status"
        return await self._request("PATCH", path, {"fieldManager": names.STATUS_MANAGER, "force": "true"}, body, _APPLY)

    async def post_event(self, index: VectorIndex, event: Event, now: datetime) -> None:
        """Post the event; the same news a second time is the same object, and so no second event."""
        digest = api.short_hash(f"{index.uid}/{event.identity}")
        at = api.format_time(now)
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{index.key.name}.{digest}", "namespace": index.key.namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": index.key.name,
                "namespace": index.key.namespace,
                "uid": index.uid,
                "resourceVersion": index.resource_version,
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self._request("POST", _path("Event", index.key.namespace), body=body)
        except ConflictError:
            return

    async def write_lease(self, manifest: Json) -> Json:
        """Make the Lease, or replace it if it is still as in `manifest`; return it. This alone needs no leadership."""
        meta = manifest["metadata"]
        if "resourceVersion" in meta:
            return await self._request("PUT", _path("Lease", meta["namespace"], meta["name"]), body=manifest)
        return await self._request("POST", _path("Lease", meta["namespace"]), body=manifest)

    def _check_fence(self, method: str, path: str) -> None:
        if method != "GET" and not _is_lease(path) and not self._fence.may_write():
            raise LeadershipLostError(f"{method} {path}: not sent, this operator does not lead")

    async def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None, content_type: str = _JSON
    ) -> Json:
        url = f"{path}?{urlencode(query)}" if query else path
        urgent = _is_lease(path)  # who leads can't wait for long, and knows when to try again
        for _ in range(TRIES):
            if not urgent:
                await self._pause.wait(f"{method} {path}")
            response, content = await self._send(method, url, body, content_type)
            if urgent or response.status != 429:
                break
            self._pause.begin(response.headers.get("Retry-After", ""))
        if not 200 <= response.status < 300:
            raise _map_refusal(response.status, f"{method} {path}", content)
        try:
            answer: Json = json.loads(content)
        except ValueError as error:
            raise ClusterError(f"{method} {path}: the answer is no JSON, so something else than the API server gave it") from error
        return answer

    async def _send(self, method: str, url: str, body: object, content_type: str) -> tuple[Any, bytes]:
        assert self._client is not None  # noqa: S101 - used inside `async with`
        headers = {"Accept": _JSON, "Content-Type": content_type}
        path = url.partition("?")[0]
        count = LEASE_REQUESTS if _is_lease(path) else API_REQUESTS
        self._check_fence(method, path)
        if content_type == _APPLY:  # read as YAML, which does not know JSON's escapes of characters above U+FFFF
            body = json.dumps(body, ensure_ascii=False).encode()
        try:
            request = await self._client.param_serialize(method, url, header_params=headers, body=body, auth_settings=["BearerToken"])
            response = await self._client.call_api(*request[:4], _request_timeout=TIMEOUT.total_seconds())
            content = await response.read()  # type: ignore[no-untyped-call]
        except (client.ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            count.labels(method=method, code="none").inc()
            raise ClusterError(f"{method} {path}: the API server did not answer ({type(error).__name__})") from error
        count.labels(method=method, code=str(response.status)).inc()
        return response, content


class _Pause:
    """A pause that the API server asked for: it holds for all our requests, as it is we who ask too much."""

    def __init__(self) -> None:
        self._ends = 0.0

    def begin(self, retry_after: str) -> None:
        """Ask nothing for so many seconds; for one when it is not said how long."""
        seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else 1
        self._ends = max(self._ends, time.monotonic() + min(seconds, MAX_PAUSE.total_seconds()))

    async def wait(self, request: str) -> None:
        """Return once the pause is over; raise ClusterError when it is so long that whoever waits should do so elsewhere."""
        while (left := self._ends - time.monotonic()) > 0:
            if left > PATIENCE.total_seconds():
                raise ClusterError(f"{request}: not sent, as the API server asked for a pause of {left:.0f} s more", 429)
            await asyncio.sleep(left)


class _FencedConnector(aiohttp.TCPConnector):
    """Checks each request once more when it has its connection: nothing but the sending is left then."""

    def __init__(self, check: Callable[[str, str], None], limit: int, tls: ssl.SSLContext) -> None:
        super().__init__(limit=limit, ssl=tls)
        self._check = check

    async def connect(self, req: aiohttp.ClientRequest, *options: Any, **more: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, *options, **more)
        try:
            self._check(req.method, req.url.path)
        except LeadershipLostError:
            connection.close()
            raise
        return connection


def _is_lease(path: str) -> bool:
    return path.startswith("/apis/coordination.k8s.io/")


def _path(kind: str, namespace: str, name: str = "") -> str:
    version, plural = _KINDS[kind]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    path = f"{prefix}/namespaces/{quote(namespace, safe='')}/{plural}" if namespace else f"{prefix}/{plural}"
    return f"{path}/{quote(name, safe='')}" if name else path


def _drop(value: Any, path: list[str]) -> None:
    """Take a field out of an object, in each element of lists on the way."""
    if isinstance(value, list):
        for one in value:
            _drop(one, path)
    elif isinstance(value, dict) and len(path) == 1:
        value.pop(path[0], None)
    elif isinstance(value, dict):
        _drop(value.get(path[0]), path[1:])


def _find_creation(live: Json) -> int | None:
    """Return the place of the entry that our own POST left in managedFields, until it was taken over."""
    for place, entry in enumerate(live["metadata"].get("managedFields") or []):
        if entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Update" and not entry.get("subresource"):
            return place
    return None


def _map_refusal(status: int, request: str, content: bytes) -> ClusterError:
    try:
        message = str(json.loads(content).get("message", ""))[:MAX_ERROR]
    except (ValueError, AttributeError):
        message = ""
    text = f"{request}: {message or 'refused'} (HTTP {status})"
    if status == 404:
        return NotFoundError(text, status)
    if status == 409:
        return ConflictError(text, status)
    if status in (400, 403, 405, 413, 415, 422):
        return RejectedError(text, status)
    return ClusterError(text, status)
