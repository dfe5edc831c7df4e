"""The fast lane answers as the router does, to the byte; only what is plainly a prediction goes along it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import time
from datetime import timedelta
from functools import partial

import keyring
import msgspec
import numpy as np
import pytest
import uvicorn
from conftest import having as replace
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from litestar import Litestar

from kickserve import app as app_module
from kickserve import server
from kickserve.app import create_app
from kickserve.linear import load_default
from kickserve.model import Answer
from kickserve.openapi import EXAMPLE
from kickserve.plugins import Plugin
from kickserve_access.rates import Rate
from kickserve_lane.connection import LaneConnection
from kickserve_lane.limits import ConnectionLimits, LimitedConnection
from kickserve_lane.settings import LaneSettings

KICK = msgspec.json.encode(EXAMPLE)
KEY = "sesame"
WAYS = ("router", "lane of the application", "lane of the connection")


def request(body=KICK, *, method="POST", target="/api/v1/predict", version="1.1", key=KEY, **headers):
    """Write a request as bytes; a header of None is left out, a list gives it several times."""
    fields = {
        "Host": "test",
        "X-API-Key": key,
        "X-Request-ID": "asked-1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {target} HTTP/{version}"]
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name}: {each}" for each in values if each is not None]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


def kick(**changes):
    return msgspec.json.encode({**EXAMPLE, **changes})


def chunked(body):
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# A request, and whether the lane takes it.
CASES = {
    "a good kick": (request(), True),
    "flags as 0 and 1": (request(kick(**{name: 1 for name in EXAMPLE if name.startswith("is_")})), True),
    "a kick with a warning": (request(kick(distance=75, angle=5)), True),
    "a field missing": (request(b'{"distance": 30}'), True),
    "an unknown field": (request(kick(moon=1)), True),
    "several faults": (request(kick(distance=1, angle=-1, game_away=2, is_start="yes")), True),
    "null": (request(kick(wind_speed=None)), True),
    "no JSON": (request(b"{"), True),
    "an empty body": (request(b""), True),
    "a blank body": (request(b"  \n"), True),
    "NaN": (request(b'{"distance": NaN}'), True),
    "1e999": (request(b'{"distance": 1e999}'), True),
    "no UTF-8": (request(b'{"distance": "\xff"}'), True),
    "a lone surrogate": (request(b'{"distance": "\\ud800"}'), True),
    "an array": (request(b"[]"), True),
    "many brackets": (request(b"[" * 50_000), True),
    "a body beyond the lane's size": (request(b"[" * 61_000), False),
    "a body beyond every size": (request(b" " * 11_000_000), False),
    "chunks instead of a length": (
        request(b"", Content_Length=None, Transfer_Encoding="chunked") + chunked(KICK),
        False,
    ),
    "no key": (request(key=None), False),
    "a wrong key": (request(key="sesam"), False),
    "an empty key": (request(key=""), False),
    "a key beyond ASCII": (request(key="sésame"), False),
    "two keys": (request(key=[KEY, "wrong"]), False),
    "two keys, the right one last": (request(key=["wrong", KEY]), False),
    "the key as a bearer": (request(key=None, Authorization=f"Bearer {KEY}"), True),
    "a wrong bearer": (request(key=None, Authorization="Bearer sesam"), False),
    "the key beside what is a proxy's": (request(Authorization="Basic YTpi"), True),
    "an empty key beside a bearer": (request(key="", Authorization=f"Bearer {KEY}"), False),
    "no request id": (request(X_Request_ID=None), True),
    "a request id that could break a log": (request(X_Request_ID='a"b'), True),
    "another content type": (request(Content_Type="text/plain"), True),
    "a compressed body": (request(gzip.compress(KICK), Content_Encoding="gzip"), False),
    "a body encoded as it is": (request(Content_Encoding="identity"), False),
    "an unknown encoding": (request(Content_Encoding="x, y"), False),
    "a page of another origin": (request(Origin="https://elsewhere.org"), True),
    "upper case headers": (request().replace(b"X-API-Key", b"X-API-KEY"), True),
    "a query": (request(target="/api/v1/predict?a=b"), None),
    "a path with percents": (request(target="/api/v1/%70redict"), None),
    "another path": (request(target="/api/v1/predict/"), False),
    "another method": (request(b"", method="GET"), False),
    "OPTIONS": (request(b"", method="OPTIONS"), False),
    "HTTP/1.0": (request(version="1.0"), None),
    "Connection: close": (request(Connection="close"), None),
    "Expect": (request(Expect="100-continue"), None),
    "an upgrade": (request(Connection="upgrade", Upgrade="chocolate"), None),
}


async def exchange(port, sent, answers=1):
    """Send bytes, and return so many answers, as status line, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return [await read_answer(reader) for _ in range(answers)]
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode().strip().split("\r\n")
    length = next((int(each[15:]) for each in fields if each.lower().startswith("content-length:")), 0)
    return line, fields, await reader.readexactly(length)


