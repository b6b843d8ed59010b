"""A queue of keys: a key waits at most once, is never worked on twice at a time, and may be added for later."""

import asyncio
from collections.abc import Hashable
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to look at. Adding a key that is being worked on lets it come again afterwards. Used by one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Let the key come as soon as possible; a later time that was set for it is dropped."""
        self._stop_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_within(self, key: K, delay: timedelta) -> None:
        """Let the key come after the delay at the latest; an earlier time that was set for it stays."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay.total_seconds()
        timer = self._timers.get(key)
        if key in self._waiting or key in self._again or (timer is not None and timer.when() <= due):
            return
        self._stop_timer(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    async def take(self) -> K:
        """Return the next key, once there is one. `done` must follow."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Say that the work on a taken key has ended."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _stop_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
