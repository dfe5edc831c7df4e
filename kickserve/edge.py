"""The outermost layer: gives every request an id before the framework sees it, and counts it afterwards."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar
from litestar.routes import BaseRoute, HTTPRoute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from litestar.types import Message, Scope, Send

    from kickserve.meters import Meters

REQUEST_ID: Final = b"x-request-id"
# What a client may choose itself: nothing that could break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class KickserveApp(Litestar):
    """The application, with an `X-Request-ID` in and out of every HTTP request, all of which it counts."""

    _last_headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._meters: Meters = self.state.service.meters
        self._meters.know(pair for route in self.routes for pair in _pairs(route))
        self._prefix = secrets.token_hex(4)  # an app's own: workers share what a module draws

    def drain(self) -> None:
        """Ask clients to go: `ready` turns false, and each answer closes its connection."""
        self.state.service.drain()
        self._last_headers = ((b"connection", b"close"),)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "http":
            started = time.perf_counter()
            request_id = _accepted_id(scope) or self._new_id()
            scope.setdefault("state", {})["request_id"] = request_id.decode()
            answer = _Answer(send, ((REQUEST_ID, request_id), *self._last_headers))
            try:
                await super().__call__(scope, receive, answer)
            finally:
                meter = self._meters.route(scope.get("path_template", ""), scope["method"])
                meter.add(answer.status, time.perf_counter() - started)
        else:
            await super().__call__(scope, receive, send)

    def _new_id(self) -> bytes:
        # Unique within the process by its clock, across processes by the prefix: no secret, so no draw.
        return f"{self._prefix}-{time.monotonic_ns():x}".encode()


class _Answer:
    """Adds headers to an answer, and notes its status.

    Attributes:
        status: 500 until an answer has begun.
    """

    __slots__ = ("_headers", "_send", "status")

    def __init__(self, send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._send = send
        self._headers = headers
        self.status = 500

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers]
        return self._send(message)


def _pairs(route: BaseRoute) -> Iterator[tuple[str, str]]:
    """Yield what the meters tell apart of a route: not OPTIONS, which all answer, nothing of a mount."""
    if isinstance(route, HTTPRoute):  # of a mount the framework tells no template
        yield from ((route.path_format, method) for method in route.methods if method != "OPTIONS")


def _accepted_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            return value if _ACCEPTED.fullmatch(value) else None
    return None
