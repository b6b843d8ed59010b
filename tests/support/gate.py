"""A TCP gate before a server: lets connections through, refuses and cuts all, or lets those there are go silent without a word."""

import contextlib
import socket
import threading
from collections.abc import Iterator

_CHUNK = 65536


class Gate:
    """Listens on a port of loopback and passes everything on to the target, both ways, as long as it is open."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._is_open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        """Let new connections through."""
        with self._lock:
            self._is_open = True

    def redirect(self, host: str, port: int) -> None:
        """Connect to another server from now on, and cut every connection to the former: what a Service does when its pods change."""
        with self._lock:
            self._target = (host, port)
            for connection in self._sockets:
                _cut(connection)

    def shut(self) -> None:
        """Cut every connection, and each new one at once."""
        with self._lock:
            self._is_open = False
            for connection in self._sockets:
                _cut(connection)

    def silence(self) -> int:
        """Pass nothing more on for the connections there are, and keep them open, as a lost NAT entry does; return how many they are."""
        with self._lock:
            self._silent |= self._sockets
            return len(self._silent) // 2

    def stop(self) -> None:
        """End the gate with all its connections."""
        _cut(self._listener)
        self._listener.close()
        self.shut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        with self._lock:
            if not self._is_open:
                near.close()
                return
            far = socket.create_connection(self._target)
            self._sockets |= {near, far}
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if source not in self._silent:
                    sink.sendall(data)
        with self._lock:
            _cut(sink)
            self._sockets.discard(source)
            if sink not in self._sockets:
                source.close()
                sink.close()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gate(host: str, port: int) -> Iterator[Gate]:
    """Provide an open gate before this server until the context ends."""
    made = Gate(host, port)
    try:
        yield made
    finally:
        made.stop()
