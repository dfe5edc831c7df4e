"""The way around the router for `POST /api/v1/predict`: the router costs more than all the rest of it.

The lane takes what is plainly a prediction and leaves the rest to the router, which answers it as ever. Both
lead to `Service.predict`, and their errors to `problems`, so that clients can't tell which way they went.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request

from kickserve import problems
from kickserve.edge import tagging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import HTTPScope, Receive, Send

    from kickserve.service import Service
    from kickserve.settings import Settings

JSON: Final = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class FastLane:
    """Answers predictions without the framework.

    Args:
        service: answers.
        settings: the key, the largest body, and whether pages of other origins may ask.
        path: of the requests that it takes.
    """

    def __init__(self, service: Service, settings: Settings, path: str) -> None:
        self.path = path
        self._service = service
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._body_max = settings.body_max
        self._cors = settings.cors_origins is not None

    def takes(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> bool:
        """Say whether this is a request that the lane answers.

        Args:
            scope: of an HTTP request.
            headers: its headers. One that is there twice, lacks its length, is too large, has not the right
                key or comes from another origin's page is for the router to answer.
        """
        if (
            scope["path"] != self.path
            or scope["method"] != "POST"
            or len(headers) != len([*scope["headers"]])
        ):
            return False
        length = headers.get(b"content-length")
        if length is None or int(length) > self._body_max or (self._cors and b"origin" in headers):
            return False
        return self._key is None or secrets.compare_digest(headers.get(b"x-api-key", b""), self._key)

    async def __call__(
        self, scope: HTTPScope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> int:
        """Answer a request.

        Args:
            scope: that `takes` has said yes to.
            receive: brings the body.
            send: takes the answer.
            headers: what every answer carries.

        Returns:
            The status of the answer.
        """
        try:
            body = await _body(receive)
            if body is None:
                return _GONE
            answer = _encode(await self._service.predict(body))
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes an answer
            return await _refuse(Request(scope, receive, send), error, headers)
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length, *headers]})
        await send({"type": "http.response.body", "body": answer, "more_body": False})
        return 200


_GONE: Final = 499  # for the count alone: nobody is there to read it


async def _body(receive: Receive) -> bytes | None:
    """Return the body, or None where the client has gone."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
    return body


async def _refuse(
    request: Request[Any, Any, Any], error: Exception, headers: list[tuple[bytes, bytes]]
) -> int:
    answer = problems.answer(request, error).to_asgi_response(None, request)
    await answer(request.scope, request.receive, tagging(request.send, headers))
    return answer.status_code
