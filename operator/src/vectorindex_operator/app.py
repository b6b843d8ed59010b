"""Runs the operator: watches, queue, workers, resync and the HTTP port, until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from vectorindex_operator import handlers, metrics, server, webhook
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError, LeadershipLostError
from vectorindex_operator.fence import Fence
from vectorindex_operator.heart import Heart
from vectorindex_operator.lease import Election, make_identity
from vectorindex_operator.members import Members
from vectorindex_operator.names import Key
from vectorindex_operator.reconcile import Reconciler
from vectorindex_operator.resync import GRACE, Resync
from vectorindex_operator.settings import Settings
from vectorindex_operator.store import Store
from vectorindex_operator.supervisor import Supervisor
from vectorindex_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WAIT_FOR_API: Final = timedelta(seconds=3)
RELISTING: Final = 1.0  # seconds in which all kinds have been listed again
STUCK: Final = timedelta(minutes=5)
LOOP_STUCK: Final = timedelta(seconds=15)
DRAIN: Final = timedelta(seconds=3)
"""How long looks that were begun before `stop` may go on."""
SETTLE: Final = timedelta(milliseconds=100)


class App:
    """One running operator, leading or waiting to lead. All but what probes ask belongs to one event loop."""

    def __init__(self, settings: Settings, on_lost: Callable[[], object] = lambda: None) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._queue: WorkQueue[Key] = WorkQueue()
        self._busy: dict[int, float] = {}  # worker: since when it has worked on one key
        self._taken_at = self._resynced_at = time.monotonic()
        self._heart = Heart()
        self._supervisor: Supervisor | None = None
        self._stop = asyncio.Event()
        self._leading = False
        self._relisted = asyncio.Event()

    def stop(self) -> None:
        """End the operator: no more looks are begun, the watches end."""
        self._stop.set()

    def find_hang(self) -> str:
        """Return what stands still and won't go on by itself, or nothing. An API server that is away is no such thing."""
        now = time.monotonic()
        if self._heart.is_stuck(LOOP_STUCK.total_seconds()):
            return "the event loop is stuck"
        if self._supervisor is not None and not self._supervisor.is_alive():
            return "the event loop of the watches is stuck"
        if any(now - since > STUCK.total_seconds() for since in list(self._busy.values())):
            return "a worker hangs"
        if self._leading and len(self._queue) and now - self._taken_at > STUCK.total_seconds():
            return "the queue stands still"
        if self._supervisor is not None and now - self._resynced_at > (2 * self._settings.resync + STUCK).total_seconds():
            return "no resync was tried in time"
        return ""

    def find_unready(self) -> str:
        """Return why this operator could not act if it led, or nothing."""
        if self._supervisor is None or not self._supervisor.is_watching():
            return "the kinds are not all served and watched"
        return ""

    async def run(self) -> None:
        """Run until `stop`; raise LeadershipLostError, in a group, when another operator may act by now."""
        settings = self._settings
        fence, store = Fence(), Store()
        metrics.LOOP_LAG.labels("main").set_function(self._heart.lag)
        async with Cluster(fence) as cluster, Members() as members, _beside(self._heart.beat()):
            with server.serve(settings.host, settings.ops_port, self.find_hang, self.find_unready), self._hear_alerts():
                resync = Resync(cluster, store, self._look, settings.watch_namespaces)
                if not await self._wait_for_api(resync):
                    return
                supervisor = Supervisor(self._make_memo(store), settings.watch_namespaces, lambda: self._until_served(resync))
                metrics.LOOP_LAG.labels("watches").set_function(supervisor.lag)
                self._supervisor, self._resynced_at = supervisor, time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    resyncing = tasks.create_task(self._resync(resync))
                    tasks.create_task(supervisor.run(self._stop))
                    await self._lead(self._make_election(cluster, fence), Reconciler(cluster, store, members, settings), resync, store)
                    resyncing.cancel()

    def _hear_alerts(self) -> contextlib.AbstractContextManager[None]:
        settings = self._settings
        return webhook.serve(settings.webhook, settings.host, settings.watch_namespaces) if settings.webhook else contextlib.nullcontext()

    def _make_memo(self, store: Store) -> handlers.Memo:
        """Return what takes events from kopf's thread into the store, and lets the index they are about be looked at."""
        loop = asyncio.get_running_loop()

        def tell(kind: str, event: handlers.RawEvent) -> None:
            body = event["object"]
            if event["type"] is None:
                self._relisted.set()  # what was deleted before this list, and after ours, is told by nobody
            key = store.tell(kind, body, gone=event["type"] == "DELETED")
            if key:
                self._look(key)

        return handlers.Memo(lambda kind, event: loop.call_soon_threadsafe(tell, kind, event))

    def _make_election(self, cluster: Cluster, fence: Fence) -> Election | None:
        if not self._settings.lease_name:
            fence.open_for_ever()
            return None
        identity = make_identity(self._settings.pod_name)
        return Election(cluster, fence, name=self._settings.lease_name, namespace=self._settings.operator_namespace, identity=identity)

    async def _lead(self, election: Election | None, reconciler: Reconciler, resync: Resync, store: Store) -> None:
        """Wait until this operator leads, and act until `stop`. Others watch too, so that they know everything when their time comes."""
        if election and not await self._unless_stopped(election.acquire()):
            return
        metrics.LEADING.set(1)
        async with asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(self._hold(election)) if election else None
            settled = await self._act(reconciler, resync, store)
            if holding:
                holding.cancel()
        metrics.LEADING.set(0)
        if election and settled:
            await election.release()

    async def _hold(self, election: Election) -> None:
        try:
            await election.hold()
        except LeadershipLostError:
            self._on_lost()
            raise

    async def _act(self, reconciler: Reconciler, resync: Resync, store: Store) -> bool:
        """Look at everything and then at what changes, until `stop`; return whether nothing is on its way to the API server any more."""
        if not await self._wait_for_api(resync):  # our watches may lag behind what the leader before us has done
            return True
        self._leading = True
        for key in sorted(store.keys()):
            self._look(key)
        workers = {asyncio.create_task(self._work(number, reconciler)): number for number in range(self._settings.workers)}
        try:
            if await self._unless_stopped(asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)):
                raise AssertionError("a worker ended by itself")
            idle = [worker for worker, number in workers.items() if number not in self._busy]
            for worker in idle:
                worker.cancel()
            _, late = await asyncio.wait(workers, timeout=DRAIN.total_seconds())
            return not late
        finally:
            for worker in workers:
                worker.cancel()

    async def _unless_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Wait for the work and return True; leave it and return False when `stop` comes first."""
        doing, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                return False
            await doing
            return True
        finally:
            doing.cancel()
            stopping.cancel()

    def _look(self, key: Key) -> None:
        """Let the index be looked at soon, once for all that happens within a moment; who does not lead looks at nothing."""
        if self._leading:
            self._queue.add_within(key, SETTLE)

    async def _until_served(self, resync: Resync) -> bool:
        self._relisted.set()  # the watches may find nothing to list
        return await self._wait_for_api(resync)

    async def _wait_for_api(self, resync: Resync) -> bool:
        """Wait until all kinds are served and may be read; return False when stopped meanwhile. kopf would look once and never again.

        Nothing is looked at before: with some lists missing, objects would seem to be absent.
        """
        while not self._stop.is_set():
            try:
                return await self._unless_stopped(resync.run())
            except ClusterError as error:
                log.warning("not everything can be listed yet: cause=%s", error)
                await self._pause(WAIT_FOR_API)
        return False

    async def _work(self, number: int, reconciler: Reconciler) -> None:
        while not self._stop.is_set():
            key = await self._queue.take()
            metrics.QUEUE.set(len(self._queue))
            started = self._busy[number] = self._taken_at = time.monotonic()
            again: timedelta | None = timedelta(seconds=30)
            try:
                outcome = await reconciler.reconcile(key)
                metrics.RECONCILES.labels(result=outcome.result).inc()
                again = outcome.again_after
            except Exception:  # one index must not end the work on all others
                metrics.RECONCILES.labels(result="defect").inc()
                log.exception("a defect of the operator: index=%s", key)
            finally:
                del self._busy[number]
                self._queue.done(key)
            metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
            if again is not None:
                self._queue.add_within(key, again)

    async def _resync(self, resync: Resync) -> None:
        """Compare with lists now and then, whatever the watches told: they may have lost something, and then begin anew."""
        while True:
            pause = self._settings.resync.total_seconds() * random.uniform(0.9, 1.1)  # noqa: S311 - spreads the load
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._relisted.wait(), pause)
                await asyncio.sleep(RELISTING)
            self._relisted.clear()
            self._resynced_at = time.monotonic()
            try:
                claims = await resync.run()
            except ClusterError as error:
                log.warning("resync failed: cause=%s", error)
                self._relisted.set()
                await asyncio.sleep(WAIT_FOR_API.total_seconds())
                continue
            await asyncio.sleep(GRACE.total_seconds())
            if resync.find_blind(claims) and self._supervisor is not None:
                self._supervisor.restart()

    async def _pause(self, duration: timedelta) -> None:
        """Sleep, but not beyond `stop`."""
        try:
            async with asyncio.timeout(duration.total_seconds()):
                await self._stop.wait()
        except TimeoutError:
            return


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run the work while the context lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
