"""The middleware of every request: id, client behind proxies, security headers, metrics, hooks of plugins.

Every answer has `nosniff`. An HTML answer also has a Content-Security-Policy (sources, and origins that may
frame it) and a Permissions-Policy. An inline script runs by its nonce alone.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from litestar import Litestar, Request
from litestar.config.cors import CORSConfig
from litestar.plugins.core import MsgspecDIPlugin
from litestar.routes import BaseRoute, HTTPRoute

from kickserve import kinds, problems
from kickserve.addresses import same_origin
from kickserve.auth import KEY_NAME
from kickserve.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.plugins import PluginProtocol
    from litestar.types import ASGIApp, Message, Receive, Send

    from kickserve.auth import Authenticator
    from kickserve.metrics import Metrics
    from kickserve.predictor import Predictor
    from kickserve.recorder import Recorder
    from kickserve.settings import Settings
    from kickserve.store import Store

    Headers = list[tuple[bytes, bytes]]
    Wrapper = Callable[[ASGIApp], ASGIApp]
    RouterWrapper = Callable[[ASGIApp, "App"], ASGIApp]

REQUEST_ID: Final = b"x-request-id"
REQUEST: Final[ContextVar[bytes | None]] = ContextVar("kickserve_request", default=None)
"""Id of the current request, for the log; None outside of requests."""

_FORBIDDEN: Final = 4403  # websocket close code: 4000 to 4999 are the application's own
# A client may choose an id that can't break a log line or a header.
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")

_INEXACT: Final = re.compile(rb"%2f|//+", re.IGNORECASE)

_OWN: Final = "/api/v1/"
_PATHS: Final = {  # where a path begins in headers of answers
    b"location": re.compile(rb"^(?=/(?!/))"),
    b"link": re.compile(rb"(?<=<)(?=/)"),
    b"set-cookie": re.compile(rb"(?<=; path=)(?=/)", re.IGNORECASE),
}

SANDBOX: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""Policy of a page that another program made: its scripts run, but neither with the origin of this service
nor with
access to any host."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_POLICY: Final = b"content-security-policy"
_PAGE: Final = [
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")


@contextmanager
def request_context(request_id: bytes, key: str = "") -> Iterator[None]:
    """Add the id of a request and the name of its key to log lines of the block."""
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
        wrappers: `Plugin.wrap` of each plugin.
        router_wrappers: `Plugin.wrap_router` of each plugin.
        others: the attributes of the same names, and what `litestar.Litestar` takes.

    Attributes:
        settings: of the core.
        authenticator: finds the principal of a request.
        metrics: counts requests.
        predictor: predicts kicks with the current model.
        recorder: records predictions.
        store: of predictions.
        security_headers: of answers, with the check of origins.
        wrapped: whether a plugin wraps every request.
        draining: whether each answer closes its connection.
        ends_at: when the service must have ended, by `time.monotonic`.
    """

    def __init__(  # noqa: PLR0913  the parts of the application, all by keyword
        self,
        *,
        settings: Settings,
        authenticator: Authenticator,
        metrics: Metrics,
        predictor: Predictor,
        recorder: Recorder,
        store: Store,
        wrappers: Sequence[Wrapper],
        router_wrappers: Sequence[RouterWrapper],
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.settings = settings
        self.authenticator = authenticator
        self.metrics = metrics
        self.predictor = predictor
        self.recorder = recorder
        self.store = store
        self.security_headers = SecurityHeaders(settings)
        self.draining = False
        self.ends_at = math.inf
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

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        # The framework's own import pydantic wherever it is installed: 11 MB, and a tenth of the start.
        if "pydantic" in sys.modules:  # another plugin may use it
            return Litestar._get_default_plugins(plugins)  # noqa: SLF001  overridden here
        return [*plugins, MsgspecDIPlugin()]

    @staticmethod
    def _patch_opentelemetry_middleware(config: AppConfig) -> AppConfig:
        # The framework's own imports OpenTelemetry even where no traces are wanted, and that import fails
        # where OTEL_PROPAGATORS names one that is not installed. The plugin `otel` needs nothing of it.
        return config

    def drain(self) -> None:
        """Let clients go: the service is not ready, and each answer closes its connection, from now on."""
        self.draining = True
        self.ends_at = min(self.ends_at, time.monotonic() + self.settings.shutdown_timeout)

    def parts(self) -> dict[str, str]:
        """Return the state of each part that predictions need: `ok`, or a description of the fault."""
        service = "stopping" if self.draining else "ok"
        served = self.predictor.current
        model = "ok" if served.works else served.state
        return {"service": service, "model": model, "journal": self.recorder.journal_state()}

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
        if root := scope.get("root_path") or self.settings.root_path:
            _remove_root(scope, root)
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
            return
        sent = dict(scope["headers"])
        host, same_origin = sent.get(b"host", b""), self.security_headers.is_same_origin
        if self.authenticator.takes_host(host) and same_origin(sent):
            await super().__call__(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN})  # before it is accepted: 403

    async def _respond(self, scope: Any, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent = dict(scope["headers"])
        request_id = self.request_id(sent)
        is_head = scope["method"] == "HEAD"
        if is_head or _INEXACT.search(scope.get("raw_path") or b""):
            scope = _exact(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500  # until an answer begins

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope["state"]["begun"] = True
                headers = [*message.get("headers", ())]
                if scope.get("root_path") or scope["method"] == "OPTIONS":
                    headers = self._rewritten(scope, headers)
                headers += self.security_headers.headers(scope, headers)
                principal = scope["state"].get("principal")
                if principal is not None and principal.limits:
                    headers += self.authenticator.headers(principal)
                headers += [(REQUEST_ID, request_id), *([(b"connection", b"close")] if self.draining else ())]
                message["headers"] = headers
            elif is_head:
                message["body"] = b""  # type: ignore[typeddict-unknown-key] # the parts of a body have one
            await send(message)

        tokens = REQUEST.set(request_id), KEY_NAME.set("")
        try:
            takes = self.authenticator.takes_host(sent.get(b"host", b""))
            router = self._router if takes else _refuse_host
            await router(scope, receive, respond)
        except asyncio.CancelledError:  # the time for requests is over
            if not self.draining:
                raise
            if "begun" not in scope["state"]:
                await _refuse_to_wait(request_id, respond)
        finally:
            REQUEST.reset(tokens[0])
            KEY_NAME.reset(tokens[1])
            route = self.metrics.route(scope.get("path_template", ""), scope["method"])
            route.add(status, time.perf_counter() - started)

    def _rewritten(self, scope: Any, headers: Headers) -> Headers:
        root = scope.get("root_path", "").encode()
        headers = [(name, _below(root, name, value)) for name, value in headers]
        allow = self._allow.get(scope.get("path_template", ""))
        if scope["method"] == "OPTIONS" and allow:
            # The framework names the methods of the first handler of a path alone.
            headers = [(name, allow if name == b"allow" else value) for name, value in headers]
        return headers


class SecurityHeaders:
    """The security headers of answers, and the check of origins.

    Args:
        settings: origins that may frame pages or call the API, and `KICKSERVE_HSTS`.

    Attributes:
        always: headers of every answer.
        framed: whether other origins may frame the page.
    """

    def __init__(self, settings: Settings) -> None:
        self.always: Headers = [(b"x-content-type-options", b"nosniff")]
        if settings.hsts is not None:
            seconds = int(settings.hsts.total_seconds())
            self.always.append((b"strict-transport-security", b"max-age=%d" % seconds))
        self.framed = settings.frame_ancestors is not None
        self._ancestors = " ".join(["'self'", *(settings.frame_ancestors or ())])
        origins = settings.cors_origins
        self._cors = None if origins is None else CORSConfig(allow_origins=list(origins))

    def headers(self, scope: Any, headers: Headers) -> Headers:
        """Return the security headers of an answer (ASGI).

        Args:
            scope: of the request. An answer for an authenticated principal gets `Cache-Control: no-store`.
            headers: that the answer has already.
        """
        own = dict(headers)
        more = [*self.always]
        if own.get(b"content-type", b"").startswith(b"text/html"):
            more += _PAGE
            if _POLICY not in own:
                more.append((_POLICY, self.policy(nonce_of(scope)).encode()))
        if scope["method"] == "GET" and "principal" in scope["state"] and b"cache-control" not in own:
            more.append(_NO_STORE)
        return more

    def policy(self, nonce: str, *, evaluates: bool = False) -> str:
        """Return the Content-Security-Policy of a page: nothing comes from anywhere else.

        Inline styles are allowed: the page has computed colours and lengths.

        Args:
            nonce: that the page's scripts have.
            evaluates: whether these make code out of text.
        """
        evaluating = " 'unsafe-eval'" if evaluates else ""
        return (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'{evaluating};"
            " style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:;"
            " connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none';"
            f" frame-ancestors {self._ancestors}"
        )

    def is_same_origin(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether no page of a foreign origin sends a request or opens a websocket.

        Browsers send `Origin`, and a page can choose neither that nor `Host` and `X-Forwarded-Host`, which is
        there where a trusted proxy sent it. Other clients send no `Origin`.
        """
        sent = headers.get(b"origin")
        if sent is None:
            return True
        origin = sent.decode("latin-1")
        if self._cors is not None and self._cors.is_origin_allowed(kinds.origin(origin)):
            return True
        hosts = b",".join(headers.get(name, b"") for name in (b"host", b"x-forwarded-host"))
        return any(same_origin(origin, each) for each in hosts.decode("latin-1").split(","))

    def refuse_foreign_change(self, scope: Any) -> None:
        """Refuse a request of a foreign page that may change something.

        Raises:
            Forbidden: it is one.
        """
        if scope["method"] not in SAFE and not self.is_same_origin(dict(scope["headers"])):
            raise Forbidden(
                "the request comes from a page of another origin: add the origin to"
                " KICKSERVE_CORS_ORIGINS to allow it"
            )


async def _refuse_to_wait(request_id: bytes, send: Send) -> None:
    """Answer a request whose time is over, because the service ends (ASGI)."""
    body = problems.refused_early(503, "the service is stopping: ask again", request_id)
    headers = [(b"content-type", problems.MEDIA_TYPE.encode()), (b"retry-after", b"5")]
    head: Any = {"type": "http.response.start", "status": 503, "headers": headers}
    await send(head)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _refuse_host(scope: Any, receive: Receive, send: Send) -> None:
    """Answer a request for a name that is none of this machine's (ASGI)."""
    request: Request[Any, Any, Any] = Request(scope)
    error = Forbidden(
        f"this service has no key, so it answers to names of this machine, and not to"
        f" {request.headers.get('host', '')[:100]!r}: add the name to KICKSERVE_ALLOWED_HOSTS, or set API_KEY"
    )
    await problems.answer(request, error).to_asgi_response(None, request)(scope, receive, send)


def nonce_of(scope: Any) -> str:
    """Return the nonce of the scripts of an answer: one for each request."""
    nonce: str = scope["state"].setdefault("nonce", secrets.token_urlsafe(16))
    return nonce


def with_nonce(page: bytes, nonce: str) -> bytes:
    """Add the nonce to the scripts of a page, in which text from outside is escaped already."""
    return page.replace(b"<script", b'<script nonce="%b"' % nonce.encode())


def app_of(connection: ASGIConnection[Any, Any, Any, Any]) -> App:
    """Return the application of a request."""
    return cast("App", connection.app)


def _remove_root(scope: Any, root: str) -> None:
    """Note under which path a proxy serves (ASGI), and remove that path where the proxy has not."""
    scope["root_path"] = root
    if f"{scope['path']}/".startswith(f"{root}/") and not _OWN.startswith(f"{root}/"):
        scope["path"] = scope["path"][len(root) :] or "/"
        scope["raw_path"] = scope["raw_path"].removeprefix(root.encode()) or b"/"


def _below(root: bytes, name: bytes, value: bytes) -> bytes:
    """Return the value of a header, with the root path before the path that it has."""
    found = _PATHS.get(name)
    return value if found is None else found.sub(lambda _: root, value)


def _allowed(route: BaseRoute) -> tuple[str, bytes | None]:
    methods = problems.allow(route.methods) if isinstance(route, HTTPRoute) else ""
    return route.path_format, methods.encode() or None


def _exact(scope: Any) -> Any:
    """Return a scope (ASGI) for the router: HEAD as GET, and no slash in the path but its separators."""
    raw = scope.get("raw_path")
    path = scope["path"] if raw is None else unquote(_INEXACT.sub(_escaped, raw).decode("latin-1"))
    return {**scope, "method": scope["method"].replace("HEAD", "GET"), "path": path}


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"%252F" if found[0].startswith(b"%") else b"/%252F" * (len(found[0]) - 1)


def _pairs(route: BaseRoute) -> Iterator[tuple[str, str]]:
    """Yield what metrics count apart: routes and methods, without OPTIONS and without mounts."""
    if isinstance(route, HTTPRoute):
        yield from ((route.path_format, method) for method in route.methods if method != "OPTIONS")
