"""Searches, made from a pod through a Service as applications make them."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from examples.wordnet.client import STOP
from examples.wordnet.load import DIMENSION

from .report import StepError, expect
from .world import CLIENT, INDEX, SEARCH, World

SCRIPT = ("python3", "/scripts/client.py")
WATCH_PAUSE_SECONDS = 0.02
# kubectl's WebSocket fails for good once nothing was written to it for 60 s, as its last write's deadline is still in force.
HEARTBEAT_SECONDS = 10


@dataclass(frozen=True)
class Hits:
    """Answers to q queries. `ids`: (q, k) int64, best first; `scores` likewise."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    proven: bool


def search_url(index: str = INDEX, *, pod: int | None = None) -> str:
    """Return the address of an index: its Service, or one of its pods."""
    host = f"{index}-index" if pod is None else f"{index}-index-{pod}.{index}-index-members"
    return f"http://{host}:8080/v1/indexes/{index}/search"


def pack(vectors: NDArray[np.float32]) -> str:
    """Return vectors as the client script takes them."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def search(world: World, queries: NDArray[np.float32], *, k: int = 10, url: str | None = None, batch: int = 100) -> Hits:
    """Search for all queries, `batch` in a request; raise StepError when one is refused."""
    task = {"url": url or search_url(), "vectors": pack(queries), "dimension": DIMENSION, "k": k, "batch": batch}
    answer = json.loads(world.kubernetes.execute(SEARCH, CLIENT, *SCRIPT, "search", text=json.dumps(task) + "\n"))
    hits = answer["results"]
    short = [place for place, found in enumerate(hits) if len(found) != k]
    expect(not short, f"expected {k} hits for each query, got {[len(hits[place]) for place in short[:5]]} for queries {short[:5]}")
    ids = np.array([[hit["id"] for hit in found] for found in hits], np.int64)
    return Hits(ids, np.array([[hit["score"] for hit in found] for found in hits]), answer["proven"])


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the share of the exact ids (q, k) that was found."""
    common = sum(len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True))
    return common / exact.size


@dataclass
class Watch:
    """A client that asked all the time. Complete once the block of `watching` has ended."""

    answered: int = 0
    failed: int = 0
    unproven: int = 0
    forbidden: int = 0
    slowest_seconds: float = 0.0
    opened: int = 0  # connections, where they are kept
    messages: Sequence[str] = ()


@contextmanager
def watching(
    world: World, queries: NDArray[np.float32], forbidden: NDArray[np.int64], index: str = INDEX, *, kept: int = 0
) -> Iterator[Watch]:
    """Search through the Service, one query after the other without a second try, as long as the block runs.

    Each search opens a connection of its own, or `kept` connections are used side by side and opened anew when the server says it closes.
    """
    watch = Watch()
    task = {
        "url": search_url(index),
        "vectors": pack(queries),
        "dimension": DIMENSION,
        "k": 10,
        "forbidden": forbidden.tolist(),
        "pause_seconds": WATCH_PAUSE_SECONDS * max(1, kept),
        "kept": kept,
    }
    process = world.kubernetes.start("exec", f"--namespace={SEARCH}", "--stdin", CLIENT, "--", *SCRIPT, "watch")
    if process.stdin is None:
        raise StepError("no pipe to the client")
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(process.stdin, ended))
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        heart.start()
        yield watch
        ended.set()
        heart.join()
        with suppress(OSError):  # it ended before; its exit tells
            process.stdin.write(f"{STOP}\n")
            process.stdin.flush()
        outcome = _end(process)
    finally:
        ended.set()
        process.kill()
        process.communicate()
    for name, value in outcome.items():
        setattr(watch, name, value)


def _beat(stdin: IO[str], ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        try:
            stdin.write("\n")
            stdin.flush()
        except (OSError, ValueError):  # it ended; its exit tells
            return


def _end(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, errors = process.communicate(f"{STOP}\n", timeout=30)
    except subprocess.TimeoutExpired as error:
        raise StepError("the client that searched all the time did not end") from error
    if process.returncode:
        raise StepError(f"the client that searched all the time failed: {errors.strip()[-500:]}")
    outcome: dict[str, Any] = json.loads(output)
    return outcome
