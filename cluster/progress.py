"""Lines on stderr that tell how far a long step has come."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

HEARTBEAT_SECONDS = 20.0


def say(text: str) -> None:
    """Write one line of progress."""
    print(text, file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """Say a duration as a person would."""
    if seconds < 45:
        return "less than a minute"
    rounded = max(1, round(seconds / 60))
    return "about 1 minute" if rounded == 1 else f"about {rounded} minutes"


@contextlib.contextmanager
def heartbeat(describe: Callable[[float], str], every_seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """While the block runs, say `describe(seconds since its start)` again and again."""
    ended = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not ended.wait(every_seconds):
            say(describe(time.monotonic() - started))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