def alike(answer):
    """Leave out what differs from one request to the next."""
    line, fields, body = answer
    new = re.compile(rb'("id":|"request_id":|"created_at":)"[0-9a-f-]{17,36}"')
    fields = [
        re.sub(r"^(date|x-request-id): (?!asked-1).*", r"\1", each, flags=re.IGNORECASE) for each in fields
    ]
    # The framework lists methods in no order.
    fields = [
        ",".join(sorted(re.split("[:,] ", each))) if each.startswith("allow:") else each for each in fields
    ]
    return line, fields, new.sub(rb"\1", body)


class Served:
    """An application under uvicorn, in this event loop.

    Attributes:
        app: the application.
        port: where it listens.
        routed: requests that came to the framework.
    """

    def __init__(self, app, config):
        self.app = app
        self.routed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(config)

    def connections(self):
        return list(self._server.server_state.connections)

    async def start(self):
        self._task = asyncio.create_task(self._server._serve([self._listener]))
        while not self._server.started:
            await asyncio.sleep(0.005)

    async def stop(self):
        self._server.should_exit = True
        await self._task


@pytest.fixture
async def serve(settings, tmp_path, monkeypatch):
    """Serve an application in one of the three ways, and count what comes to the framework."""
    running = []
    route = Litestar.__call__

    async def counted(app, scope, receive, send):
        for each in running:
            each.routed += each.app is app and scope["type"] == "http"
        await route(app, scope, receive, send)

    monkeypatch.setattr(Litestar, "__call__", counted)

    async def serve(way, *, model=None, **changes):
        own = replace(
            settings,
            database_url=f"sqlite:///{tmp_path}/{len(running)}.db",
            journal_dir=tmp_path / f"journal-{len(running)}",
            fastlane=way != "router",
            **{"api_key": KEY, **changes},
        )
        app = create_app(own, model=model)
        config = server.configuration(app, own)
        if way == "lane of the application":
            config.http = partial(LimitedConnection, app, ConnectionLimits(LaneSettings()))
        served = Served(app, config)
        running.append(served)
        await served.start()
        return served

    yield serve
    for each in running:
        await each.stop()


@pytest.fixture
async def ways(serve):
    return [await serve(way) for way in WAYS]


async def test_every_case_is_answered_alike_to_the_byte_and_takes_the_way_that_it_should(ways):
    for name, (sent, on_lane) in CASES.items():
        before = [each.routed for each in ways]
        answers = [alike((await exchange(each.port, sent))[0]) for each in ways]
        assert answers[1] == answers[0], name
        assert answers[2] == answers[0], name
        routed = [each.routed - then for each, then in zip(ways, before, strict=True)]
        assert routed[0] == 1, name
        if on_lane is not None:  # else the two lanes differ in what is plain to them
            assert routed[1:] == [not on_lane] * 2, name


