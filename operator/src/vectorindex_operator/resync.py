"""Compares what the watches told with what the API server lists: what they missed is taken in, and watches that miss things are blind."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final

from vectorindex_operator import metrics, names
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import RejectedError
from vectorindex_operator.names import Key
from vectorindex_operator.store import Claim, Store

log = logging.getLogger(__name__)

GRACE: Final = timedelta(seconds=15)
"""How much later than a list a watch may tell the same; ordinarily it takes milliseconds."""


class Resync:
    """Lists everything that is watched, and takes it into the store."""

    def __init__(self, cluster: Cluster, store: Store, look: Callable[[Key], object], namespaces: Sequence[str]) -> None:
        self._cluster = cluster
        self._store = store
        self._look = look
        self._namespaces = tuple(namespaces) or ("",)
        self._one_at_a_time = asyncio.Lock()
        self._changed: dict[str, set[Key]] = {}  # by namespace: to be looked at once all kinds are listed

    async def run(self) -> list[Claim]:
        """List every kind once, let changed indexes be looked at, and return what the watches should have told.

        A namespace that may not be read is left out, as one that was deleted together with our rights in it: it hinders no other.
        Raises RejectedError if none may be read.
        """
        claims: list[Claim] = []
        refusals: list[RejectedError] = []
        for namespace in self._namespaces:
            try:
                async with self._one_at_a_time:
                    claims += await self._adopt(namespace)
            except RejectedError as error:
                refusals.append(error)
                log.warning("left out, as it may not be read: namespace=%s cause=%s", namespace or "all", error)
        if len(refusals) == len(self._namespaces):
            raise refusals[0]
        return claims

    async def _adopt(self, namespace: str) -> list[Claim]:
        claims: list[Claim] = []
        # What an attempt has taken in is no news to the next one: if this one fails, that one has to let it be looked at.
        changed = self._changed.setdefault(namespace, set())
        for kind in names.WATCHED_KINDS:
            items, version = await self._cluster.read_watched(kind, namespace)
            news, missed = self._store.adopt(kind, namespace, items, version)
            changed |= news
            claims += missed
        for key in self._changed.pop(namespace):
            self._look(key)
        return claims

    def find_blind(self, claims: Iterable[Claim]) -> list[Claim]:
        """Return what the watches still have not told; to be asked GRACE after the lists."""
        missed = [claim for claim in claims if self._store.is_missed(claim)]
        if missed:
            metrics.BLIND_WATCHES.inc()
            log.warning("the watches missed changes, beginning them anew: count=%d first=%s", len(missed), missed[0])
        return missed
