"""Where the process begins: it can be told to end before the rest of the program is loaded."""

import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line and return its exit code."""
    signal.signal(signal.SIGTERM, _leave)
    from vectorindex_indexer.__main__ import main as run  # noqa: PLC0415  loading it takes a second, in which a pod may be deleted

    return run()


def _leave(number: int, _frame: FrameType | None) -> None:
    """End at once. Process 1 of a container ignores a signal that it doesn't handle, and is killed only when its grace period is over."""
    sys.exit(128 + number)
