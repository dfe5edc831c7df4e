"""The fuzzers and attacks of ops/fuzz, shortened; and what they have found, so that it is not found again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kickserve.kinds import names
from kickserve.linear import LinearModel
from kickserve.openapi import EXAMPLE
from kickserve_lane.limits import HEAD_MAX
from ops.fuzz.shapes import AMBIGUOUS, OVERSIZED
from ops.fuzz.ways import Wire, alike, running
from ops.fuzz.words import KEY, ORIGIN

ROOT = Path(__file__).parents[1]

KICK = msgspec.json.encode(EXAMPLE)


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


def test_what_is_nearly_right_is_answered_alike_by_lane_and_router(tmp_path):
    found = run("lane", tmp_path, "--inputs", "2000", "--seed", "11")
    assert found["passed"], found["findings"][:3]
    assert found["inputs"] == 2000
    assert found["kept"] > 500
    assert found["statuses"].keys() >= {"100", "200", "400", "401", "404", "405", "413", "415", "422"}


def test_over_sockets_too(tmp_path):
    found = run("lane", tmp_path, "--inputs", "50", "--seed", "12", "--sockets")
    assert found["passed"], found["findings"][:3]


def test_the_service_keeps_to_its_openapi_document(tmp_path):
    found = run("contract", tmp_path, "--cases", "300", "--examples", "2", "--seed", "13")
    assert found["passed"], found["text"] or found
    assert found["operations"] >= 19
    assert found["cases"] >= 300


@pytest.mark.parametrize("attack", ["slow body, router", "idle", "crowded", "half", "resets", "pipelined"])
def test_rude_clients_get_no_further_and_others_are_served(tmp_path, attack):
    arguments = ["--timeout", "1", "--slow", "20", "--idle", "200"]
    rows = run("hardness", tmp_path, "--only", attack, *arguments)
    assert rows
    assert all(row["passed"] for row in rows), rows


def request(*fields, body=KICK, target="/api/v1/predict", method="POST"):
    head = [f"{method} {target} HTTP/1.1", "Host: test", f"X-API-Key: {KEY}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *fields, "", ""]).encode("latin-1") + body


@pytest.fixture(scope="module")
def wait():
    """Run what is to be waited for, in the event loop of the services."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def ways(wait, tmp_path_factory):
    """Run the services in a task of their own: they must end in the task in which they began."""
    folder, ended = tmp_path_factory.mktemp("ways"), asyncio.Event()

    async def run(started):
        async with running(folder, api_key=KEY, cors_origins=names(ORIGIN)) as ways:
            started.set_result(ways)
            await ended.wait()

    async def begin():
        started = asyncio.get_running_loop().create_future()
        return asyncio.create_task(run(started)), await started

    async def end():
        ended.set()
        await task

    task, ways = wait(begin())
    yield ways
    wait(end())


@pytest.fixture
def ask(wait, ways):
    """Send segments down all three ways, and return the statuses: the same for all of them."""

    def ask(*segments):
        answers = [alike(wait(way.answers([segments]))[0]) for way in ways]
        assert answers[0] == answers[1] == answers[2]
        return [int(each[:3]) for each in answers[0].split(b"HTTP/1.1 ")[1:]]

    return ask


BROKEN = b"moon\r\n\r\n"
BAD_TARGET = request(target="http://[::1/api/v1/predict")
BAD_CHUNK = request("Transfer-Encoding: chunked", body=b"").replace(b"Content-Length: 0\r\n", b"") + b"xx\r\n"

