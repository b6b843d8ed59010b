"""What `helm test` runs in a pod: `operator HOST:PORT` looks at the operators, `search HOST:PORT INDEX` searches in an index.

Standard library only, so that any image with Python can run it. What it finds is its output, what is wrong its exit code.
"""

import http.client
import json
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

ATTEMPTS = 30
"""About as many seconds: a NetworkPolicy lets a new pod through a moment after it has started, and a Lease may just change hands."""
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class NotYetError(Exception):
    """Something is not as it should be, and may still become so."""


def ask(host: str, port: int, path: str, body: Any = None) -> bytes:
    """Return the answer; raise NotYetError for any status but 200."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    content = None if body is None else json.dumps(body).encode()
    connection.request("GET" if content is None else "POST", path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != http.client.OK:
        raise NotYetError(f"{host}:{port}{path} answered {answer.status}: {text[:300].decode(errors='replace')}")
    return text


def read_samples(text: str, name: str) -> list[dict[str, str]]:
    """Return the labels of each sample of this name whose value is 1."""
    return [dict(LABEL.findall(labels)) for found, labels, value in SAMPLE.findall(text) if found == name and float(value) == 1]


def look_at_operators(host: str, port: int) -> str:
    """Return what the operators tell; raise NotYetError unless all are ready and one of them acts."""
    addresses = sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    metrics = []
    for address in addresses:
        ask(address, port, "/readyz")
        metrics.append(ask(address, port, "/metrics").decode())
    leading = [text for text in metrics if read_samples(text, "vectorindex_operator_leading")]
    if len(leading) != 1:
        raise NotYetError(f"{len(leading)} of {len(addresses)} operators act, expected one")
    conditions = [labels for labels in read_samples(leading[0], "vectorindex_operator_condition") if labels["type"] == "Ready"]
    lines = [f"{one['namespace']}/{one['name']}: Ready is {one['status']}" for one in conditions]
    return "\n".join([f"{len(addresses)} operators are ready, one acts; VectorIndexes: {len(lines)}", *sorted(lines)])


def search(host: str, port: int, index: str) -> str:
    """Return what a search found; raise NotYetError unless the answer is proven."""
    dimension = json.loads(ask(host, port, "/openapi.json"))["components"]["schemas"]["Vector"]["minItems"]
    answer = json.loads(ask(host, port, f"/v1/indexes/{index}/search", {"vector": [1.0] * dimension, "k": 3}))
    if not answer["proven"]:
        raise NotYetError(f"{index} answered without a proof that it equals Postgres")
    found = ", ".join(str(result["id"]) for result in answer["results"]) or "none"
    return f"{index} answered for {dimension} dimensions, proven as of {answer['asOf']}; nearest rows: {found}"


def insist(attempt: Callable[[], str]) -> str:
    """Return what the first good attempt says; raise the error of the last one."""
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except (OSError, http.client.HTTPException, NotYetError):
            time.sleep(1)
    return attempt()


if __name__ == "__main__":
    what, address, *rest = sys.argv[1:]
    name, _, number = address.rpartition(":")
    try:
        said = insist(lambda: {"operator": look_at_operators, "search": search}[what](name, int(number), *rest))
    except (OSError, http.client.HTTPException, NotYetError) as error:
        sys.exit(f"{what} {address}: {error}")
    sys.stdout.write(f"{said}\n")
