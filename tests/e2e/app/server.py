"""A small HTTP server that says which pod it is, and is ready unless /tmp/unready exists."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers every path with the name of the pod."""

    def do_GET(self) -> None:
        """Answer; `/readyz` with 503 while the pod shall not be ready."""
        unready = Path("/tmp/unready").exists() and self.path == "/readyz"
        self.send_response(503 if unready else 200)
        self.end_headers()
        self.wfile.write(f"{socket.gethostname()}\n".encode())


print("listening")  # noqa: T201
ThreadingHTTPServer(("", 8080), Handler).serve_forever()
