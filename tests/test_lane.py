"""The lane answers as the router does, to the byte; one connection, whatever a client does with it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
import time
from itertools import chain, count

import msgspec
import pytest
import pytest_asyncio
import uvicorn
from bent import bent
from conftest import KEYS, write_keys
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from litestar import Litestar
from serving import PATIENCE, eventually

from kickserve import server
from kickserve.app import create_app
from kickserve.linear import load_default
from kickserve.openapi import EXAMPLE
from kickserve.plugins import Plugin, discover
from kickserve.settings import Settings
from kickserve_lane.connection import LaneConnection
from kickserve_lane.limits import LimitedConnection

pytestmark = pytest.mark.asyncio(loop_scope="module")

KICK = msgspec.json.encode(EXAMPLE)
KEY = "sesame"
ROUTER, APP_LANE, CONNECTION_LANE = WAYS = ("router", "lane of the application", "lane of the connection")


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


# A request, and whether the lane takes it; None where the two lanes differ.
CASES = {
    "a good kick": (request(), True),
    "flags as 0 and 1": (request(kick(**{name: 1 for name in EXAMPLE if name.startswith("is_")})), True),
    "a kick with a warning": (request(kick(distance=75, angle=5)), True),
    "a field missing": (request(b'{"distance": 30}'), True),
    "several faults": (request(kick(distance=1, angle=-1, game_away=2, is_start="yes")), True),
    "an empty body": (request(b""), True),
    "many brackets": (request(b"[" * 50_000), True),
    "a body beyond the lane's size": (request(b"[" * 61_000), False),
    "a body beyond every size": (request(b" " * 11_000_000), False),
    "chunks instead of a length": (
        request(b"", Content_Length=None, Transfer_Encoding="chunked") + chunked(KICK),
        False,
    ),
    "no key": (request(key=None), False),
    "a wrong key": (request(key="sesam"), False),
    "a key beyond ASCII": (request(key="sésame"), False),
    "two keys": (request(key=[KEY, "wrong"]), False),
    "the key as a bearer": (request(key=None, Authorization=f"Bearer {KEY}"), True),
    "the key beside a proxy's own": (request(Authorization="Basic YTpi"), True),
    "an empty key beside a bearer": (request(key="", Authorization=f"Bearer {KEY}"), False),
    "no request id": (request(X_Request_ID=None), True),
    "a request id that could break a log": (request(X_Request_ID='a"b'), True),
    "another content type": (request(Content_Type="text/plain"), True),
    "a compressed body": (request(gzip.compress(KICK), Content_Encoding="gzip"), False),
    "a body encoded as it is": (request(Content_Encoding="identity"), False),
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


class Watching(Plugin):
    """A plugin that wants to see every request: predictions then take the lane of the application."""

    def __init__(self, settings):
        super().__init__(settings)
        self.seen = []

    def wrap(self, app):
        async def watched(scope, receive, send):
            self.seen.append((scope.get("method"), scope.get("path")))
            await app(scope, receive, send)

        return watched


class Served:
    """An application under uvicorn, in this event loop.

    Attributes:
        app: the application.
        port: where it listens.
        routed: number of requests that came to the framework.
        watching: the plugin that sees all requests, on the lane of the application.
    """

    def __init__(self, way, folder, model, **variables):
        settings = Settings.load(
            {
                "DATABASE_URL": f"sqlite:///{folder}/kicks.db",
                "KICKSERVE_JOURNAL_DIR": f"{folder}/journal",
                "KICKSERVE_FASTLANE": str(int(way != ROUTER)),
                "API_KEY": KEY,
                **variables,
            }
        )
        self.watching = Watching(settings)
        plugins = [*discover(settings), *([self.watching] if way == APP_LANE else [])]
        self.app = create_app(settings, model=model, plugins=plugins)
        self.routed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(server.configuration(self.app, settings))
        self._task = asyncio.create_task(self._server._serve([self._listener]))

    async def started(self):
        await eventually(lambda: self._server.started or self._task.done())

    async def stop(self):
        self._server.should_exit = True
        await self._task

    def connections(self):
        return list(self._server.server_state.connections)

    async def in_body(self):
        """Wait until a connection has read the head of a request."""
        await eventually(lambda: any(each.cycle is not None for each in self.connections()))

    async def records(self):
        await self.app.recorder.flush()
        return await self.app.store.page(10_000)


@contextlib.asynccontextmanager
async def serving_apps(folder):
    """Give a function that serves an application in one of the three ways until the block ends."""
    running, numbers, route = [], count(), Litestar.__call__

    async def counted(app, scope, receive, send):
        for each in running:
            each.routed += each.app is app and scope["type"] == "http"
        await route(app, scope, receive, send)

    async def serve(way, *, model=None, **variables):
        own = folder / str(next(numbers))
        own.mkdir()
        running.append(Served(way, own, model, **variables))
        await running[-1].started()
        return running[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Litestar, "__call__", counted)
        yield serve
        for each in running:
            await each.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def serve(tmp_path):
    async with serving_apps(tmp_path) as serve:
        yield serve


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(tmp_path_factory):
    """The three ways, for tests that leave them as they are."""
    async with serving_apps(tmp_path_factory.mktemp("ways")) as serve:
        yield [await serve(way) for way in WAYS]


async def exchange(port, sent, answers=1):
    """Send bytes, and return so many answers, as status line, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return [await read_answer(reader) for _ in range(answers)]
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_answer(reader):
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100 "):
            head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode().strip().split("\r\n")
        length = next((int(each[15:]) for each in fields if each.lower().startswith("content-length:")), 0)
        return line, fields, await reader.readexactly(length)


