"""Beats in an event loop, so that other threads see whether it runs, and how late it comes when something blocks it."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.1
WINDOW: Final = 30.0


class Heart:
    """The beats of one event loop. What it tells may be asked from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = self._window_at = clock()
        self._worst = self._worst_before = 0.0

    async def beat(self) -> None:
        """Beat for ever in the loop that runs this."""
        self._beat_at = self._clock()
        while True:
            await asyncio.sleep(INTERVAL)
            self.note_beat()

    def note_beat(self) -> None:
        """Take in one beat."""
        late, now = self._late(), self._clock()
        if now - self._window_at > WINDOW:
            self._worst_before, self._worst, self._window_at = self._worst, 0.0, now
        self._worst = max(self._worst, late)
        self._beat_at = now

    def lag(self) -> float:
        """Return the longest delay in seconds of the last half minute at least, also one that still lasts."""
        return max(self._worst, self._worst_before, self._late())

    def is_stuck(self, seconds: float) -> bool:
        """Whether the loop has done nothing for so long."""
        return self._late() > seconds

    def _late(self) -> float:
        return max(0.0, self._clock() - self._beat_at - INTERVAL)
