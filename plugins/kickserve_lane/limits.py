"""Connections with limits, and to the letter of HTTP where uvicorn's are not.

uvicorn waits for ever for a request that never ends, and reads a head of any length: a few hundred slow
clients would block all others. It reads the body of a request that asks for another protocol as the next
request, sends chunks to clients of HTTP/1.0, and leaves white space behind the value of a header.
"""

from __future__ import annotations

import asyncio
import resource  # as httptools, not to be had on Windows
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kickserve.plugins import problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from litestar.types import Send

    from kickserve.plugins import App
    from kickserve_lane.settings import LaneSettings

HEAD_MAX: Final = 32_768  # bytes of a request line and its headers
SLOWEST: Final = 500  # bytes a second that a body must bring, and an answer be taken with
PAUSE: Final = 300.0  # seconds of silence in a request whose answer has begun: kicks sent as they happen
_SPARE: Final = 128  # files that the process needs beside its connections
_TICK: Final = 1.0  # seconds between two rounds
_TOGETHER: Final = 500  # connections that are looked at in one turn of the event loop: half a millisecond

# Headers of a request that asks for another protocol: Java's HttpClient and `curl --http2` ask for h2c.
_UPGRADE: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})

_ADVICE: Final = {
    400: "the request is malformed HTTP, or has no header Host, or several",
    408: "the request was not complete in time: send it again (KICKSERVE_CLIENT_TIMEOUT)",
    431: f"request line and headers are longer than {HEAD_MAX:,} bytes: send shorter headers",
    503: "the service has no free connection: try again (KICKSERVE_CONNECTIONS_MAX)",
}


class ConnectionLimits:
    """The limits of a process, checked once a second for all connections.

    Requests have no timers of their own: each round ages every connection by one tick.

    Args:
        settings: `KICKSERVE_CLIENT_TIMEOUT` and `KICKSERVE_CONNECTIONS_MAX`.

    Attributes:
        most: number of connections that are accepted.
    """

    def __init__(self, settings: LaneSettings) -> None:
        self.most = min(settings.connections_max, room_for_connections())
        patience = settings.client_timeout
        self._tick = min(_TICK, patience / 4) if patience else _TICK
        self._patience = patience or float("inf")
        self._connections: set[LimitedConnection] = set()
        self._looking = False

    def watch(self, connection: LimitedConnection) -> None:
        """Check a connection in each round from now on."""
        self._connections.add(connection)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(self._tick, self._look)

    def forget(self, connection: LimitedConnection) -> None:
        """Stop checking a connection."""
        self._connections.discard(connection)

    def _look(self) -> None:
        self._look_at([*self._connections])

    def _look_at(self, connections: Sequence[LimitedConnection]) -> None:
        """Check some connections, and the rest in later turns of the event loop."""
        for connection in connections[:_TOGETHER]:
            connection.age(self._tick, self._patience)
        loop = asyncio.get_running_loop()
        if rest := connections[_TOGETHER:]:
            loop.call_soon(self._look_at, rest)
        elif self._connections:
            loop.call_later(self._tick, self._look)
        else:
            self._looking = False  # nothing wakes an idle server


