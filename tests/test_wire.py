"""Odd requests byte by byte, on a real server with the lane and without; rude clients; the API's document."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from serving import BARE, serving

from kickserve.openapi import EXAMPLE, NDJSON
from kickserve_lane.limits import HEAD_MAX
from ops.fuzz.shapes import AMBIGUOUS, OVERSIZED

ROOT = Path(__file__).parents[1]
KICK = msgspec.json.encode(EXAMPLE)
KEY = "sesame"


def request(*fields, body=KICK, target="/api/v1/predict", method="POST"):
    head = [f"{method} {target} HTTP/1.1", "Host: test", f"X-API-Key: {KEY}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *fields, "", ""]).encode("latin-1") + body


def chunked(*fields, chunks):
    head = request("Transfer-Encoding: chunked", *fields, body=b"").replace(b"Content-Length: 0\r\n", b"")
    return head + chunks


def with_key(sent):
    """Return a request with the key: what arrives in parts may else be refused for its head alone."""
    return sent.replace(b"\r\n", f"\r\nX-API-Key: {KEY}\r\n".encode(), 1)


def upgrade(protocol, sent):
    """Return a request that asks for another protocol, as Java's HttpClient and `curl --http2` do."""
    fields = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAEAAEAA\r\n"
    return sent.replace(b"\r\n", f"\r\n{fields}".encode(), 1)


LINES = (f"Content-Type: {NDJSON}", f"Accept: {NDJSON}")
BATCH = "/api/v1/predict/batch"
BROKEN = b"moon\r\n\r\n"
BAD_TARGET = request(target="http://[::1/api/v1/predict")
BAD_CHUNK = chunked(chunks=b"xx\r\n")

# Bytes on one connection, and the statuses of the answers: each of these went wrong once.
FOUND = {
    "garbage behind a request that is still answered": (request() + BROKEN, [200, 400]),
    "garbage behind several": (request() * 3 + BROKEN, [200, 200, 200, 400]),
    "a target that is none, behind a request": (request() + BAD_TARGET, [200, 400]),
    "a chunk that is none, behind requests": (request() * 2 + BAD_CHUNK, [200, 200, 400]),
    "requests behind garbage": (request() + BROKEN + request(), [200, 400]),
    "a host with a colon too many": (request("Connection: close").replace(b"Host:", b"Host::"), [400]),
    "no host": (request().replace(b"Host: test\r\n", b""), [400]),
    "two hosts": (request("Host: elsewhere"), [400]),
    "a compressed body": (request("Content-Encoding: gzip", body=b"\x1f\x8b"), [415]),
    "two encodings, the harmless one first": (
        request("Content-Encoding: identity", "Content-Encoding: gzip"),
        [415],
    ),
    "a compressed batch": (request("Content-Encoding: br", target=BATCH), [415]),
    "compressed lines": (request("Content-Encoding: gzip", *LINES, target=BATCH), [415]),
    "a compressed body without the key": (request("Content-Encoding: gzip").replace(b"sesame", b"x"), [401]),
    "OPTIONS of a call": (request(method="OPTIONS", body=b""), [204]),
    **{
        f"{name} that asks for {protocol}": (upgrade(protocol, sent) + request(), [200, 200])
        for protocol in ("h2c", "websocket", "chocolate")
        for name, sent in {
            "a kick": request(),
            "a kick in chunks": chunked(chunks=b"%x\r\n%b\r\n0\r\n\r\n" % (len(KICK), KICK)),
        }.items()
    },
    "a body like a request, behind an upgrade": (
        upgrade("h2c", request(body=request(body=b""))) + BROKEN,
        [400, 400],
    ),
    "an upgrade on an answer that closes": (upgrade("h2c, close", request()), [200]),
    "a websocket of HTTP/1.0": (
        upgrade("websocket", request(method="GET", target="/api/v1/model", body=b"")).replace(b"1.1", b"1.0"),
        [200],
    ),
    "CONNECT": (request(method="CONNECT", target="elsewhere:443"), [400]),
    "white space behind values": (
        request().replace(b"test", b"\t test ").replace(b"sesame", b"sesame \t"),
        [200],
    ),
    "a head at its limit": (request("X: " + "a" * (HEAD_MAX - 300)), [200]),
    "a head beyond its limit": (request("X: " + "a" * (HEAD_MAX + 300)), [431]),
    **{name: (with_key(sent), [400]) for name, sent in AMBIGUOUS.items()},
    **{name: (sent, [431]) for name, sent in OVERSIZED.items()},
}


