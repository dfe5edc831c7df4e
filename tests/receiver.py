"""A small HTTP server that keeps what is posted to it: for webhooks, and as a collector of traces."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import in_thread


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self):
        with suppress(ConnectionError):  # a client that is stopped leaves without a word
            super().handle()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.tries += 1
        status = self.server.answers.pop(0) if self.server.answers else 204
        if status < 300:
            self.server.taken.append((self.path, {**self.headers}, body))
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def receiving():
    """Run a receiver on a free port.

    Yields its server: `url`; `taken`, path, headers and body of each message that it accepted; `tries`, all
    messages; and `answers`, statuses of the next answers, which a test may set: 204 without any.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.taken, server.answers, server.tries = [], [], 0
    with in_thread(server):
        yield server
