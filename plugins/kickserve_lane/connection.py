"""The lane inside uvicorn's connections: a prediction needs no task, no scope and no ASGI messages.

For a bare ASGI application uvicorn makes an event, a task and a cycle for each request: half of the cost of a
prediction. Here the callback of the parser answers a request of the lane; every other request goes uvicorn's
way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kickserve.plugins import ANONYMOUS, FORWARDED_FOR, REQUEST_ID, request_context
from kickserve_lane.lane import JSON, encode, refusal
from kickserve_lane.limits import LimitedConnection, header_lines

if TYPE_CHECKING:
    import asyncio

    from litestar.types import HTTPScope

    from kickserve.plugins import App, KickserveError, Principal
    from kickserve.schemas import Prediction
    from kickserve_lane.lane import Headers, Lane
    from kickserve_lane.limits import ConnectionLimits

    Answer = asyncio.Future[Prediction | KickserveError]


_FIELDS: Final = b"%b: %b\r\ncontent-length: %%d\r\n" % JSON
_ABORTED: Final = 500  # status in the metrics where the client has gone in the middle of its body


class _NoEvent:
    def set(self) -> None:
        pass


class InlineRequest:
    """A request on the lane, with the attributes that uvicorn expects of its own cycle.

    A connection reuses one object for all its requests.
    """

    __slots__ = (
        "began",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "principal",
        "request_id",
        "response_complete",
    )

    message_event: Final = _NoEvent()

    def __init__(self) -> None:
        self.began = 0.0
        self.body = b""
        self.principal: Principal = ANONYMOUS
        self.disconnected = False
        self.headers: Headers = []
        self.keep_alive = True
        self.more_body = True
        self.request_id = b""
        self.response_complete = True


class LaneConnection(LimitedConnection):
    """A connection that answers predictions itself.

    Args:
        app: the application.
        limits: of the process.
        lane: answers predictions.
        arguments: of uvicorn's protocol.
    """

    def __init__(self, app: App, limits: ConnectionLimits, lane: Lane, **arguments: Any) -> None:
        super().__init__(app, limits, **arguments)
        self._lane = lane
        self._path = lane.path.encode()
        self._inline = InlineRequest()
        self._always = header_lines(app.security_headers.always)
        self._default_headers: object = None
        self._default_lines = b""

    def on_message_begin(self) -> None:
        """Begin a request; its scope is made when it turns out to need one."""
        self._begin()
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Take the request on the lane, or leave it to uvicorn."""
        self._check_length()
        if self._ignores_upgrade():
            return
        if self._can_inline():
            self._begin_body()
            inline = self._inline
            inline.began = time.perf_counter()
            inline.body, inline.headers = b"", self.headers
            inline.more_body, inline.response_complete = True, False
            self.cycle = inline  # type: ignore[assignment] # it has what uvicorn asks of a cycle
            return
        self._check_host()
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)  # of uvicorn alone: the limits know of this request already
        self.url, self.expect_100_continue = url, expected
        self.headers += headers
        self._begin_cycle()

    def _can_inline(self) -> bool:
        parser = self.parser
        if self.url != self._path or parser.get_method() != b"POST" or self.expect_100_continue:
            return False
        if not parser.should_keep_alive() or parser.get_http_version() != "1.1":
            return False
        if self._busy():
            return False  # it was sent before the answer to the one before: uvicorn queues it
        if self.flow.write_paused or self._kickserve.draining:
            return False
        sent = dict(self.headers)
        peer = self.client[0] if self.client else ""
        principal = self._lane.admit(sent, len(self.headers), peer, sent.get(FORWARDED_FOR))
        if principal is None:
            return False
        self._inline.principal = principal
        self._inline.request_id = self._kickserve.request_id(sent)
        return True

    def _busy(self) -> bool:
        cycle: Any = self.cycle  # None at first, whatever uvicorn's annotation says; or our own
        return cycle is not None and not cycle.response_complete

    def _is_inline(self) -> bool:
        # Not the one that has been answered: for a websocket uvicorn makes no cycle that takes its place.
        cycle: Any = self.cycle
        return cycle is self._inline and not cycle.response_complete

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._is_inline():
            self._inline.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Predict: the request is complete."""
        if not self._is_inline():
            super().on_message_complete()
            return
        self._in_body = self._inline.more_body = False
        try:
            answer = self._lane.predict(self._inline.body)
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            self._answer(error)
            return
        if answer.done():
            self._conclude(answer)
        else:
            answer.add_done_callback(self._conclude)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a request whose body never ended, as the middleware counts others."""
        super().connection_lost(exc)
        if self._is_inline() and self._inline.more_body:
            self._count(_ABORTED)

    def _conclude(self, answer: Answer) -> None:
        try:
            outcome: Prediction | Exception = answer.result()
        except Exception as error:  # noqa: BLE001  a bug becomes an answer too
            outcome = error
        self._answer(outcome)

    def _answer(self, outcome: Prediction | Exception) -> None:
        self._inline.response_complete = True
        status, fields, body = self._written(outcome)
        if not self.transport.is_closing():
            self._send(status, fields, body)
        self._count(status)  # when it has been written: that is part of how long it took

    def _written(self, outcome: Prediction | Exception) -> tuple[int, bytes, bytes]:
        if not isinstance(outcome, Exception):
            try:
                body = encode(outcome)
            except Exception as error:  # noqa: BLE001  what can't be written becomes an answer too
                outcome = error
            else:
                return 200, _FIELDS % len(body), body
        # Here, where something may be logged, and not for each request.
        with request_context(self._inline.request_id, self._inline.principal.key.name):
            status, headers, body = refusal(self._scope(), outcome)
        return status, header_lines(headers), body

    def _send(self, status: int, fields: bytes, body: bytes) -> None:
        inline = self._inline
        fields += self._always
        if inline.principal.limits:
            fields += header_lines(self._kickserve.authenticator.headers(inline.principal))
        last = not inline.keep_alive or self._kickserve.draining
        close = b"connection: close\r\n" if last else b""
        head = (STATUS_LINE[status], self._defaults(), fields, REQUEST_ID, inline.request_id, close, body)
        self.transport.write(b"%b%b%b%b: %b\r\n%b\r\n%b" % head)
        if last:
            self.transport.close()
        self.on_response_complete()

    def _count(self, status: int) -> None:
        self._lane.meter.add(status, time.perf_counter() - self._inline.began)

    def _defaults(self) -> bytes:
        """Return the headers that uvicorn adds to every answer: the date, new each second."""
        defaults = self.server_state.default_headers
        if defaults is not self._default_headers:
            self._default_headers = defaults
            self._default_lines = header_lines(defaults)
        return self._default_lines

    def _scope(self) -> HTTPScope:
        """Return the part of a scope that an error document needs."""
        inline = self._inline
        scope: Any = {
            "type": "http",
            "method": "POST",
            "path": self._lane.path,
            "headers": inline.headers,
            "state": {"request_id": inline.request_id},
        }
        return scope  # type: ignore[no-any-return]
