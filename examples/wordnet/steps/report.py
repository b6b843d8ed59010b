"""What a person sees of the steps, and how a step says that it failed."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
PATIENCE: Final = float(os.environ.get("PATIENCE", "1"))
"""How many times longer than usual to wait before giving up: more than 1 on a machine that is slow, or busy with other work."""


class StepError(Exception):
    """A step did not show what it must show; the message says what was expected and what was found."""


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def headline(number: int, text: str) -> None:
    """Print the title of a step, and the time."""
    say(f"\n== {number}/7  {time.strftime('%H:%M:%S')}  {text}")


def detail(text: str) -> None:
    """Print a line that belongs to a step."""
    say("\n".join(f"   {line}" for line in text.splitlines()))


def expect(condition: bool, message: str) -> None:
    """Raise StepError with the message unless the condition holds."""
    if not condition:
        raise StepError(message)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns: the first left-aligned, numbers to the right."""
    lines = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = []
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        shown.append("  ".join(cells))
    return "\n".join(shown)


def wait_until(what: str, probe: Callable[[], T | None], timeout_seconds: float, interval_seconds: float = 0.25) -> T:
    """Call `probe` until it returns something true and return that; a StepError counts as "not yet" and is shown if time runs out."""
    timeout_seconds *= PATIENCE
    deadline = time.monotonic() + timeout_seconds
    while True:
        last: StepError | None = None
        try:
            if result := probe():
                return result
        except StepError as error:
            last = error
        if time.monotonic() > deadline:
            raise StepError(f"waited {timeout_seconds:.0f} s for {what} in vain{f'; last: {last}' if last else ''}")
        time.sleep(interval_seconds)


def warn(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)