_NEW = re.compile(rb'("id":|"request_id":|"created_at":)"[0-9a-f-]{17,36}"')
_OWN = re.compile(r"^(date|x-request-id): (?!asked-1).*", re.IGNORECASE)


def comparable(answer):
    """Leave out the parts of an answer that differ from one request to the next."""
    line, fields, body = answer
    fields = [re.sub(r"(;t=|^retry-after: \d)\d+", r"\1", _OWN.sub(r"\1", each)) for each in fields]
    # The framework lists methods in no order.
    fields = [
        ",".join(sorted(re.split("[:,] ", each))) if each.startswith("allow:") else each for each in fields
    ]
    return line, fields, _NEW.sub(rb"\1", body)


async def answer_of_all(ways, *requests):
    """Return the answers to some requests, after the ways have proved to give the same."""
    first, *others = [
        [comparable((await exchange(each.port, sent))[0]) for sent in requests] for each in ways
    ]
    assert others == [first] * len(others)
    return first


async def test_every_case_is_answered_alike_counted_alike_and_takes_its_way(ways):
    for name, (sent, on_lane) in CASES.items():
        before = [each.routed for each in ways]
        first, *others = [comparable((await exchange(each.port, sent))[0]) for each in ways]
        assert others == [first, first], name
        routed = [each.routed - then for each, then in zip(ways, before, strict=True)]
        assert routed[0] == 1, name
        if on_lane is not None:
            assert routed[1:] == [not on_lane] * 2, name
    readings = [each.app.metrics.read() for each in ways]
    first, *others = [
        (
            {(route.route, route.method): route.statuses for route in each.routes},
            each.predictions,
            each.counts["refused_kicks"],
        )
        for each in readings
    ]
    assert others == [first, first]
    assert first[0]["/api/v1/predict", "POST"].keys() >= {"200", "400", "401", "413", "422"}
    assert first[1] > 5
    assert first[2] > 3


async def test_any_bytes_are_answered_alike(ways):
    bodies = []

    @hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bent(KICK))
    def collect(body):
        bodies.append(body)

    collect()
    for body in bodies:
        await answer_of_all(ways, request(body))


