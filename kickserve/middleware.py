"""The outermost layer: gives every request an id before the framework sees it, and counts it afterwards."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar
from litestar.routes import BaseRoute, HTTPRoute

from kickserve.current import KEY, REQUEST
from kickserve.rate_limits import told
from kickserve.store import WrapsRequests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping

    from litestar.types import ASGIApp, Message, Send

    from kickserve.auth import Gate
    from kickserve.metrics import Metrics
    from kickserve.security_headers import Shield
    from kickserve_lane.fastlane import FastLane

REQUEST_ID: Final = b"x-request-id"
_FORBIDDEN: Final = 4403  # as websockets number what the application decides
# What a client may choose itself: nothing that could break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class KickserveApp(Litestar):
    """The application, with an `X-Request-ID` in and out of every HTTP request, all of which it counts.

    Answers get the headers of `web.shield`, and a caller whose requests are limited is told how many
    are left. A websocket that a page of a foreign origin wants is refused.

    Attributes:
        lane: takes predictions around the router, where the settings want it.
        gate: lets requests in.
        shield: what browsers are told.
        draining: whether each answer asks its client to go.
        wrapped: whether a plugin wants to see every request.
    """

    lane: FastLane | None = None
    draining = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._metrics: Metrics = self.state.service.metrics
        self._metrics.set_routes(pair for route in self.routes for pair in _pairs(route))
        self._allow = dict(map(_allowed, self.routes))
        self.gate: Gate = self.state.gate
        self.shield: Shield = self.state.shield
        self._prefix = secrets.token_hex(4).encode()  # an app's own: workers share what a module draws
        wrappers = [plugin for plugin in self.plugins if isinstance(plugin, WrapsRequests)]
        self.wrapped = bool(wrappers)
        self._serve: ASGIApp = self._answer
        for wrapper in wrappers:
            self._serve = wrapper.wrap(self._serve)

    def drain(self) -> None:
        """Ask clients to go: `ready` turns false, and each answer closes its connection."""
        self.state.service.drain()
        self.draining = True

    def request_id_of(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the id that the client gave its request, or a new one."""
        sent = headers.get(REQUEST_ID)
        if sent is not None and _ACCEPTED.fullmatch(sent):
            return sent
        # Unique within the process by its clock, across processes by the prefix: no secret, so no draw.
        return b"%b-%x" % (self._prefix, time.monotonic_ns())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        self.gate.proxies.apply(scope)
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif self.shield.is_ours(dict(scope["headers"])):
            await super().__call__(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN})  # before it is accepted: 403

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        started = time.perf_counter()
        sent = dict(scope["headers"])
        request_id = self.request_id_of(sent)
        scope.setdefault("state", {})["request_id"] = request_id
        tokens = REQUEST.set(request_id), KEY.set("")
        if scope["method"] == "OPTIONS":
            send = self._naming_methods(scope, send)
        answer = _Answer(self, scope, send)
        lane = self.lane if self.lane is not None and self.lane.takes(scope, sent) else None
        if lane is not None:
            scope["path_template"] = lane.path  # as the router leaves it: for those who wrap requests
        try:
            await (super().__call__ if lane is None else lane)(scope, receive, answer)
        finally:
            REQUEST.reset(tokens[0])
            KEY.reset(tokens[1])
            template = scope.get("path_template", "")
            self._metrics.route(template, scope["method"]).add(answer.status, time.perf_counter() - started)

    def _naming_methods(self, scope: Any, send: Send) -> Send:
        """Name all methods of a path: the framework names those that were registered first."""

        async def named(message: Message) -> None:
            allow = self._allow.get(scope.get("path_template", ""))
            if message["type"] == "http.response.start" and allow is not None:
                headers = message.get("headers", ())
                message["headers"] = [(name, allow if name == b"allow" else value) for name, value in headers]
            await send(message)

        return named


class _Answer:
    """Adds headers to an answer, and notes its status.

    Attributes:
        status: 500 until an answer has begun.
    """

    __slots__ = ("_app", "_scope", "_send", "status")

    def __init__(self, app: KickserveApp, scope: Any, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self.status = 500

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            app, state = self._app, self._scope["state"]
            headers = [*message.get("headers", ())]
            headers += app.shield.of_answer(self._scope, headers)
            if "caller" in state:
                headers += told(state["caller"])
            headers.append((REQUEST_ID, state["request_id"]))
            if app.draining:  # now, whatever held when the request came
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        return self._send(message)


def _allowed(route: BaseRoute) -> tuple[str, bytes | None]:
    methods = sorted(route.methods) if isinstance(route, HTTPRoute) else []
    return route.path_format, ", ".join(methods).encode() or None


def _pairs(route: BaseRoute) -> Iterator[tuple[str, str]]:
    """Yield the pairs that metrics count apart: not OPTIONS, which each route answers, and no mount."""
    if isinstance(route, HTTPRoute):  # of a mount the framework tells no template
        yield from ((route.path_format, method) for method in route.methods if method != "OPTIONS")
