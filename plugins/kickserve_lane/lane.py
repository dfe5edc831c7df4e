"""The lane: `POST /api/v1/predict` without the router, which costs more than all the rest of a prediction.

The lane takes a request that is plainly a prediction, and leaves all others to the router, which answers the
same way to the byte. `Lane` works under any ASGI server; under uvicorn `connection` answers inside the
protocol.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request

from kickserve.plugins import KEY_NAME, KickserveError, problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import ASGIApp, HTTPScope, Receive, Send

    from kickserve.plugins import App, Principal

    Headers = list[tuple[bytes, bytes]]

BODY_MAX: Final = 60_000  # bytes; no kick is longer, and uvicorn stops reading at 64 KiB
JSON: Final = (b"content-type", b"application/json")
_HOST: Final = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9.-]{0,200}[A-Za-z0-9])?(:[0-9]{1,5})?")
encode: Final = msgspec.json.Encoder().encode


class Lane:
    """Answers predictions without the framework.

    Args:
        app: the application.
        router: answers all requests that the lane leaves.
        path: of the requests that the lane takes.

    Attributes:
        path: the same.
        predict: from the body of a request to the future of its answer (`Predictor.predict_json`).
        meter: counts the requests.
    """

    def __init__(self, app: App, router: ASGIApp, path: str) -> None:
        self.path = path
        self._router = router
        self.predict = app.predictor.predict_json
        self.meter = app.metrics.route(path, "POST")
        self._authenticator = app.authenticator
        self._body_max = min(app.settings.body_max, BODY_MAX)
        # The router answers requests with CORS, and checks the origin where no key is needed.
        self._checks_origin = app.settings.cors_origins is not None or not app.authenticator.guarded
        self._host: bytes | None = None

    def admit(
        self, headers: Mapping[bytes, bytes], count: int, peer: str, forwarded: bytes | None
    ) -> Principal | None:
        """Return the principal of a request to this path, or None where the router has to answer.

        The router answers where a header is repeated, the body is encoded, too long or of unknown length, a
        page of another origin asks, or the authenticator does not admit the request. An admitted one counts
        against rate limits.

        Args:
            headers: of the request, by name.
            count: number of headers that came.
            peer: address of the connection.
            forwarded: `X-Forwarded-For`, where it has not been applied yet.
        """
        try:
            if int(headers[b"content-length"]) > self._body_max or len(headers) != count:
                return None
        except (KeyError, ValueError):
            return None
        if b"content-encoding" in headers or (self._checks_origin and b"origin" in headers):
            return None
        host = headers.get(b"host", b"")
        if host != self._host and not self._is_plain(host):
            return None
        return self._authenticator.admit(headers, peer, forwarded)

    def _is_plain(self, host: bytes) -> bool:
        """Return whether a host is plainly ours, and remember it; the router looks closer at others."""
        if _HOST.fullmatch(host) is None or not self._authenticator.takes_host(host):
            return False
        self._host = host
        return True

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI), or leave it to the router."""
        principal = None
        if scope["path"] == self.path and scope["method"] == "POST":
            headers, client = [*scope["headers"]], scope.get("client")
            principal = self.admit(dict(headers), len(headers), client[0] if client else "", None)
        if principal is None:
            await self._router(scope, receive, send)
            return
        scope["state"]["principal"] = principal
        scope["path_template"] = self.path  # as the router leaves it, for plugins that wrap requests
        KEY_NAME.set(principal.key.name)
        try:
            message: Any = await receive()
            body = message["body"] if message.get("more_body") is False else await _rest(message, receive)
            if body is None:
                return  # the client has gone
            outcome = await self.predict(body)
            if isinstance(outcome, KickserveError):
                raise outcome  # noqa: TRY301  every error is answered in one place
            status, answer = 200, encode(outcome)
            headers = [JSON, (b"content-length", b"%d" % len(answer))]
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            status, headers, answer = refusal(scope, error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


def refusal(scope: HTTPScope, error: Exception) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error, to the byte as the router has them."""
    request: Request[Any, Any, Any] = Request(scope)
    response = problems.answer(request, error).to_asgi_response(None, request)
    return response.status_code, response.encode_headers(), response.body


async def _rest(message: Any, receive: Receive) -> bytes | None:
    """Return a body that comes in several messages, from the first one on; None where the client goes."""
    body: bytes = b""
    while message["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body", False):
            return body
        message = await receive()
    return None
