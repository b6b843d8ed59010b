"""Processes: run one to its end, wait for a condition, tie one to its parent, find out whether one still lives."""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from .errors import ClusterError
from .progress import heartbeat, say

T = TypeVar("T")

# Programs of the administrator are not on every user's PATH.
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_SHOWN_LINES = 12


def run(*command: str | Path, text: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a command with `text` as its input and return its output.

    Raise ClusterError with the end of what it printed when it fails or does not exist.
    """
    line = [str(part) for part in command]
    settings = {**(environment or os.environ), "PATH": f"{(environment or os.environ).get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    try:
        result = subprocess.run(line, text=True, capture_output=True, input=text, env=settings, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{line[0]} is not installed; run: python3 -m cluster packages --install") from error
    if result.returncode:
        shown = "\n".join((result.stdout + result.stderr).strip().splitlines()[-_SHOWN_LINES:])
        raise ClusterError(f"{' '.join(line)}: exit {result.returncode}: {shown}")
    return result.stdout


def wait_for(what: str, probe: Callable[[], T | None], timeout_seconds: float, interval_seconds: float = 0.1) -> T:
    """Call `probe` until it returns something true and return that; a ClusterError or OSError counts as "not yet"."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        problem: Exception | None = None
        try:
            if result := probe():
                return result
        except (ClusterError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout_seconds:.0f} s for {what} in vain{f'; last: {problem}' if problem else ''}")
        time.sleep(interval_seconds)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however that happens (Linux)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends; for `preexec_fn` of subprocess."""
    set_parent_death_signal(signal.SIGKILL)


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name: state first, start time at index 19; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended; a zombie has, too, whoever started it may be slow to notice."""
    fields = stat_fields(pid)
    return not fields or fields[0] in ("Z", "X")


@contextlib.contextmanager
def exclusive(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold a file lock, which the kernel drops when this process ends; say what is being waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {waiting_for}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pip() -> list[str]:
    """Return the command of a pip: of this Python, or of the one it was made from, or of the system."""
    for python in (sys.executable, getattr(sys, "_base_executable", ""), "/usr/bin/python3"):
        if python and Path(python).exists():
            probe = subprocess.run([python, "-c", "import pip"], capture_output=True, check=False)
            if probe.returncode == 0:
                return [python, "-m", "pip"]
    raise ClusterError("this Python has no pip; run: python3 -m cluster packages --install")


def heartbeat_run(what: str, command: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command that takes long, saying from time to time that it still runs."""
    say(what)
    with heartbeat(lambda seconds: f"{what}, {seconds:.0f} s so far"):
        return subprocess.run(command, text=True, capture_output=True, env=environment, check=False)