@pytest.fixture(scope="module", params=["1", "0"], ids=["lane", "router"])
def server(request, tmp_path_factory):
    settings = {"API_KEY": KEY, "KICKSERVE_FASTLANE": request.param, "KICKSERVE_CLIENT_TIMEOUT": "2"}
    with serving(tmp_path_factory.mktemp("wire"), **BARE, **settings) as server:
        yield urlsplit(server.url)


def statuses(server, expected, *pieces):
    """Send pieces on a connection, and return the statuses of the answers, in order.

    The refusal of a malformed request is the last answer, and the connection ends with it.
    """
    received = b""
    ends = expected[-1] in {400, 431}
    with socket.create_connection((server.hostname, server.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # refused before all was sent
            for piece in pieces:
                connection.sendall(piece)
        with suppress(ConnectionError):
            while ends or len(_STATUS.findall(received)) < len(expected):
                part = connection.recv(65_536)
                if not part:
                    break
                received += part
    return [int(status) for status in _STATUS.findall(received)]


_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")


@pytest.mark.parametrize("name", FOUND)
def test_an_odd_request_has_the_answer_that_it_should_and_no_second_one(server, name):
    sent, expected = FOUND[name]
    assert statuses(server, expected, sent) == expected
    size = 7 if len(sent) < 2_000 else 10_000
    assert statuses(server, expected, *(sent[at : at + size] for at in range(0, len(sent), size))) == expected


def test_a_body_that_breaks_within_its_answer_breaks_that_off(server):
    line = b"%x\r\n%b\n\r\n" % (len(KICK) + 1, KICK)
    sent = chunked(*LINES, chunks=line).replace(b"/predict ", b"/predict/batch ")
    with socket.create_connection((server.hostname, server.port), timeout=60) as connection:
        connection.sendall(sent)
        received = connection.recv(65_536)
        connection.sendall(b"xx\r\n")
        while part := connection.recv(65_536):
            received += part
    assert _STATUS.findall(received) == [b"200"]


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)])
def test_a_client_of_http_1_0_gets_no_chunks_and_keeps_its_connection_only_where_it_asks(server, fields):
    kick = request(*fields).replace(b"HTTP/1.1", b"HTTP/1.0")
    stream = request(f"Accept: {NDJSON}", method="GET", target="/api/v1/predictions", body=b"")
    received = b""
    with socket.create_connection((server.hostname, server.port), timeout=60) as connection:
        connection.sendall(kick + stream.replace(b"HTTP/1.1", b"HTTP/1.0"))
        while part := connection.recv(65_536):
            received += part
    heads = re.findall(rb"HTTP/1\.1 200 .*?\r\n\r\n", received, re.DOTALL)
    assert [b"connection: keep-alive" in head for head in heads] == ([True, False] if fields else [False])
    assert b"chunked" not in received
    assert not fields or received.endswith(b"}\n")


async def test_options_names_all_methods_of_a_path(client):
    response = await client.options("/predictions/01900000-0000-7000-8000-000000000000")
    assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


def run(script, folder, *arguments):
    finished = subprocess.run(
        [sys.executable, "-m", "ops.fuzz", script, *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.slow
def test_the_service_keeps_to_its_openapi_document(tmp_path):
    found = run("contract", tmp_path, "--cases", "300", "--examples", "2", "--seed", "13")
    assert found["passed"], found["text"] or found
    assert found["operations"] >= 19
    assert found["cases"] >= 300


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["slow body, router", "idle", "crowded", "half", "resets", "pipelined"])
def test_rude_clients_get_no_further_and_others_are_served(tmp_path, attack):
    arguments = ["--timeout", "1", "--slow", "20", "--idle", "200"]
    rows = run("hardness", tmp_path, "--only", attack, *arguments)
    assert rows
    assert all(row["passed"] for row in rows), rows
