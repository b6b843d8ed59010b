"""Ends a connection to Postgres when its time is up, whatever the server does or doesn't."""

import contextlib
import os
import socket
import threading

import psycopg


class Deadline:
    """Closes the socket of a connection when its time is up: a frozen server heeds no other time-out."""

    def __init__(self, connection: psycopg.Connection, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        with contextlib.suppress(psycopg.Error):  # of a connection that is lost already; there is nothing to close
            # A duplicate: the connection may close its own descriptor, and the number may be given to somebody else.
            self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._timer = threading.Timer(seconds, self.end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Let the connection be."""
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def end(self) -> None:
        """Close the socket now: whoever waits for an answer gets an error instead."""
        with self._lock:
            if self._socket is not None:
                self.is_over = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
