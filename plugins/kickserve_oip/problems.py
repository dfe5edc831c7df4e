"""Gives errors under `/v2` the member `error` that the protocol wants, in the house's problem document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from kickserve.schemas import Problem
from kickserve_oip.messages import ProblemWithError

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request, Response

    Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]

PREFIX: Final = "/v2"

_read = msgspec.json.Decoder(Problem).decode
_encode = msgspec.json.Encoder().encode


def with_error(handler: Handler) -> Handler:
    """Make a handler of errors whose answers under `/v2` also satisfy the protocol.

    It asks for `{"error": "what happened"}`. RFC 9457 lets a problem document have further members, and tells
    readers to pass over those that they don't know: so one document serves both kinds of clients.
    """

    def handle(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        if response.content and _is_of_the_protocol(request.scope["path"]):
            problem = _read(response.content)
            members = msgspec.structs.asdict(problem)
            response.content = _encode(ProblemWithError(error=problem.detail, **members))
        return response

    return handle


def _is_of_the_protocol(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")
