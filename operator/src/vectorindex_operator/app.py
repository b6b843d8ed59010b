"""Runs the operator: watches, queue, workers, resync and the HTTP port, until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import threading
import time
from datetime import timedelta
from typing import Final

import kopf

from vectorindex_operator import handlers, metrics, server
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError
from vectorindex_operator.members import Members
from vectorindex_operator.names import Key
from vectorindex_operator.reconcile import Reconciler
from vectorindex_operator.resync import GRACE, Resync
from vectorindex_operator.settings import Settings
from vectorindex_operator.store import Store
from vectorindex_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

WAIT_FOR_API: Final = timedelta(seconds=3)
MAX_RESTART_PAUSE: Final = timedelta(seconds=30)
RELISTING: Final = 1.0  # seconds in which all kinds have been listed again
STUCK: Final = timedelta(minutes=5)
SETTLE: Final = timedelta(milliseconds=100)


class App:
    """One running operator. Everything in it belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue: WorkQueue[Key] = WorkQueue()
        self._busy: dict[int, float] = {}  # worker: since when it has worked on one key
        self._stop = asyncio.Event()
        self._stop_kopf = threading.Event()
        self._relisted = asyncio.Event()
        self._watching = threading.Event()

    def stop(self) -> None:
        """End the operator: no more looks are begun, the watches end."""
        self._stop.set()
        self._stop_kopf.set()

    def is_alive(self) -> bool:
        """Whether no worker hangs; that the event loop runs is shown by the answer itself."""
        return all(time.monotonic() - since < STUCK.total_seconds() for since in self._busy.values())

    def is_ready(self) -> bool:
        """Whether our kind is served and watched."""
        return self._watching.is_set()

    async def run(self) -> None:
        """Run until `stop`."""
        settings = self._settings
        async with (
            Cluster() as cluster,
            Members() as members,
            server.serve(settings.host, settings.ops_port, self.is_alive, self.is_ready),
            asyncio.TaskGroup() as tasks,
        ):
            store = Store()
            reconciler = Reconciler(cluster, store, members, settings)
            resync = Resync(cluster, store, self._look, settings.watch_namespaces)

            def tell(kind: str, event: handlers.RawEvent) -> None:
                body = event["object"]
                if event["type"] is None and store.was_told(kind, body):
                    self._relisted.set()  # what was deleted meanwhile is told by nobody
                key = store.tell(kind, body, gone=event["type"] == "DELETED")
                if key:
                    self._look(key)

            loop = asyncio.get_running_loop()
            memo = handlers.Memo(lambda kind, event: loop.call_soon_threadsafe(tell, kind, event))
            if not await self._wait_for_api(resync):
                return
            running = [tasks.create_task(self._work(number, reconciler)) for number in range(settings.workers)]
            running.append(tasks.create_task(self._resync(resync)))
            await self._watch(memo)
            for task in running:
                task.cancel()

    def _look(self, key: Key) -> None:
        """Let the index be looked at soon, once for all that happens within a moment."""
        self._queue.add_within(key, SETTLE)

    async def _wait_for_api(self, resync: Resync) -> bool:
        """Wait until all kinds are served and may be read; return False when stopped meanwhile. kopf would look once and never again.

        Nothing is looked at before: with some lists missing, objects would seem to be absent.
        """
        while not self._stop.is_set():
            try:
                await resync.run()
            except ClusterError as error:
                log.warning("not everything can be listed yet: cause=%s", error)
                await self._pause(WAIT_FOR_API)
            else:
                return True
        return False

    async def _watch(self, memo: handlers.Memo) -> None:
        """Run kopf, again whenever it ends by itself: one broken line of a stream ends it whole."""
        failures = 0
        while not self._stop.is_set():
            started = time.monotonic()
            self._stop_kopf.clear()
            try:
                await self._run_kopf(memo)
            except Exception:  # kopf raises what its streams raise
                log.exception("the watches ended")
            self._watching.clear()
            if self._stop.is_set():
                return
            metrics.RESTARTS.inc()
            failures = failures + 1 if time.monotonic() - started < STUCK.total_seconds() else 1
            await self._pause(min(MAX_RESTART_PAUSE, timedelta(seconds=2.0 ** min(failures, 6))))

    async def _run_kopf(self, memo: handlers.Memo) -> None:
        """Run kopf in a thread of its own: in ours it takes over the signals and, when it ends, cancels whatever else is running."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            problem: BaseException | None = None
            own = asyncio.new_event_loop()
            try:
                own.run_until_complete(self._kopf(memo))
            except BaseException as error:
                problem = error
            finally:
                own.close()  # not asyncio.run: kopf's generators can't be closed from outside, and say so with a traceback each
            loop.call_soon_threadsafe(_end, ended, problem)

        threading.Thread(target=run, name="kopf", daemon=True).start()
        await ended

    async def _kopf(self, memo: handlers.Memo) -> None:
        await kopf.operator(
            registry=handlers.make_registry(),
            settings=handlers.make_settings(),
            memo=memo,
            standalone=True,
            clusterwide=not self._settings.watch_namespaces,
            namespaces=self._settings.watch_namespaces,
            stop_flag=self._stop_kopf,
            ready_flag=self._watching,
        )

    async def _work(self, number: int, reconciler: Reconciler) -> None:
        while True:
            key = await self._queue.take()
            metrics.QUEUE.set(len(self._queue))
            started = self._busy[number] = time.monotonic()
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
            try:
                claims = await resync.run()
            except ClusterError as error:
                log.warning("resync failed: cause=%s", error)
                self._relisted.set()
                await asyncio.sleep(WAIT_FOR_API.total_seconds())
                continue
            await asyncio.sleep(GRACE.total_seconds())
            if resync.find_blind(claims):
                self._stop_kopf.set()

    async def _pause(self, duration: timedelta) -> None:
        """Sleep, but not beyond `stop`."""
        try:
            async with asyncio.timeout(duration.total_seconds()):
                await self._stop.wait()
        except TimeoutError:
            return


def _end(ended: "asyncio.Future[None]", problem: BaseException | None) -> None:
    if ended.done():
        return
    if problem is None:
        ended.set_result(None)
    else:
        ended.set_exception(RuntimeError(f"kopf ended: {type(problem).__name__}: {problem}"))