async def test_all_ways_count_alike(ways):
    for sent, _ in CASES.values():
        for each in ways:
            await exchange(each.port, sent)
    readings = [each.app.metrics.read() for each in ways]
    counted = [
        (
            {(route.route, route.method): route.statuses for route in each.routes},
            each.predictions,
            each.counts["refused_kicks"],
        )
        for each in readings
    ]
    assert counted[0] == counted[1] == counted[2]
    assert counted[0][0]["/api/v1/predict", "POST"].keys() >= {"200", "400", "401", "413", "422"}
    assert counted[0][1] > 10
    assert counted[0][2] > 10


@pytest.mark.parametrize("cors_origins", [None, ("https://elsewhere.org",)])
async def test_pages_of_other_origins_are_let_in_alike(serve, cors_origins):
    sent = request(Origin="https://elsewhere.org")
    answers = []
    for way in WAYS:
        served = await serve(way, cors_origins=cors_origins)
        answers.append(alike((await exchange(served.port, sent))[0]))
    assert answers[0] == answers[1] == answers[2]
    allowed = any(field.lower().startswith("access-control-allow-origin") for field in answers[0][1])
    assert allowed is (cors_origins is not None)


async def test_keys_and_limits_are_told_alike(serve, tmp_path):
    file = keyring.write(tmp_path / "keys.json")
    sent = [request(key=keyring.KEYS[scope]) for scope in ("predict", "admin", "predict", "read", "predict")]
    told = []
    for way in WAYS:
        served = await serve(
            way, keys=file, rate=Rate(2, 3600), rate_address=Rate(9, 3600), hsts=timedelta(days=1)
        )
        answers = [alike((await exchange(served.port, each))[0]) for each in sent]
        assert [line[9:12] for line, _, _ in answers] == ["200", "200", "200", "403", "429"]
        assert served.routed == (5 if way == "router" else 2)
        told.append([(line, without_seconds(fields), body) for line, fields, body in answers])
    assert told[0] == told[1] == told[2]
    last = told[2][2][1]
    assert 'ratelimit: "key";r=0;t=_, "address";r=6;t=_' in last
    assert {"x-content-type-options: nosniff", "strict-transport-security: max-age=86400"} <= {*last}


def without_seconds(fields):
    """Leave out what hangs on when it was asked."""
    fields = [each for each in fields if not each.startswith("retry-after")]
    return [re.sub(r"t=\d+", "t=_", each) if each.startswith("ratelimit:") else each for each in fields]


async def test_where_no_key_is_asked_for_no_page_of_another_origin_is_answered(serve):
    answers = []
    for way in WAYS:
        served = await serve(way, api_key=None)
        foreign, own, none = [
            (await exchange(served.port, request(Origin=origin)))[0]
            for origin in ("https://elsewhere.org", "http://test", None)
        ]
        assert foreign[0] == "HTTP/1.1 403 Forbidden"
        assert own[0] == none[0] == "HTTP/1.1 200 OK"
        answers.append([alike(each) for each in (foreign, own, none)])
    assert answers[0] == answers[1] == answers[2]


class Failing:
    """A model that fails in one way or the other."""

    def __init__(self, how):
        good = load_default()
        self.card, self.warnings, self.out_of_domain = good.card, good.warnings, good.out_of_domain
        self._how = how

    def predict(self, matrix):
        if self._how == "raises":
            raise RuntimeError("the secret")
        return Answer(np.full(len(matrix), {"beyond 1": 1.5, "NaN": np.nan}[self._how]), None, None)


@pytest.mark.parametrize("how", ["raises", "beyond 1", "NaN"])
async def test_a_model_that_fails_is_told_alike_and_the_attempt_is_kept(serve, how):
    answers = []
    for way in WAYS:
        served = await serve(way, model=Failing(how))
        answers.append(alike((await exchange(served.port, request()))[0]))
        [record] = await records(served)
        assert record.status_code == 500
        assert record.prediction is None
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == "HTTP/1.1 500 Internal Server Error"
    assert b"secret" not in answers[0][2]


async def records(served):
    service = served.app
    await service.recorder.flush()
    return await service.store.page(100)


