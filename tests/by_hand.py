"""The other side of the network: a page of any origin asks for a websocket, a foreign site answers."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import in_thread


def handshake(port, path, origin, host="127.0.0.1"):
    """Ask for a websocket, and return the status of the answer: 101 where it is open."""
    lines = [
        f"GET {path}?EIO=4&transport=websocket HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *([] if origin is None else [f"Origin: {origin}"]),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        return int(connection.recv(64).split(b" ")[1])


@contextmanager
def site(status, page=b""):
    """Run a server that answers every request alike, and yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        do_POST = do_GET  # noqa: N815  as the base class names it

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with in_thread(server):
        yield server.server_port
