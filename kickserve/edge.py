"""The outermost layer: gives every request an id before the framework sees it, also those that it refuses."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import Message, Send

    from kickserve.fastlane import FastLane

REQUEST_ID: Final = b"x-request-id"
# What a client may choose itself: nothing that could break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PREFIX: Final = secrets.token_hex(4).encode()


class KickserveApp(Litestar):
    """The application, with an `X-Request-ID` in and out of every HTTP request, and a lane around its router.

    Attributes:
        lane: takes predictions, where the settings want it.
    """

    lane: FastLane | None = None
    draining = False

    def drain(self) -> None:
        """Ask clients to go: `ready` turns false, and each answer closes its connection."""
        self.state.service.drain()
        self.draining = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        sent = dict(scope["headers"])
        request_id = request_id_of(sent)
        headers = [(REQUEST_ID, request_id)]
        if self.draining:
            headers.append((b"connection", b"close"))
        scope.setdefault("state", {})["request_id"] = request_id
        if self.lane is not None and self.lane.takes(scope, sent):
            await self.lane(scope, receive, send, headers)
        else:
            await super().__call__(scope, receive, _tagging(send, headers))


def _tagging(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return tagged


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the id that the client gave its request, or a new one."""
    sent = headers.get(REQUEST_ID)
    if sent is not None and _ACCEPTED.fullmatch(sent):
        return sent
    # Unique within the process by its clock, across processes by the prefix: no secret, so no draw of one.
    return b"%s-%x" % (_PREFIX, time.monotonic_ns())