async def test_a_full_journal_is_told_alike(serve):
    answers = []
    for way in WAYS:
        served = await serve(way, journal_max=1)
        answers.append(alike((await exchange(served.port, request()))[0]))
        assert await records(served) == []
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0].startswith("HTTP/1.1 503 ")
    assert "retry-after: 5" in answers[0][1]


async def test_a_bug_is_told_alike_and_tells_no_secret(serve, monkeypatch, caplog):
    answers = []
    for way in WAYS:
        served = await serve(way)

        def broken(*_):
            raise ZeroDivisionError("the secret")

        monkeypatch.setattr(served.app.predictor, "predict", broken)
        answers.append(alike((await exchange(served.port, request()))[0]))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0].startswith("HTTP/1.1 500 ")
    assert b"secret" not in answers[0][2]
    assert caplog.text.count("request asked-1 failed") == 3


class Watching(Plugin):
    """A plugin that wants to see every request."""

    def __init__(self):
        self.seen = []

    def wrap(self, app):
        async def watched(scope, receive, send):
            self.seen.append((scope["method"], scope["path"]))
            await app(scope, receive, send)

        return watched


async def test_a_plugin_that_wraps_requests_sees_those_of_the_lane_too(serve, monkeypatch):
    plugin = Watching()
    load = app_module.discover
    monkeypatch.setattr(app_module, "discover", lambda settings: [*load(settings), plugin])
    served = await serve("lane of the connection")
    [answer] = await exchange(served.port, request())
    assert answer[0] == "HTTP/1.1 200 OK"
    assert plugin.seen == [("POST", "/api/v1/predict")]
    assert served.routed == 0


async def test_the_documentation_names_the_call_although_the_lane_takes_it(ways):
    sent = request(b"", method="GET", target="/docs/openapi.json")
    [(_, _, document)] = await exchange(ways[2].port, sent)
    assert "post" in msgspec.json.decode(document)["paths"]["/api/v1/predict"]


nearly = st.booleans() | st.integers(-1, 3) | st.floats() | st.text(max_size=4)
anything = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.booleans() | st.integers(-1, 3) | st.floats() | st.text(max_size=4) for name in EXAMPLE
        },
    ).map(lambda changes: json.dumps({**EXAMPLE, **changes}).encode()),
)


async def test_whatever_is_sent_is_answered_alike(ways):
    @hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(anything)
    def found(body):
        bodies.append(body)

    bodies = []
    found()
    for body in bodies:
        first, *others = [alike((await exchange(each.port, request(body)))[0]) for each in ways]
        assert others == [first, first], body


