"""The lane inside uvicorn's connections: a prediction needs no parser, no task, no scope and no messages.

For a bare ASGI application uvicorn's parser calls back nine times a request, and makes an event, a task and a
cycle: more than a prediction costs. Here a request that is plainly a prediction is answered as it comes from
the transport; every other request, and what can't be told yet, goes uvicorn's way.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from kickserve.plugins import ANONYMOUS, REQUEST_ID, request_context
from kickserve_lane.lane import JSON, encode, refusal
from kickserve_lane.limits import LimitedConnection, header_lines

if TYPE_CHECKING:
    from kickserve.plugins import App
    from kickserve.schemas import Prediction
    from kickserve_lane.lane import Head, Lane
    from kickserve_lane.limits import ConnectionLimits


_FIELDS: Final = b"%b: %b\r\ncontent-length: %%d\r\n" % JSON
_ID: Final = b"%b: " % REQUEST_ID
_OPEN: Final = b"\r\n\r\n"
_CLOSE: Final = b"\r\nconnection: close\r\n\r\n"
_ABORTED: Final = 500  # status in the metrics where the client has gone in the middle of its body


class LaneConnection(LimitedConnection):
    """A connection that answers predictions itself.

    Args:
        app: the application.
        limits: of the process.
        lane: answers predictions.
        arguments: of uvicorn's protocol.
    """

    __slots__ = (
        *("_always", "_began", "_begun", "_default", "_inline", "_lane", "_principal", "_request_id"),
    )

    def __init__(self, app: App, limits: ConnectionLimits, lane: Lane, **arguments: Any) -> None:
        super().__init__(app, limits, **arguments)
        self._lane = lane
        # In place of the cycle that uvicorn makes of each request: one for all that the lane takes.
        self._inline: Any = SimpleNamespace(
            disconnected=False, keep_alive=True, message_event=asyncio.Event(), response_complete=True
        )
        self._begun = b""  # of a prediction whose body is not complete
        self._began = 0.0  # when its head came
        self._principal = ANONYMOUS
        self._request_id = b""
        self._always = header_lines(app.security_headers.always)
        self._default: tuple[object, bytes] = (None, b"")  # headers of uvicorn's own, and their lines

    def data_received(self, data: bytes) -> None:
        """Answer predictions, and leave other requests to the parser."""
        while data and (self._begun or self._is_between()):
            data = self._begun + data
            head = self._lane.find_head(data)
            if head is None or not (self._begun or self._admit(head)):
                break
            if len(data) < head.end:
                self._wait(data)
                return
            self._begun, self._in_body = b"", False
            try:
                self._lane.answer(data[head.size : head.end], self)
            except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
                self.set_exception(error)
            data = data[head.end :]
        if data:
            super().data_received(data)

    def _is_between(self) -> bool:
        """Return whether the lane may take a request: none is being read or answered, and answers leave."""
        return not (
            self._in_head
            or self._in_body
            or self._cycle() is not None
            or self.flow.write_paused
            or self._fault is not None
            or self._superfluous
            or self._kickserve.draining
            or self.transport.is_closing()
        )

    def _admit(self, head: Head) -> bool:
        """Begin a request, unless the router has to answer it."""
        principal = self._lane.admit(head.token, self.client, head.sent)
        if principal is None:
            return False
        self._began, self._principal = time.perf_counter(), principal
        self._request_id = self._kickserve.request_id(head.sent)
        self.headers = head.headers
        self.cycle = self._inline
        self._inline.response_complete = False
        return True

    def _wait(self, data: bytes) -> None:
        """Wait for the rest of a body, within the limits of one."""
        if not self._begun:
            self._begin_body()
        self._begun = data
        self._came, self._silence = len(data), 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a request whose body never ended, as the middleware counts others."""
        super().connection_lost(exc)
        if self._begun:
            self._lane.meter.add(_ABORTED, time.perf_counter() - self._began)

    # The connection is the promise (`kickserve.batching.Promise`) of the answer that it waits for.

    def done(self) -> bool:
        """Return whether an answer is wanted no more."""
        return bool(self._inline.response_complete)

    def set_exception(self, exception: Exception) -> None:
        """Answer with an error."""
        self.set_result(exception)

    def set_result(self, result: Prediction | Exception) -> None:
        """Answer the request."""
        self._inline.response_complete = True
        try:
            if isinstance(result, Exception):
                raise result  # noqa: TRY301  what can't be written becomes the same kind of answer
            status, body = 200, encode(result)
            fields = _FIELDS % len(body)
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            status, fields, body = self._refusal(error)
        always = self._always
        if self._principal.limits:
            always += header_lines(self._kickserve.authenticator.headers(self._principal))
        last = not self._inline.keep_alive or self._kickserve.draining
        head = STATUS_LINE[status], self._defaults(), fields, always, _ID, self._request_id
        if not self.transport.is_closing():
            self.transport.write(b"".join((*head, _CLOSE if last else _OPEN, body)))
            if last:
                self.transport.close()
            self._age = 0.0
            if self.pipeline or self._fault is not None:
                self.on_response_complete()
        # When it has been written: that is part of how long it took.
        self._lane.meter.add(status, time.perf_counter() - self._began)

    def _refusal(self, error: Exception) -> tuple[int, bytes, bytes]:
        """Return status, headers and body of an error."""
        scope: Any = {"type": "http", "method": "POST", "path": self._lane.path, "headers": self.headers}
        scope["state"] = {"request_id": self._request_id}
        # Here, where something may be logged, and not for each request.
        with request_context(self._request_id, self._principal.key.name):
            status, headers, body = refusal(scope, error)
        return status, header_lines(headers), body

    def _defaults(self) -> bytes:
        """Return the headers that uvicorn adds to every answer: the date, new each second."""
        defaults = self.server_state.default_headers
        if defaults is not self._default[0]:
            self._default = defaults, header_lines(defaults)
        return self._default[1]
