"""Asks for a websocket by hand: what a page of any origin can send."""

from __future__ import annotations

import socket


def handshake(port, path, origin):
    """Ask for a websocket, and return the status of the answer: 101 where it stands."""
    lines = [
        f"GET {path}?EIO=4&transport=websocket HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *([] if origin is None else [f"Origin: {origin}"]),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        return int(connection.recv(64).split(b" ")[1])
