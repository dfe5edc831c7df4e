"""The way around the router for `POST /api/v1/predict`: the router costs more than all the rest of it.

The lane takes what is plainly a prediction and leaves the rest to the router, which answers it as ever. Both
lead to `Service.ask`, and their errors to `problems`, so that clients can't tell which way they went.
`FastLane` is what any ASGI server can use; under uvicorn `connection` takes it one layer further out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request

from kickserve import problems
from kickserve.current import KEY
from kickserve.errors import KickserveError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import HTTPScope, Receive, Send

    from kickserve.auth import Gate
    from kickserve.rate_limits import Caller
    from kickserve.schemas import Prediction
    from kickserve.service import Service
    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]

BODY_MAX: Final = 60_000  # bytes; no kick is longer, and uvicorn stops reading at 64 KiB
JSON: Final = (b"content-type", b"application/json")
_HOST: Final = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9.-]{0,200}[A-Za-z0-9])?(:[0-9]{1,5})?")
encode: Final = msgspec.json.Encoder().encode


class FastLane:
    """Answers predictions without the framework.

    Args:
        service: answers.
        gate: lets requests in.
        settings: the largest body, and whether pages of other origins may ask.
        path: of the requests that it takes.

    Attributes:
        path: the same.
        ask: `Service.ask`.
        meter: counts those requests.
    """

    def __init__(self, service: Service, gate: Gate, settings: Settings, path: str) -> None:
        self.path = path
        self.ask = service.ask
        self.meter = service.metrics.route(path, "POST")
        self._gate = gate
        self._body_max = min(settings.body_max, BODY_MAX)
        # The router answers those whom CORS concerns; and where no key is asked for, it looks who they are.
        self._asks_origin = settings.cors_origins is not None or not gate.guarded
        self._host: bytes | None = None

    def takes(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether this is a request that the lane answers, and if so, note whose it is (ASGI)."""
        if scope["path"] != self.path or scope["method"] != "POST":
            return False
        client = scope.get("client")
        caller = self.admits(headers, len([*scope["headers"]]), client[0] if client else "", None)
        if caller is None:
            return False
        state: Any = scope["state"]
        state["caller"] = caller
        KEY.set(caller.key.name)
        return True

    def admits(
        self, headers: Mapping[bytes, bytes], number: int, peer: str, forwarded: bytes | None
    ) -> Caller | None:
        """Say whose a request to this path is, if it is one that the lane answers.

        It is asked last: where the requests of a client are limited, this is one of them.

        Args:
            headers: its headers.
            number: how many it has. Where one is there twice, or its length is not told, no number or too
                large, or a page of another origin asks, or `Gate.admits` does not let it in, the router
                answers.
            peer: as for `Gate.admits`.
            forwarded: as for `Gate.admits`.
        """
        try:
            if int(headers[b"content-length"]) > self._body_max or len(headers) != number:
                return None
        except (KeyError, ValueError):
            return None
        if b"content-encoding" in headers or (self._asks_origin and b"origin" in headers):
            return None
        if headers.get(b"host", b"") != self._host and not self._knows(headers.get(b"host", b"")):
            return None
        return self._gate.admits(headers, peer, forwarded)

    def _knows(self, host: bytes) -> bool:
        """Say whether a host is plainly one; the router looks closer. The last that was is remembered."""
        if _HOST.fullmatch(host) is None:
            return False
        self._host = host
        return True

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer a request that `takes` has said yes to (ASGI)."""
        try:
            body = await _body(receive)
            if body is None:
                return  # the client has gone
            status, headers, answer = _written(await self.ask(body))
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            status, headers, answer = refusal(scope, error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


def _written(outcome: Prediction | KickserveError) -> tuple[int, Headers, bytes]:
    if isinstance(outcome, KickserveError):
        raise outcome
    answer = encode(outcome)
    return 200, [JSON, (b"content-length", b"%d" % len(answer))], answer


def refusal(scope: HTTPScope, error: Exception) -> tuple[int, Headers, bytes]:
    """Make status, headers and body of an error: the same, to the byte, as the router's."""
    request: Request[Any, Any, Any] = Request(scope)
    response = problems.answer(request, error).to_asgi_response(None, request)
    return response.status_code, response.encode_headers(), response.body


async def _body(receive: Receive) -> bytes | None:
    message = await receive()
    if message["type"] != "http.request":
        return None
    body = message["body"]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
    return body