# What was sent in one segment, and what it is answered: each of these went wrong once.
FOUND = {
    "garbage behind a request that is still answered": (request() + BROKEN, [200, 400]),
    "garbage behind several": (request() * 3 + BROKEN, [200, 200, 200, 400]),
    "a target that is none, behind a request": (request() + BAD_TARGET, [200, 400]),
    "a chunk that is none, behind requests": (request() * 2 + BAD_CHUNK, [200, 200, 400]),
    "requests behind garbage": (request() + BROKEN + request(), [200, 400]),
    "a host with a colon too many": (request().replace(b"Host:", b"Host::"), [400]),
    "no host": (request().replace(b"Host: test\r\n", b""), [400]),
    "two hosts": (request("Host: elsewhere"), [400]),
    "a compressed body": (request("Content-Encoding: gzip", body=b"\x1f\x8b"), [415]),
    "two encodings, the harmless one first": (
        request("Content-Encoding: identity", "Content-Encoding: gzip"),
        [415],
    ),
    "a compressed batch": (request("Content-Encoding: br", target="/api/v1/predict/batch"), [415]),
    "compressed lines": (
        request(
            "Content-Encoding: gzip",
            "Content-Type: application/x-ndjson",
            "Accept: application/x-ndjson",
            target="/api/v1/predict/batch",
        ),
        [415],
    ),
    "a compressed body without the key": (request("Content-Encoding: gzip").replace(b"sesame", b"x"), [401]),
    "OPTIONS of a call": (request(method="OPTIONS", body=b""), [204]),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_answered_as_it_should(ask, name):
    sent, statuses = FOUND[name]
    assert ask(sent) == statuses
    assert ask(*(sent[at : at + 7] for at in range(0, len(sent), 7))) == statuses


def test_how_deep_is_too_deep_does_not_hang_on_the_way(wait, ways):
    """The router stands deeper in Python's stack than the lane, and a parser goes as deep as that lets it."""
    sent = [[request("X-Request-ID: r", body=b'{"\\ud800": ' + b"[" * depth)] for depth in range(800, 1000)]
    first, *others = [list(map(alike, wait(way.answers(sent)))) for way in ways]
    assert others == [first, first]


LINES = ("Content-Type: application/x-ndjson", "Accept: application/x-ndjson", "Transfer-Encoding: chunked")


def test_a_body_that_breaks_after_its_answer_brings_no_second_one(ask):
    head, _, rest = BAD_CHUNK.replace(b"sesame", b"wrong").partition(b"\r\n\r\n")
    assert ask(head + b"\r\n\r\n", *[b""] * 30, rest) == [401]


def test_a_body_that_breaks_within_its_answer_breaks_that_off(ask):
    sent = request(*LINES, body=b"", target="/api/v1/predict/batch").replace(b"Content-Length: 0\r\n", b"")
    chunk = b"%x\r\n%b\n\r\n" % (len(KICK) + 1, KICK)
    assert ask(sent, chunk, *[b""] * 30, b"xx\r\n") == [200]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_request_has_one_answer_and_what_hides_in_it_none(ask, name):
    assert ask(AMBIGUOUS[name]) == [400]


@pytest.mark.parametrize("name", OVERSIZED)
def test_a_head_beyond_measure_is_refused_however_it_comes(ask, name):
    sent = OVERSIZED[name]
    pieces = [sent[at : at + 10_000] for at in range(0, len(sent), 10_000)]
    assert ask(sent) == ask(*pieces) == [431]


def test_a_head_is_measured_alike_however_it_comes(ask):
    for length, status in [(HEAD_MAX - 300, 200), (HEAD_MAX + 300, 431)]:
        sent = request("X: " + "a" * length)
        assert ask(sent) == ask(sent[:100], sent[100:]) == [status]


def test_an_answer_that_cannot_be_written_is_a_problem_on_every_way(wait, ways, monkeypatch):
    # A lone surrogate is text, and no UTF-8.
    monkeypatch.setattr(LinearModel, "warnings", lambda *_: ("\ud800",))
    for way in ways:
        [answer] = wait(way.answers([[request("X-Request-ID: asked-1")]]))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"application/problem+json" in answer
        assert answer.endswith(b'"request_id":"asked-1"}')


def test_a_request_is_counted_when_its_answer_has_been_written(wait, ways, monkeypatch):
    seen = []
    write = Wire.write

    def noting(wire, data):
        seen.append(wire._way.counted()["200"])
        write(wire, data)

    monkeypatch.setattr(Wire, "write", noting)
    for way in ways:
        seen.clear()
        before = way.counted()["200"]
        wait(way.answers([[request()]]))
        assert set(seen) == {before}
        assert way.counted()["200"] == before + 1


async def test_options_names_all_methods_of_a_path(client):
    response = await client.options("/predictions/01900000-0000-7000-8000-000000000000")
    assert response.headers["allow"] == "DELETE, GET, OPTIONS"


@pytest.mark.parametrize(
    "query", ["since=0.5", "until=1700000000", "before=", "before=0", "since=2026-11-25"]
)
async def test_a_query_that_only_looks_like_one_is_refused(client, query):
    response = await client.get(f"/predictions?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == query.partition("=")[0]
