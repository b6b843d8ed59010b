"""Keeps kopf running: in a thread of its own, and begun anew whenever it ends by itself or has lost one of its streams.

In our own thread kopf would take over the signals and, when it ends, cancel whatever else is running.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import kopf

from vectorindex_operator import handlers, metrics, names
from vectorindex_operator.heart import Heart

log = logging.getLogger(__name__)

CHECK: Final = 0.5
FIRST_PAUSE: Final = timedelta(seconds=2)
MAX_PAUSE: Final = timedelta(seconds=30)
STEADY: Final = timedelta(minutes=5)
"""After a run of this length, the pause before the next is short again."""

PATIENCE: Final = timedelta(seconds=20)
"""How long a stream may be missing: kopf begins them some time after its start, and one that ended quietly never again."""

HUNG: Final = timedelta(seconds=60)
"""A loop of kopf's that did nothing for so long can be ended only with the process."""

URGE: Final = timedelta(seconds=0.5)
"""How often kopf is urged to end when it was told to; it needs a fraction of that."""

URGES: Final = 4

LAST_MOMENT: Final = timedelta(seconds=0.1)

STOPPING: Final = timedelta(seconds=3)
"""How long the end of kopf is waited for when the operator ends."""

_STREAM: Final = "watcher for "  # so kopf names the task of each stream


class Run:
    """One run of kopf in its thread."""

    def __init__(self, memo: handlers.Memo, namespaces: Sequence[str]) -> None:
        self._memo = memo
        self._namespaces = namespaces
        self._loop = asyncio.get_running_loop()
        self._own = asyncio.new_event_loop()
        self._stop = threading.Event()
        self.heart = Heart()
        self.streams = 0
        self.ended: asyncio.Future[Any] = self._loop.create_future()  # with what it ended of
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """Let it end."""
        self._stop.set()
        with contextlib.suppress(RuntimeError):  # it has ended
            self._own.call_soon_threadsafe(self._own.call_later, URGE.total_seconds(), self._urge, URGES)

    def _urge(self, left: int) -> None:
        """Cancel the streams again, and leave them alone in the end: kopf swallows the cancelling of a request without an answer."""
        for task in asyncio.all_tasks(self._own):
            if task.get_name().startswith(_STREAM):
                task.cancel()
        if left:
            self._own.call_later(URGE.total_seconds(), self._urge, left - 1)
        else:
            self._own.stop()

    def _run(self) -> None:
        cause = "told to"
        try:
            self._own.run_until_complete(self._watch())
        except BaseException as error:  # kopf raises what its streams raise
            cause = f"{type(error).__name__}: {error}"
        finally:
            self._own.set_exception_handler(lambda *_: None)  # of tasks that are left alone there is nothing to tell
            self._cancel_all()
            self._own.close()  # not asyncio.run: kopf's generators can't be closed from outside, and say so with a traceback each
        with contextlib.suppress(RuntimeError):  # our own loop may have ended before
            self._loop.call_soon_threadsafe(self._set_ended, cause)

    def _cancel_all(self) -> None:
        """Let whatever is left in kopf's loop close its connections, as far as it will within a moment."""
        for task in asyncio.all_tasks(self._own):
            task.cancel()
        with contextlib.suppress(RuntimeError):
            self._own.run_until_complete(asyncio.sleep(LAST_MOMENT.total_seconds()))

    async def _watch(self) -> None:
        beside = [asyncio.create_task(self.heart.beat()), asyncio.create_task(self._count())]  # kopf leaves alone what was there before
        try:
            await kopf.operator(
                registry=handlers.make_registry(),
                settings=handlers.make_settings(),
                memo=self._memo,
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop,
            )
        finally:
            self.streams = 0
            if not self._own.is_closed():  # else the loop was left alone, and nothing in it can be ended any more
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

    async def _count(self) -> None:
        while True:
            self.streams = sum(task.get_name().startswith(_STREAM) for task in asyncio.all_tasks())
            await asyncio.sleep(CHECK)

    def _set_ended(self, cause: str) -> None:
        if not self.ended.done():
            self.ended.set_result(cause)


class Supervisor:
    """Begins kopf and begins it anew. Belongs to one event loop; `is_watching` and `is_alive` may be asked from any thread."""

    def __init__(self, memo: handlers.Memo, namespaces: Sequence[str], until_served: Callable[[], Awaitable[bool]]) -> None:
        self._memo = memo
        self._namespaces = namespaces
        self._until_served = until_served
        self._expected = len(names.WATCHED_KINDS) * max(1, len(namespaces))
        self._current: Run | None = None

    def is_watching(self) -> bool:
        """Whether every kind is watched in every namespace."""
        run = self._current
        return run is not None and run.streams >= self._expected and self.is_alive()

    def is_alive(self) -> bool:
        """Whether kopf runs, or is about to be begun."""
        run = self._current
        return run is None or not run.heart.is_stuck(HUNG.total_seconds())

    def lag(self) -> float:
        """Return how late kopf's event loop was lately."""
        run = self._current
        return 0.0 if run is None else run.heart.lag()

    def restart(self) -> None:
        """Let all streams begin anew."""
        if self._current is not None:
            self._current.stop()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep kopf running until `stop`. Our kind must be served: kopf looks for it once at its start and never again."""
        failures = 0
        while not stop.is_set():
            started = time.monotonic()
            cause = await self._run_once(stop)
            if stop.is_set():
                return
            metrics.RESTARTS.inc()
            failures = failures + 1 if time.monotonic() - started < STEADY.total_seconds() else 1
            log.warning("the watches ended and begin anew: cause=%s", cause)
            longest = min(MAX_PAUSE.total_seconds(), FIRST_PAUSE.total_seconds() * 2.0 ** min(failures - 1, 10))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), longest * random.uniform(0.5, 1))  # noqa: S311 - spreads the load
            if not await self._until_served():
                return

    async def _run_once(self, stop: asyncio.Event) -> str:
        run = self._current = Run(self._memo, self._namespaces)
        stopping: asyncio.Future[Any] = asyncio.create_task(stop.wait())
        try:
            missing_since = time.monotonic()
            while not run.ended.done() and not stop.is_set():
                await asyncio.wait({run.ended, stopping}, timeout=CHECK, return_when=asyncio.FIRST_COMPLETED)
                if run.streams >= self._expected:
                    missing_since = time.monotonic()
                elif time.monotonic() - missing_since > PATIENCE.total_seconds():
                    log.warning("streams are missing: expected=%d got=%d", self._expected, run.streams)
                    run.stop()
                    await asyncio.wait({run.ended}, timeout=HUNG.total_seconds())
            run.stop()
            await asyncio.wait({run.ended}, timeout=STOPPING.total_seconds())
            return str(run.ended.result()) if run.ended.done() else "it did not end"
        finally:
            run.stop()  # else its threads keep the process from ending
            stopping.cancel()
            self._current = None
