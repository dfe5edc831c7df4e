"""The outermost layer: gives every request an id before the framework sees it, also those that it refuses."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar

if TYPE_CHECKING:
    from litestar.types import Message, Scope, Send

REQUEST_ID: Final = b"x-request-id"
# What a client may choose itself: nothing that could break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class KickserveApp(Litestar):
    """The application, with an `X-Request-ID` in and out of every HTTP request."""

    _last_headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._prefix = secrets.token_hex(4)  # an app's own: workers share what a module draws

    def drain(self) -> None:
        """Ask clients to go: `ready` turns false, and each answer closes its connection."""
        self.state.service.drain()
        self._last_headers = ((b"connection", b"close"),)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "http":
            request_id = _accepted_id(scope) or self._new_id()
            scope.setdefault("state", {})["request_id"] = request_id.decode()
            send = _tagging(send, ((REQUEST_ID, request_id), *self._last_headers))
        await super().__call__(scope, receive, send)

    def _new_id(self) -> bytes:
        # Unique within the process by its clock, across processes by the prefix: no secret, so no draw.
        return f"{self._prefix}-{time.monotonic_ns():x}".encode()


def _tagging(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> Send:
    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return tagged


def _accepted_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            return value if _ACCEPTED.fullmatch(value) else None
    return None