async def test_any_head_is_answered_alike_at_first_sight_and_again(ways):
    heads = []

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bent(request(b"").replace(b"Length: 0\r\n\r\n", b"Length: %d" % len(KICK))))
    def collect(head):
        if len(head) < 1_000 and not re.search(rb"[0-9]{4}", head):  # no body may be longer than what follows
            heads.append(head + b"\r\n\r\n" + KICK)

    collect()
    end = request(Connection="close") + b" " * 2_000
    for head in heads:
        for sent in (head + end, head + end):
            first, *others = [normal(await everything(each.port, sent)) for each in ways]
            assert others == [first, first], head


async def everything(port, sent):
    """Send bytes that end their connection, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


def normal(answers):
    """Leave out what differs from one request to the next."""
    return _NEW.sub(rb"\1", re.sub(rb"\r\n(date|x-request-id): [^\r]*", rb"\r\n\1:", answers))


async def test_a_plugin_that_wraps_requests_sees_predictions_too(ways):
    watched = ways[1]
    del watched.watching.seen[:]
    before = watched.routed
    await exchange(watched.port, request())
    assert watched.watching.seen == [("POST", "/api/v1/predict")]
    assert watched.routed == before


async def test_the_connection_has_the_lane_unless_a_plugin_wraps_requests(ways):
    used = [server.configuration(each.app, each.app.settings).http.func for each in ways]
    assert used == [LimitedConnection, LimitedConnection, LaneConnection]


@pytest.mark.parametrize("origins", ["", "https://elsewhere.org"])
async def test_pages_of_other_origins_are_answered_alike(serve, origins):
    ways = [await serve(way, KICKSERVE_CORS_ORIGINS=origins) for way in WAYS]
    [(_, fields, _)] = await answer_of_all(ways, request(Origin="https://elsewhere.org"))
    assert any(each.lower().startswith("access-control-allow-origin") for each in fields) is bool(origins)


async def test_without_keys_a_page_of_another_origin_is_refused_alike(serve):
    ways = [await serve(way, API_KEY="", KICKSERVE_ALLOWED_HOSTS="test") for way in WAYS]
    requests = [request(Origin=origin) for origin in ("https://elsewhere.org", "http://test", None)]
    answers = await answer_of_all(ways, *requests)
    assert [line[9:12] for line, _, _ in answers] == ["403", "200", "200"]


async def test_keys_and_limits_are_answered_alike(serve, tmp_path):
    variables = {
        "KICKSERVE_KEYS": write_keys(tmp_path / "keys.json"),
        "KICKSERVE_RATE": "2/h",
        "KICKSERVE_RATE_ADDRESS": "9/h",
        "KICKSERVE_HSTS": "1d",
    }
    ways = [await serve(way, **variables) for way in WAYS]
    requests = [request(key=KEYS[scope]) for scope in ("predict", "admin", "predict", "read", "predict")]
    answers = await answer_of_all(ways, *requests)
    assert [line[9:12] for line, _, _ in answers] == ["200", "200", "200", "403", "429"]
    assert [each.routed for each in ways] == [5, 2, 2]
    fields = answers[2][1]
    assert 'ratelimit: "key";r=0;t=, "address";r=6;t=' in fields
    assert {"x-content-type-options: nosniff", "strict-transport-security: max-age=86400"} <= {*fields}


async def test_a_bug_is_answered_alike_without_a_secret_and_logged_with_the_request_id(
    serve, monkeypatch, caplog
):
    def broken(*_):
        raise ZeroDivisionError("the secret")

    ways = [await serve(way) for way in WAYS]
    for each in ways:
        monkeypatch.setattr(each.app.predictor.current.batchers["api"], "put", broken)
    [(line, _, body)] = await answer_of_all(ways, request())
    assert line.startswith("HTTP/1.1 500 ")
    assert b"secret" not in body
    assert caplog.text.count("request asked-1 failed") == 3


class SlowModel:
    """The default model, but slow enough to be asked in a thread."""

    def __init__(self):
        self._good = load_default()
        self.card, self.warnings = self._good.card, self._good.warnings
        self.out_of_domain = self._good.out_of_domain

    def predict(self, matrix):
        time.sleep(0.002)  # its work
        return self._good.predict(matrix)


class TestOneConnection:
    """A client's doings with a connection, on the lane of the connection."""

    @pytest_asyncio.fixture(loop_scope="module", params=["journal", "journal with fsync", "slow model"])
    async def served(self, request, serve):
        journal = "fsync" if request.param == "journal with fsync" else "write"
        model = SlowModel() if request.param == "slow model" else None
        return await serve(CONNECTION_LANE, model=model, KICKSERVE_JOURNAL=journal)

    @pytest_asyncio.fixture(loop_scope="module")
    async def begun(self, served):
        """A connection whose request lacks its last byte."""
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request()[:-1])
        await served.in_body()
        yield reader, writer
        writer.close()

    async def test_requests_sent_without_waiting_are_answered_in_their_order(self, served):
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

    async def test_many_requests_over_one_and_many_connections_each_have_their_own_answer(self, served):
        async def ask(distances):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            answers = []
            for distance in distances:
                writer.write(request(kick(distance=distance)))
                answers.append(msgspec.json.decode((await read_answer(reader))[2]))
            writer.close()
            return answers

        distances = [[2 + at + row * 0.01 for at in range(60)] for row in range(10)]
        answers = [each for row in await asyncio.gather(*map(ask, distances)) for each in row]
        kept = {record.id: record for record in await served.records()}
        assert len(kept) == 600
        assert [kept[each["id"]].distance for each in answers] == [*chain(*distances)]
        assert [kept[each["id"]].prediction for each in answers] == [each["prediction"] for each in answers]

    async def test_a_service_that_stops_closes_each_connection_with_its_answer(self, served, begun):
        served.app.drain()
        reader, writer = begun
        writer.write(request()[-1:])
        await assert_last(reader)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request())
        await assert_last(reader)
        writer.close()

    async def test_a_connection_that_is_shut_down_gives_its_answer_first(self, served, begun):
        for each in served.connections():
            each.shutdown()
        reader, writer = begun
        writer.write(request()[-1:])
        await assert_last(reader)

    @pytest.mark.parametrize("served", ["journal"], indirect=True)
    async def test_a_client_that_goes_in_the_middle_of_its_body_is_counted(self, served, begun):
        begun[1].transport.abort()
        [route] = await eventually(lambda: served.app.metrics.read().routes)
        assert (route.route, route.statuses) == ("/api/v1/predict", {"500": 1})

    @pytest.mark.parametrize("served", ["journal", "slow model"], indirect=True)
    async def test_clients_that_go_away_do_not_disturb_others(self, served):
        for sent in (request()[:50], request()[:-20], request()):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(sent)
            await writer.drain()
            writer.transport.abort()
        [answer] = await exchange(served.port, request())
        assert answer[0] == "HTTP/1.1 200 OK"

    async def test_a_client_that_does_not_read_is_served_no_more_than_fits(self, served):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # little fits between the two
        client.connect(("127.0.0.1", served.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=1024)
        [connection] = await eventually(served.connections)
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        requests = 600
        for _ in range(requests):
            writer.write(request())
        await eventually(lambda: connection.flow.write_paused)
        for _ in range(100):
            await asyncio.sleep(0)  # turns of the loop in which a faulty connection would go on
        assert connection.transport.get_write_buffer_size() < 100_000
        for _ in range(requests):
            assert (await read_answer(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()
        assert len(await served.records()) == requests


async def assert_last(reader):
    """Read an answer that closes its connection."""
    line, fields, _ = await read_answer(reader)
    assert line == "HTTP/1.1 200 OK"
    assert "connection: close" in fields
    assert await reader.read() == b""
