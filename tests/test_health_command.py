"""`kickserve health`: what a container engine asks again and again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from serving import BARE, serving

from kickserve.cli import run
from kickserve.settings import Settings


@pytest.fixture
def answering():
    """A server that gives one answer to all; returns its URL."""
    servers = []

    def start(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_running_service_is_ready_and_one_that_was_stopped_is_not(tmp_path, capsys, monkeypatch):
    with serving(tmp_path, **BARE) as server:
        base = server.url.removesuffix("/api/v1")
        assert run(["health", "--url", base]) == 0
        assert "ready" in capsys.readouterr().out
        monkeypatch.setenv("KICKSERVE_PORT", base.rpartition(":")[2])
        monkeypatch.setenv("KICKSERVE_HOST", "0.0.0.0")
        assert run(["health"]) == 0, "it finds the service that the settings describe"
        assert server.end(signal.SIGTERM) == 0
    assert run(["health", "--url", base]) == 1
    assert f"no service answers at {base}" in capsys.readouterr().err


def test_a_service_that_is_not_ready_is_shown_with_the_part_that_is_not(answering, capsys):
    body = b'{"status": "not ready", "version": "1", "parts": {"service": "stopping", "journal": "ok"}}'
    assert run(["health", "--url", answering(503, body)]) == 1
    assert "stopping" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_another_service_is_none_of_ours(answering, body, capsys):
    assert run(["health", "--url", answering(200, body)]) == 1
    assert "no kickserve" in capsys.readouterr().err


def test_a_service_that_takes_the_connection_and_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert run(["health", "--timeout", "0.2", "--url", url]) == 1


@pytest.mark.parametrize(
    "url", ["ftp://example.org", "http://[", "http://127.0.0.1:ten", "http://127.0.0.1:99999999"]
)
def test_a_url_that_it_cannot_ask_is_refused(url):
    assert run(["health", "--url", url]) == 2


def test_it_is_cheap_to_ask_because_neither_server_nor_model_is_imported():
    code = (
        "import sys; from kickserve.cli import run; run(['health', '--url', 'http://127.0.0.1:9']);"
        "print(*sorted({'litestar', 'numpy', 'httpx', 'uvicorn', 'msgspec'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "msgspec"  # for JSON, quick


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:7860"),
        ("", "http://127.0.0.1:7860"),
        ("::", "http://[::1]:7860"),
        ("kicks.example", "http://kicks.example:7860"),
    ],
)
def test_where_a_service_listens_to_all_it_is_asked_on_this_machine(host, url):
    assert Settings(host=host).own_url == url
