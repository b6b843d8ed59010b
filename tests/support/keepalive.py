"""A client that keeps its connection, as clients in applications do, until it is told that the connection closes."""

from contextlib import closing
from http.client import HTTPConnection


def ask_until_closed(port: int, path: str, body: bytes, outcomes: list[int | str]) -> None:
    """Send requests over one connection and add the status of each answer, or the error that ended it, to `outcomes`."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        while True:
            try:
                connection.request("POST", path, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except OSError as error:
                outcomes.append(repr(error))
                return
            outcomes.append(answer.status)
            if answer.headers.get("connection") == "close":
                return
