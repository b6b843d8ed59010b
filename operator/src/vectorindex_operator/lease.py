"""Elects the one operator that acts, by a Lease in the API server; what the others may not do is kept by the `fence`.

The holder renews the Lease and opens the fence a little less long than the Lease lasts. Another takes it only after it has seen the
record unchanged for the whole of that time, on its own clock: times written by others are shown to people and never compared.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError, ConflictError, LeadershipLostError, NotFoundError
from vectorindex_operator.fence import Fence

log = logging.getLogger(__name__)

DURATION: Final = timedelta(seconds=10)
"""How long the record must stand still before another takes it."""

RENEW_DEADLINE: Final = timedelta(seconds=7)
"""How long the holder acts after the last renewal that succeeded: counted from before it was sent, so it ends 3 s before DURATION does."""

RETRY: Final = timedelta(seconds=2)
"""Time between two renewals, and between two looks of those who wait."""

REQUEST_LIMIT: Final = timedelta(seconds=3)
"""A renewal that has no answer by then is tried again: a connection may be dead."""

Record = dict[str, Any]


def make_identity(pod: str) -> str:
    """Return a name that no other process has, nor a later one of the same pod."""
    return f"{pod}_{secrets.token_hex(4)}"


def _now() -> datetime:
    return datetime.now(UTC)


class Election:
    """One candidate. `acquire`, then `hold` until that fails, then at best `release`."""

    def __init__(
        self, cluster: Cluster, fence: Fence, *, name: str, namespace: str, identity: str, wall_clock: Callable[[], datetime] = _now
    ) -> None:
        self._cluster = cluster
        self._fence = fence
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._wall_clock = wall_clock
        self._seen: str | None = None  # version of the record as last seen; "" for none at all, None before the first look
        self._seen_at = 0.0
        self._held: Record = {}  # the Lease as we wrote it last

    async def acquire(self) -> None:
        """Wait until the Lease is ours, and open the fence."""
        while True:
            try:
                if await self.try_acquire():
                    log.info("leading: lease=%s/%s identity=%s", self._namespace, self._name, self._identity)
                    return
            except ClusterError as error:
                log.warning("the lease can't be read or taken: cause=%s", error)
            await _pause()

    async def try_acquire(self) -> bool:
        """Take the Lease if nobody holds it or its holder has let it stand still; return whether it is ours."""
        lease = await self._read()
        if not self._is_free(lease):
            return False
        try:
            await self._write(lease)
        except (ConflictError, NotFoundError):  # another was faster
            return False
        return True

    async def hold(self) -> None:
        """Renew the Lease for ever; raise LeadershipLostError when that failed for too long or another holds it."""
        while True:
            await _pause()
            await self.renew()

    async def renew(self) -> None:
        """Renew the Lease once, by as many requests as the time allows; raise LeadershipLostError when it is lost."""
        while self._fence.may_write():
            try:
                async with asyncio.timeout(min(REQUEST_LIMIT.total_seconds(), self._fence.remaining())):
                    await self._write(self._held)
                return
            except (ConflictError, NotFoundError):
                await self._read_again()
            except (ClusterError, TimeoutError) as error:
                log.warning("the lease was not renewed: cause=%s", str(error) or "no answer in time")
                await _pause()
        raise LeadershipLostError(f"the lease {self._namespace}/{self._name} was not renewed for {RENEW_DEADLINE.total_seconds():.0f} s")

    async def release(self) -> None:
        """Stop acting and let another take the Lease at once. Nothing of ours may still be on its way to the API server."""
        self._fence.shut()
        if not self._held:
            return
        try:
            async with asyncio.timeout(REQUEST_LIMIT.total_seconds()):
                try:
                    await self._write_released(self._held)
                except ConflictError:  # by a renewal of ours that was cut short, or by another holder, to whom it then belongs
                    lease = await self._read()
                    if lease and lease["spec"].get("holderIdentity") == self._identity:
                        await self._write_released(lease)
        except (ClusterError, TimeoutError) as error:
            log.warning("the lease was not released: cause=%s", str(error) or "no answer in time")
        else:
            log.info("released: lease=%s/%s", self._namespace, self._name)

    async def _write_released(self, lease: Record) -> None:
        await self._cluster.write_lease({**lease, "spec": {**lease["spec"], "holderIdentity": "", "renewTime": self._format_now()}})

    async def _read(self) -> Record | None:
        """Return the Lease, and note since when it stands as it does."""
        lease = await self._cluster.read("Lease", self._namespace, self._name)
        version = lease["metadata"]["resourceVersion"] if lease else ""
        if version != self._seen:
            first = self._seen is None
            self._seen, self._seen_at = version, self._fence.clock()
            if first and lease is None:
                self._seen_at = float("-inf")  # it never was: nobody can hold it
        return lease

    def _is_free(self, lease: Record | None) -> bool:
        spec = (lease or {}).get("spec") or {}
        if lease and spec.get("holderIdentity", "") in ("", self._identity):  # ours: a write whose answer was lost
            return True
        lasts = max(DURATION.total_seconds(), spec.get("leaseDurationSeconds") or 0)
        return self._fence.clock() - self._seen_at >= lasts

    async def _read_again(self) -> None:
        """Find out why a renewal was refused: by our own write whose answer was lost, or because another holds the Lease."""
        try:
            lease = await self._read()
        except ClusterError as error:
            log.warning("the lease can't be read: cause=%s", error)
            await _pause()
            return
        holder = self._identity if lease is None else (lease.get("spec") or {}).get("holderIdentity", "")
        if holder != self._identity:
            self._fence.shut()
            raise LeadershipLostError(f"the lease {self._namespace}/{self._name} is held by {holder or 'nobody'}")
        self._held = lease or {}

    async def _write(self, lease: Record | None) -> None:
        """Write the Lease as ours and move the fence on. Time counts from before the request: it may be long on its way."""
        started = self._fence.clock()
        now = self._format_now()
        spec = (lease or {}).get("spec") or {}
        ours = spec.get("holderIdentity") == self._identity
        transitions = spec.get("leaseTransitions") or 0
        wanted = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION.total_seconds()),
            "acquireTime": spec.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": transitions if ours or not lease else transitions + 1,
        }
        meta = lease["metadata"] if lease else {"name": self._name, "namespace": self._namespace}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": wanted}
        self._held = await self._cluster.write_lease(body)
        self._fence.open_until(started + RENEW_DEADLINE.total_seconds())

    def _format_now(self) -> str:
        return self._wall_clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _pause() -> None:
    await asyncio.sleep(RETRY.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311 - spreads tries, guards nothing
