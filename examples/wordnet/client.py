"""A client of the search API that runs in a pod, with nothing but Python. Input is one JSON document on standard input, output another.

`search` answers a batch of queries once. `watch` asks one query after the other, each over a new connection and without a second try, until
its input says stop, and tells how many were answered, how many were not, and whether an id that must never appear did.
"""

import base64
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

TIMEOUT_SECONDS = 10
KEPT_MESSAGES = 5
STOP = "stop"


def unpack(text: str, dimension: int) -> list[list[float]]:
    """Return vectors that came as base64 of little-endian float32."""
    values = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return [values[start : start + dimension].tolist() for start in range(0, len(values), dimension)]


def post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    """Send one request over a connection of its own and return the answer."""
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  the caller's own http address
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def search(task: dict[str, Any]) -> dict[str, Any]:
    """Answer all queries, `batch` in a request."""
    vectors = unpack(task["vectors"], task["dimension"])
    found: list[Any] = []
    answers = []
    for start in range(0, len(vectors), task["batch"]):
        answer = post(task["url"], {"vectors": vectors[start : start + task["batch"]], "k": task["k"]})
        found.extend(answer.pop("results"))
        answers.append(answer)
    return {"results": found, "proven": all(answer["proven"] for answer in answers), "generations": [a["generation"] for a in answers]}


def watch(task: dict[str, Any], source: Iterable[str]) -> dict[str, Any]:
    """Ask until `source` says stop, or ends."""
    ended = threading.Event()

    def await_end() -> None:
        # A line that says so, not only the end of the input: not every way into a pod passes that on.
        for line in source:
            if line.strip() == STOP:
                break
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    forbidden = set(task["forbidden"])
    told: dict[str, Any] = {"answered": 0, "failed": 0, "unproven": 0, "forbidden": 0, "messages": [], "slowest_seconds": 0.0}
    for vector in repeat(unpack(task["vectors"], task["dimension"])):
        if ended.is_set():
            return told
        started = time.monotonic()
        try:
            answer = post(task["url"], {"vector": vector, "k": task["k"]})
        except (OSError, ValueError) as error:
            told["failed"] += 1
            text = error.read(500).decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
            told["messages"] = [*told["messages"], f"{time.strftime('%H:%M:%S')} {error} {text}"][-KEPT_MESSAGES:]
        else:
            told["answered"] += 1
            told["unproven"] += not answer["proven"]
            told["forbidden"] += any(hit["id"] in forbidden for hit in answer["results"])
        told["slowest_seconds"] = max(told["slowest_seconds"], time.monotonic() - started)
        time.sleep(task["pause_seconds"])
    return told


def repeat(vectors: list[list[float]]) -> Iterator[list[float]]:
    """Yield the vectors again and again."""
    while True:
        yield from vectors


def main() -> None:
    """Read the task and print the outcome."""
    task = json.loads(sys.stdin.readline())
    outcome = search(task) if sys.argv[1] == "search" else watch(task, sys.stdin)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
