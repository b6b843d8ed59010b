"""The only module that kopf calls: it hands on each event about a VectorIndex or one of its objects, and nothing more."""

import asyncio
import datetime
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import kopf

from vectorindex_operator import names

RawEvent = Mapping[str, Any]
"""`type`: ADDED, MODIFIED or DELETED, None for what was listed; `object`: what the API server sent."""

_KINDS: Final = {
    (names.API_GROUP, names.PLURAL): names.KIND,
    **{(group, plural): kind for kind, (group, _, plural) in names.CHILDREN.items()},
}

# kopf remembers rejected credentials; equal ones are refused for ever. With a new expiry they count as new, so a stray 401 passes.
LOGIN_LIFE: Final = datetime.timedelta(minutes=30)
CALM: Final = datetime.timedelta(minutes=1)


@dataclass
class Memo:
    """What kopf hands to the handlers: whom to tell what happened, as kind and event."""

    tell: Callable[[str, RawEvent], object]

    def __copy__(self) -> "Memo":
        return self


def make_registry() -> kopf.OperatorRegistry:
    """Return the handlers for one run of kopf."""
    registry = kopf.OperatorRegistry()
    pace = Pace()

    async def log_in_again(**arguments: Any) -> kopf.ConnectionInfo | None:
        await asyncio.sleep(pace.next(time.monotonic()))
        return log_in(**arguments)

    kopf.on.login(registry=registry)(log_in_again)
    kopf.on.event(names.API_GROUP, "v1alpha1", names.PLURAL, registry=registry)(on_event)
    for group, version, plural in names.CHILDREN.values():
        kopf.on.event(group, version, plural, registry=registry)(on_event)
    return registry


def make_settings() -> kopf.OperatorSettings:
    """Return kopf's settings; each is here because its default failed in practice."""
    settings = kopf.OperatorSettings()
    settings.watching.inactivity_timeout = 70  # a stream cut without a word is noticed
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1  # 0.1 s made 100 requests a second while every watch was answered with 410
    settings.watching.chunk_size = 500
    for group, version, plural in names.CHILDREN.values():
        settings.watching.label_selectors[kopf_selector(group, version, plural)] = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = EndlessBackoff()
    settings.queueing.exit_timeout = 0.5  # a handler only hands on: nothing is worth waiting for at the end
    settings.queueing.error_delays = (1, 1, 2, 3, 5, 8, 13, 21, 34, 60)
    settings.scanning.disabled = True  # no rights on CRDs and namespaces are needed; without this the first event took 54 s
    settings.posting.enabled = False  # events are posted by ourselves, on transitions
    settings.process.ultimate_exiting_timeout = None  # our own process decides when it ends
    return settings


def kopf_selector(group: str, version: str, plural: str) -> Callable[[Any], bool]:
    """Return a test whether a resource is this one; names alone are not unique across groups."""
    return lambda resource: (resource.group, resource.version, resource.plural) == (group, version, plural)


class EndlessBackoff:
    """Pauses between tries that never end: the API server may be away for an hour, and no restart is needed after it."""

    def __iter__(self) -> Any:
        """Return up to 1, 2, 4, ... and then 30 s for ever; never less than half of it."""
        pause = 1
        while True:
            yield pause * random.uniform(0.5, 1)  # noqa: S311 - spreads the tries of all streams
            pause = min(30, pause * 2)


class Pace:
    """Pauses between logins: each 401 leads to one at once, and every stream asks again right after it."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._last: float | None = None

    def next(self, now: float) -> float:
        """Return how many seconds to wait: none for a login that is the first in a minute, then 1, 2 and 4 in the end."""
        rapid = self._last is not None and now - self._last < CALM.total_seconds()
        self._pause = min(4.0, max(1.0, 2 * self._pause)) if rapid else 0.0
        self._last = now + self._pause
        return self._pause


async def on_event(resource: kopf.Resource, event: RawEvent, memo: Memo, **_: Any) -> None:
    """Something was listed, made, changed or deleted."""
    memo.tell(_KINDS[resource.group, resource.plural], event)


def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the credentials of the pod or of the kubeconfig, read anew each time: tokens rotate."""
    inside = kopf.login_with_service_account(**arguments)
    found = replace(inside, server=_find_api_server(inside.server)) if inside else kopf.login_with_kubeconfig(**arguments)
    if found is None:
        return None
    return replace(found, expiration=datetime.datetime.now(datetime.UTC) + LOGIN_LIFE)


def _find_api_server(named: str) -> str:
    """Return the API server by its address, as the kubelet tells it: watches need no DNS then, as our own requests don't."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return named
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
