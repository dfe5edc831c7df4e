"""The middleware of every request: id, client behind proxies, security headers, metrics, hooks of plugins."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from litestar import Litestar
from litestar.routes import BaseRoute, HTTPRoute

from kickserve.auth import KEY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from litestar.connection import ASGIConnection
    from litestar.types import ASGIApp, Message, Receive, Send

    from kickserve.auth import Authenticator
    from kickserve.metrics import Metrics
    from kickserve.security import SecurityHeaders
    from kickserve.settings import Settings

    Wrapper = Callable[[ASGIApp], ASGIApp]
    RouterWrapper = Callable[[ASGIApp, "App"], ASGIApp]

REQUEST_ID: Final = b"x-request-id"
REQUEST: Final[ContextVar[bytes | None]] = ContextVar("kickserve_request", default=None)
"""Id of the current request, for the log; None outside of requests."""

_FORBIDDEN: Final = 4403  # websocket close code: 4000 to 4999 are the application's own
# A client may choose an id that can't break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@contextmanager
def request_context(request_id: bytes, key: str = "") -> Iterator[None]:
    """Give what is logged in the block the id of a request, and the name of its key."""
    tokens = REQUEST.set(request_id), KEY_NAME.set(key)
    try:
        yield
    finally:
        REQUEST.reset(tokens[0])
        KEY_NAME.reset(tokens[1])


class App(Litestar):
    """The application (ASGI), with the middleware around its router.

    It is a Litestar application whose middleware is faster than Litestar's, and also sees what never reaches
    the router: a request passes the plugins' `wrap`, the middleware, the plugins' `wrap_router`, and the
    router.

    Args:
        arguments: as for `litestar.Litestar`.
        settings: of the core.
        authenticator: finds the principal of a request.
        security_headers: of answers, with the check of origins.
        metrics: counts requests.
        wrappers: `Plugin.wrap` of each plugin.
        router_wrappers: `Plugin.wrap_router` of each plugin.
        named: as for `litestar.Litestar`.

    Attributes:
        settings: the same.
        authenticator: the same.
        security_headers: the same.
        metrics: the same.
        wrapped: whether a plugin wraps every request.
        draining: whether each answer closes its connection.
    """

    def __init__(
        self,
        *arguments: Any,
        settings: Settings,
        authenticator: Authenticator,
        security_headers: SecurityHeaders,
        metrics: Metrics,
        wrappers: Sequence[Wrapper],
        router_wrappers: Sequence[RouterWrapper],
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.settings = settings
        self.authenticator = authenticator
        self.security_headers = security_headers
        self.metrics = metrics
        self.draining = False
        metrics.set_routes(pair for route in self.routes for pair in _pairs(route))
        self._allow = dict(map(_allowed, self.routes))
        self._prefix = secrets.token_hex(4).encode()  # drawn per app: forked workers would share a module's
        self._router: ASGIApp = super().__call__
        self._serve: ASGIApp = self._respond
        for wrap_router in router_wrappers:
            self._router = wrap_router(self._router, self)
        for wrap in wrappers:
            self._serve = wrap(self._serve)
        self.wrapped = self._serve != self._respond

    def drain(self) -> None:
        """Let clients go: each answer closes its connection from now on."""
        self.state.service.drain()
        self.draining = True

    def request_id(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the id that the client gave its request, or a new one."""
        sent = headers.get(REQUEST_ID)
        if sent is not None and _ACCEPTED.fullmatch(sent):
            return sent
        # Unique in the process by the clock, and between processes by the prefix; an id is no secret.
        return b"%b-%x" % (self._prefix, time.monotonic_ns())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a connection (ASGI)."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        self.authenticator.proxies.apply(scope)
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif self.security_headers.is_same_origin(dict(scope["headers"])):
            await super().__call__(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN})  # before it is accepted: 403

    async def _respond(self, scope: Any, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = self.request_id(dict(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500  # until an answer begins

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(scope, [*message.get("headers", ())])
            await send(message)

        with request_context(request_id):
            try:
                await self._router(scope, receive, respond)
            finally:
                route = self.metrics.route(scope.get("path_template", ""), scope["method"])
                route.add(status, time.perf_counter() - started)

    def _headers(self, scope: Any, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        state = scope["state"]
        if scope["method"] == "OPTIONS" and (allow := self._allow.get(scope.get("path_template", ""))):
            # The framework names the methods of the first handler of a path alone.
            headers = [(name, allow if name == b"allow" else value) for name, value in headers]
        headers += self.security_headers.headers(scope, headers)
        if "principal" in state:
            headers += self.authenticator.headers(state["principal"])
        headers.append((REQUEST_ID, state["request_id"]))
        if self.draining:
            headers.append((b"connection", b"close"))
        return headers


def app_of(connection: ASGIConnection[Any, Any, Any, Any]) -> App:
    """Return the application of a request."""
    return cast("App", connection.app)


def _allowed(route: BaseRoute) -> tuple[str, bytes | None]:
    methods = sorted(route.methods) if isinstance(route, HTTPRoute) else []
    return route.path_format, ", ".join(methods).encode() or None


def _pairs(route: BaseRoute) -> Iterator[tuple[str, str]]:
    """Yield what metrics count apart: routes and methods, without OPTIONS and without mounts."""
    if isinstance(route, HTTPRoute):
        yield from ((route.path_format, method) for method in route.methods if method != "OPTIONS")
