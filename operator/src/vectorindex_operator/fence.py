"""Says whether this process may still change anything: only before a moment on a clock that nobody can set."""

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


def read_clock() -> float:
    """Return seconds since the machine started: never set by anybody, and going on while the process or the machine sleeps."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Fence:
    """Open until a moment that whoever leads moves on; shut from the beginning."""

    def __init__(self, clock: Clock = read_clock) -> None:
        self.clock = clock
        self._deadline = float("-inf")

    def open_until(self, deadline: float) -> None:
        """Let writes pass before this moment of `clock`."""
        self._deadline = deadline

    def open_for_ever(self) -> None:
        """Let all writes pass: nobody else can lead."""
        self._deadline = float("inf")

    def shut(self) -> None:
        """Let no write pass any more."""
        self._deadline = float("-inf")

    def remaining(self) -> float:
        """Return the seconds for which writes still pass."""
        return self._deadline - self.clock()

    def may_write(self) -> bool:
        """Whether a write may be sent now."""
        return self.remaining() > 0
