"""The lane: `POST /api/v1/predict` without the router, which costs more than all the rest of a prediction.

The lane takes a request that is plainly a prediction, and leaves all others to the router, which answers the
same way to the byte. `Lane` works under any ASGI server; under uvicorn `connection` answers without ASGI.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httptools
import msgspec
from litestar import Request

from kickserve.plugins import KEY_NAME, KickserveError, credential, problems

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import ASGIApp, HTTPScope, Receive, Send

    from kickserve.plugins import App

    Headers = list[tuple[bytes, bytes]]

BODY_MAX: Final = 60_000  # bytes; no kick is longer, and uvicorn stops reading at 64 KiB
JSON: Final = (b"content-type", b"application/json")
_HOST: Final = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9.-]{0,200}[A-Za-z0-9])?(:[0-9]{1,5})?")
_HEAD_MAX: Final = 4_096  # bytes of a head that the lane takes
_HEADS: Final = 1_024  # heads of up to so many bytes that are remembered, so many of them
_END: Final = b"\r\n\r\n"
_UNUSUAL: Final = frozenset({b"expect", b"proxy-connection", b"transfer-encoding", b"upgrade"})
encode: Final = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """The head of a request that is plainly a prediction.

    Attributes:
        size: in bytes.
        end: bytes of the whole request.
        headers: names, in lower case, and values; no name comes twice.
        sent: the same, by name.
        token: the key among them.
    """

    size: int
    end: int
    headers: Headers
    sent: dict[bytes, bytes]
    token: bytes


class Lane:
    """Answers predictions without the framework.

    Args:
        app: the application.
        router: answers all requests that the lane leaves.
        path: of the requests that the lane takes.

    Attributes:
        path: the same.
        answer: answers the body of a request (`Predictor.answer_json`).
        meter: counts the requests.
    """

    def __init__(self, app: App, router: ASGIApp, path: str) -> None:
        self.path = path
        self._router = router
        self._predict = app.predictor.predict_json
        self.answer = app.predictor.answer_json
        self.meter = app.metrics.route(path, "POST")
        self._authenticator = app.authenticator
        self.admit = app.authenticator.admit
        self._body_max = min(app.settings.body_max, BODY_MAX)
        # The router answers requests with CORS, and checks the origin where no key is needed.
        self._checks_origin = app.settings.cors_origins is not None or not app.authenticator.guarded
        self._line = f"POST {path} HTTP/1.1\r\n".encode()
        self._heads: dict[bytes, Head] = {}

    def find_head(self, data: bytes) -> Head | None:
        """Return the head of a request of HTTP/1.1 that begins with these bytes; None where it is not plain.

        Clients repeat their heads to the byte: one that is remembered needs no parser.
        """
        size = data.find(_END, 0, _HEAD_MAX) + len(_END)
        head = self._heads.get(data[:size])
        if head is None and data.startswith(self._line) and size > len(_END):
            head = self._read(data[:size])
            if head is not None and size <= _HEADS:
                if len(self._heads) >= _HEADS:
                    self._heads.clear()
                self._heads[data[:size]] = head
        return head

    def _read(self, head: bytes) -> Head | None:
        fields = _Fields()
        try:
            httptools.HttpRequestParser(fields).feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        sent = dict(fields.headers)
        stays = sent.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        if not fields.complete or not stays or not _UNUSUAL.isdisjoint(sent):
            return None
        length = self._length(sent, len(fields.headers))
        if length is None:
            return None
        return Head(len(head), len(head) + length, fields.headers, sent, credential(sent))

    def _length(self, headers: Mapping[bytes, bytes], count: int) -> int | None:
        """Return the length of the body of a plain prediction; None where the router has to answer.

        The router answers where a header is repeated, the body is encoded, too long or of unknown length, or
        a page of another origin asks; and it looks closer at unusual hosts.

        Args:
            headers: of a request to this path, by name.
            count: number of headers that came.
        """
        try:
            length = int(headers[b"content-length"])
        except (KeyError, ValueError):
            return None
        host = headers.get(b"host", b"")
        plain = (
            length <= self._body_max
            and len(headers) == count
            and b"content-encoding" not in headers
            and not (self._checks_origin and b"origin" in headers)
            and _HOST.fullmatch(host) is not None
            and self._authenticator.takes_host(host)
        )
        return length if plain else None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI), or leave it to the router."""
        principal = None
        if scope["path"] == self.path and scope["method"] == "POST":
            headers = [*scope["headers"]]
            sent = dict(headers)
            if self._length(sent, len(headers)) is not None:
                principal = self.admit(credential(sent), scope.get("client"), {})
        if principal is None:
            await self._router(scope, receive, send)
            return
        scope["state"]["principal"] = principal
        scope["path_template"] = self.path  # as the router leaves it, for plugins that wrap requests
        KEY_NAME.set(principal.key.name)
        try:
            body = await _body(receive)
            if body is None:
                return  # the client has gone
            outcome = await self._predict(body)
            if isinstance(outcome, KickserveError):
                raise outcome  # noqa: TRY301  every error is answered in one place
            status, answer = 200, encode(outcome)
            headers = [JSON, (b"content-length", b"%d" % len(answer))]
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            status, headers, answer = refusal(scope, error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


class _Fields:
    """Takes the headers of a request from its parser."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def refusal(scope: HTTPScope, error: Exception) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error, to the byte as the router has them."""
    request: Request[Any, Any, Any] = Request(scope)
    response = problems.answer(request, error).to_asgi_response(None, request)
    return response.status_code, response.encode_headers(), response.body


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request (ASGI); None where the client goes before its end."""
    body = b""
    message: Any = await receive()
    while message["type"] == "http.request":
        body += bytes(message["body"])
        if not message.get("more_body", False):
            return body
        message = await receive()
    return None