class LimitedConnection(HttpToolsProtocol):
    """A connection with limits; a client beyond one gets a problem document.

    Args:
        app: the application.
        limits: of the process.
        arguments: of uvicorn's protocol.
    """

    # With more than thirty attributes in the instance's dictionary Python finds each more slowly.
    __slots__ = (
        *("_age", "_again", "_came", "_chunk", "_fault", "_first", "_fresh", "_in_body", "_in_head"),
        *("_kickserve", "_limits", "_queued", "_silence", "_stalled", "_superfluous"),
    )

    def __init__(self, app: App, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._kickserve = app
        self._limits = limits
        self._superfluous = False
        self._again = b""  # the head of a request that asks for another protocol, without that
        self._fault: int | None = None  # the status of a refusal that waits for the answers before it
        self._in_head = self._in_body = False
        self._age = 0.0  # seconds since the phase began that the connection is in
        self._silence = 0.0  # seconds since something came
        self._chunk = 0  # bytes of what came last
        self._came = 0  # bytes since the request began, with all of the chunk in which it did
        self._fresh = True  # whether nothing has begun in that chunk, nor before it
        self._first = 0  # bytes of it that may belong to what came before
        self._queued: int | None = None  # bytes that waited to be sent when the client fell behind
        self._stalled = 0.0  # seconds since then

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Accept the connection, or mark it as one too many."""
        super().connection_made(transport)
        self._superfluous = len(self.connections) > self._limits.most
        self._limits.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self._limits.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came, unless there is no more to be read."""
        if self._fault is not None or self.transport.is_closing():
            return
        self._silence = 0.0
        self._chunk = len(data)
        self._fresh = not (self._in_head or self._in_body)
        self._came += self._chunk
        if self._superfluous:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._in_head and self._came - self._first > HEAD_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._again:
                    self.handle_websocket_upgrade()
                    return
                data, self._again = self._again + data[upgrade.args[0] :], b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            else:
                return

    def _ignores_upgrade(self) -> bool:
        """Return whether the request asks for a protocol other than a websocket: it is then read again.

        The parser ends such a request at its head, and would leave its body to the other protocol.
        """
        parser = self.parser
        if not parser.should_upgrade():
            return False
        sent, method = dict(self.headers), parser.get_method()
        if method == b"CONNECT":
            self._fail(HTTPStatus.BAD_REQUEST)
        has_body = sent.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in sent
        version = parser.get_http_version()
        if (method, version, has_body) == (b"GET", "1.1", False) and self._should_upgrade():
            return False
        head = [each for each in self.headers if each[0] not in _UPGRADE]
        head.append((b"connection", b"keep-alive" if parser.should_keep_alive() else b"close"))
        line = method, self.url, version.encode(), header_lines(head)
        self._again = b"%b %b HTTP/%b\r\n%b\r\n" % line
        return True

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's own closes in any case
        """Answer a client that has sent all that it will send, and then close."""
        if self._in_head or self._in_body or self._is_answered():
            return False
        self._cycle().keep_alive = False
        return True

    def handle_websocket_upgrade(self) -> None:
        """Let go of a connection that speaks HTTP no more."""
        self._limits.forget(self)
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._age = 0.0
        self._came, self._first = self._chunk, 0 if self._fresh else self._chunk
        self._fresh = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without the white space around its value (RFC 9110, section 5.5)."""
        name, value = name.lower(), value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin a body, where there is to be one."""
        self._check_length()
        if self._ignores_upgrade():
            return
        self._check_host()
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            cycle: Any = self.cycle
            cycle.keep_alive = self.parser.should_keep_alive()
            cycle.send = _without_chunks(cycle)
        self._begin_body()

    def _begin_body(self) -> None:
        self._in_head, self._in_body = False, True
        self._age = 0.0

    def _check_length(self) -> None:
        # Added up only where it can be too long.
        if self._came > HEAD_MAX and len(self.url) + len(header_lines(self.headers)) > HEAD_MAX:
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _check_host(self) -> None:
        """See that all on the way agree whom the request is for (RFC 9112, section 3.2)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._fail(HTTPStatus.BAD_REQUEST)

    def _fail(self, status: int) -> NoReturn:
        """End the parser's work."""
        self._fault = status
        raise ValueError(status)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        if self._again:
            return
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on, or end with the refusal that has waited for this answer."""
        self._age = 0.0
        last = not self.pipeline
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `age` closes idle connections: without a timer a request
        if last and self._fault is not None:
            self._refuse(self._fault)

    def pause_writing(self) -> None:
        """Note how much waits for a client that takes its answers slowly."""
        super().pause_writing()
        self._queued, self._stalled = self.transport.get_write_buffer_size(), 0.0

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._queued = None
        super().resume_writing()

    def age(self, seconds: float, patience: float) -> None:
        """Grow older, and end where that is too old.

        Args:
            seconds: since the last time.
            patience: seconds that a client has.
        """
        self._silence += seconds
        self._stalled += seconds
        if not self.flow.read_paused:  # else it is the service that makes the client wait
            self._age += seconds
        if self._queued is not None:
            taken = self._queued - self.transport.get_write_buffer_size()
            if self._stalled > patience + taken / SLOWEST:
                self.transport.abort()
        elif self._fault is not None:
            pass  # it ends with the answers that it waits for
        elif self._in_body:
            self._age_in_body(patience)
        elif self._in_head:
            if self._cycle() is None and self._age > patience:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif self._cycle() is None:
            cycle: Any = self.cycle
            # Never too early: a load balancer relies on it.
            idle_max = patience if cycle is None else self.timeout_keep_alive + seconds
            if self._age > idle_max or self._superfluous:
                self.transport.close()

    def _age_in_body(self, patience: float) -> None:
        if self._cycle() is None:  # answered before it was whole: what still comes is of no use
            if self._age > patience:
                self.transport.abort()
        elif self._is_answered():
            if self._silence > max(PAUSE, patience):
                self.transport.abort()
        elif self._age > patience + self._came / SLOWEST:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _cycle(self) -> Any:
        """Return what the newest request waits with for its answer; None where nothing waits."""
        cycle: Any = self.cycle  # None at first, whatever uvicorn's annotation says
        return None if cycle is None or cycle.response_complete else cycle

    def _is_answered(self) -> bool:
        """Say whether the newest request has an answer, or the beginning of one."""
        cycle = self._cycle()
        return cycle is None or getattr(cycle, "response_started", False)

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request."""
        del msg
        self._refuse(self._fault or HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: int) -> None:
        """Refuse what comes and close; where earlier requests wait for their answers, after those."""
        if self.transport.is_closing():
            return
        if self._in_body and not self.pipeline and self._is_answered():
            self.transport.abort()  # a client would take a second answer for the rest of the first
            return
        if self._in_body and self.pipeline:  # it waits behind others: it is never to be asked
            self.pipeline.popleft()[0].response_complete = True
            self._in_body = False
            waits = True
        else:
            waits = self._cycle() is not None and not self._in_body
        if waits:
            self._fault = status
            self.flow.pause_reading()
            return
        if not self._in_body:  # else it counts with its route
            self._kickserve.metrics.route("", "").add(status, 0.0)
        self._tell(status)
        self.transport.close()

    def _tell(self, status: int) -> None:
        request_id = self._kickserve.request_id(dict(self.headers or ()))
        body = problems.refused_early(status, _ADVICE[status], request_id)
        fields = [
            *self.server_state.default_headers,
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id),
            (b"connection", b"close"),
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            fields.append((b"retry-after", b"5"))
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], header_lines(fields), body))


def _without_chunks(cycle: Any) -> Send:
    """Return the `send` (ASGI) of a request of HTTP/1.0, which knows no chunks.

    An answer of unknown length ends with its connection.
    """
    send, endless = cycle.send, False

    async def send_part(message: Any) -> None:
        nonlocal endless
        if message["type"] == "http.response.start":
            endless = all(name != b"content-length" for name, _ in message["headers"])
            if endless:
                cycle.chunked_encoding = cycle.keep_alive = False
                cycle.expected_content_length = sys.maxsize
            elif cycle.keep_alive:
                message["headers"] = [*message["headers"], (b"connection", b"keep-alive")]
        elif endless and not message.get("more_body", False):
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn then finds it complete
        await send(message)

    return send_part


def header_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Format headers for the head of an answer."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def room_for_connections() -> int:
    """Have the system allow as many open files as it will, and return how many connections fit among them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says that there is no limit, and then takes none
        hard = soft
    return sys.maxsize if hard == resource.RLIM_INFINITY else max(1, hard - _SPARE)