class TestOneConnection:
    """What a client may do with a connection, on the lane of the connection."""

    @pytest.fixture(params=["journal at once", "journal with fsync", "slow model"])
    async def served(self, request, serve):
        model = SlowModel() if request.param == "slow model" else None
        journal = "fsync" if request.param == "journal with fsync" else "write"
        return await serve("lane of the connection", model=model, journal=journal)

    async def test_requests_without_waiting_are_answered_in_their_order(self, served):
        parts = [
            request(X_Request_ID="r0"),
            request(kick(angle=91), X_Request_ID="r1"),
            request(b"", method="GET", target="/api/v1/health/live", X_Request_ID="r2"),
            request(X_Request_ID="r3"),
            request(b"{", X_Request_ID="r4"),
            request(kick(distance=50), X_Request_ID="r5"),
        ]
        answers = await exchange(served.port, b"".join(parts), len(parts))
        assert [line.split()[1] for line, _, _ in answers] == ["200", "422", "200", "200", "400", "200"]
        ids = [field for _, fields, _ in answers for field in fields if field.startswith("x-request-id")]
        assert ids == [f"x-request-id: r{at}" for at in range(6)]

    async def test_a_request_that_comes_byte_by_byte_is_answered(self, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for byte in request():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert (await read_answer(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()

    async def test_hundreds_of_requests_go_over_one_connection_each_with_its_own_answer(self, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        distances = [2 + at * 0.2 for at in range(100)]
        answers = []
        for distance in distances:
            writer.write(request(kick(distance=distance)))
            async with asyncio.timeout(10):
                answers.append(msgspec.json.decode((await read_answer(reader))[2])["prediction"])
        writer.close()
        assert answers == sorted(answers, reverse=True)
        assert len(await stored(served)) == 100

    async def test_many_connections_at_once_each_get_their_own_answer(self, served):
        async def ask(distance):
            [(_, _, body)] = await exchange(served.port, request(kick(distance=distance)))
            return msgspec.json.decode(body)

        distances = [2 + at * 0.5 for at in range(60)]
        answers = await asyncio.gather(*(ask(each) for each in distances))
        kept = {record.id: record for record in await stored(served)}
        assert [kept[each["id"]].distance for each in answers] == distances
        assert [kept[each["id"]].prediction for each in answers] == [each["prediction"] for each in answers]

    async def test_a_client_that_goes_away_hurts_nobody(self, served):
        for sent in (request()[:50], request()[:-20], request()):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(sent)
            await writer.drain()
            writer.transport.abort()
        [answer] = await exchange(served.port, request())
        assert answer[0] == "HTTP/1.1 200 OK"

    async def test_garbage_is_refused_and_the_connection_closed(self, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"moon\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()

    async def test_a_draining_service_closes_each_connection_with_its_answer(self, served):
        served.app.drain()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request())
        line, fields, _ = await read_answer(reader)
        assert line == "HTTP/1.1 200 OK"
        assert "connection: close" in fields
        assert await reader.read() == b""
        writer.close()

    async def test_a_service_that_begins_to_drain_before_the_answer_closes_with_it(self, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request()[:-1])
        await writer.drain()
        await asyncio.sleep(0.05)
        served.app.drain()
        writer.write(request()[-1:])
        _, fields, _ = await read_answer(reader)
        assert "connection: close" in fields
        assert await reader.read() == b""
        writer.close()

    async def test_a_client_that_goes_in_the_middle_of_its_body_is_counted(self, served):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request()[:-1])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not (read := served.app.metrics.read()).routes:
                await asyncio.sleep(0.01)
        assert [(each.route, each.statuses) for each in read.routes] == [("/api/v1/predict", {"500": 1})]

    async def test_an_end_while_an_answer_waits_gives_it_first(self, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request()[:-1])
        await writer.drain()
        await asyncio.sleep(0.05)
        for each in served.connections():
            each.shutdown()
        writer.write(request()[-1:])
        line, fields, _ = await read_answer(reader)
        assert line == "HTTP/1.1 200 OK"
        assert "connection: close" in fields
        assert await reader.read() == b""
        writer.close()

    async def test_a_client_that_does_not_read_is_not_served_beyond_what_fits(self, served):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little fits between the two
        client.connect(("127.0.0.1", served.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1024)
        async with asyncio.timeout(5):
            while not served.connections():
                await asyncio.sleep(0.01)
        [connection] = served.connections()
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 600
        for _ in range(sent):
            writer.write(request())
        async with asyncio.timeout(20):
            while not connection.flow.write_paused:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert connection.transport.get_write_buffer_size() < 100_000
        for _ in range(sent):
            async with asyncio.timeout(30):
                assert (await read_answer(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()
        assert len(await stored(served)) == sent


async def stored(served):
    service = served.app
    await service.recorder.flush()
    return await service.store.page(10_000)


class SlowModel:
    """The default model, but slow enough to be asked in a thread."""

    def __init__(self):
        self._good = load_default()
        self.card, self.warnings, self.out_of_domain = (
            self._good.card,
            self._good.warnings,
            self._good.out_of_domain,
        )

    def predict(self, matrix):
        time.sleep(0.002)
        return self._good.predict(matrix)


def test_the_lane_of_the_connection_is_what_the_server_uses(settings):
    app = create_app(settings)
    assert server.configuration(app, settings).http.func is LaneConnection
    for changes in ({"fastlane": False}, {"debug": True}):
        own = replace(settings, **changes)
        assert server.configuration(create_app(own), own).http.func is LimitedConnection
