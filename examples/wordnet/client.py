"""A client of the search API that runs in a pod, with nothing but Python. Input is one JSON document on standard input, output another.

`search` answers a batch of queries once. `watch` asks one query after the other without a second try, over a new connection each or over
some that are kept, until its input says stop; it tells how many were answered, how many were not, and whether an id appeared that must not.
"""

import base64
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

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


class Kept:
    """A connection kept from request to request, as applications keep theirs; there is a new one only when the server said it closes."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.opened = 0
        self._path = address.path
        self._connection = HTTPConnection(address.netloc, timeout=TIMEOUT_SECONDS)

    def post(self, document: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer."""
        self.opened += self._connection.sock is None
        try:
            self._connection.request("POST", self._path, json.dumps(document).encode(), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise ValueError(f"HTTP {response.status} {body[:500].decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(body)
        return answer


class Tally:
    """What came of the searches of several threads."""

    def __init__(self, forbidden: Iterable[int]) -> None:
        self._forbidden = set(forbidden)
        self._lock = threading.Lock()
        self.told: dict[str, Any] = {"answered": 0, "failed": 0, "unproven": 0, "forbidden": 0, "messages": [], "slowest_seconds": 0.0}

    def search(self, ask: Callable[[], dict[str, Any]]) -> None:
        """Make one search and count what came of it."""
        started = time.monotonic()
        answer, message = None, ""
        try:
            answer = ask()
        except urllib.error.HTTPError as error:
            message = f"{error} {error.read(500).decode(errors='replace')}"
        except (OSError, ValueError, HTTPException) as error:
            message = f"{type(error).__name__} {error}"
        seconds = time.monotonic() - started
        with self._lock:
            self.told["slowest_seconds"] = max(self.told["slowest_seconds"], seconds)
            if answer is None:
                self.told["failed"] += 1
                self.told["messages"] = [*self.told["messages"], f"{time.strftime('%H:%M:%S')} {message}"][-KEPT_MESSAGES:]
                return
            self.told["answered"] += 1
            self.told["unproven"] += not answer["proven"]
            self.told["forbidden"] += any(hit["id"] in self._forbidden for hit in answer["results"])


def watch(task: dict[str, Any], source: Iterable[str]) -> dict[str, Any]:
    """Ask until `source` says stop, or ends. `kept` connections are used side by side; without any, each search opens its own."""
    ended = threading.Event()
    tally = Tally(task["forbidden"])
    vectors = unpack(task["vectors"], task["dimension"])
    connections = [Kept(task["url"]) for _ in range(task["kept"])]

    def ask_all(place: int, send: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        for vector in cycle(vectors[place:] + vectors[:place]):
            if ended.is_set():
                return
            document = {"vector": vector, "k": task["k"]}
            tally.search(lambda: send(document))  # noqa: B023  called at once
            time.sleep(task["pause_seconds"])

    senders = [kept.post for kept in connections] or [lambda document: post(task["url"], document)]
    threads = [threading.Thread(target=ask_all, args=(place % len(vectors), send)) for place, send in enumerate(senders)]
    for thread in threads:
        thread.start()
    # A line that says so, not only the end of the input: not every way into a pod passes that on.
    for line in source:
        if line.strip() == STOP:
            break
    ended.set()
    for thread in threads:
        thread.join()
    return tally.told | {"opened": sum(kept.opened for kept in connections)}


def main() -> None:
    """Read the task and print the outcome."""
    task = json.loads(sys.stdin.readline())
    outcome = search(task) if sys.argv[1] == "search" else watch(task, sys.stdin)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
