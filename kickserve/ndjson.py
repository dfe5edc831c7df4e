"""NDJSON of any length: kicks are answered while more of them come in, in memory that does not grow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Response
from litestar.exceptions import InternalServerException
from litestar.response.streaming import ASGIStreamingResponse
from msgspec.structs import replace

from kickserve.batching import yield_to_loop
from kickserve.errors import KickserveError, RequestError
from kickserve.middleware import app_of
from kickserve.problems import problem_of
from kickserve.validation import read_good_lines, read_lines

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import Receive, Send

    from kickserve.predictor import Predictor
    from kickserve.schemas import Kick, Problem

LONGEST: Final = 64_000  # bytes of a line; no kick is longer
_TOGETHER: Final = 1_000  # lines that are answered in one turn of the event loop: 3 ms
_TOGETHER_BAD: Final = 128  # the same where a line is bad: a thousand errors take 8 ms, and much memory

_encode = msgspec.json.Encoder().encode_lines


class Lines(Response[AsyncIterator[bytes]]):
    """An answer that begins while its request is still being read.

    The framework's own stream would read the request as well, to notice that the client has gone.
    """

    def to_asgi_response(self, app: Any, request: Any, **options: Any) -> ASGIStreamingResponse:
        """Make the ASGI response."""
        del app, request, options
        return _Sending(iterator=self.content, media_type=self.media_type, status_code=200)


class _Sending(ASGIStreamingResponse):
    async def send_body(self, send: Send, receive: Receive) -> None:
        del receive
        await self._stream(send)


async def answer_lines(request: Request[Any, Any, Any], predictor: Predictor) -> AsyncIterator[bytes]:
    """Answer the lines of a body as they come in: each with a prediction or a problem document, in order.

    A bad line spoils no other. Blank lines have no answer.
    """
    number = good = 0
    async for read in _read(request):
        kicks = [each for each in read if not isinstance(each, RequestError)]
        app_of(request).metrics.count("refused_kicks", len(read) - len(kicks))
        found = iter(await predictor.predict_each(kicks))
        answered = [each if isinstance(each, RequestError) else next(found) for each in read]
        app_of(request).authenticator.charge(request.scope, good + len(kicks), before=good)
        yield _encode(
            [
                _explained(request, each, row) if isinstance(each, KickserveError) else each
                for row, each in enumerate(answered, number)
            ]
        )
        number += len(read)
        good += len(kicks)
        await yield_to_loop()


def _explained(request: Request[Any, Any, Any], error: KickserveError, row: int) -> Problem:
    problem = problem_of(request.scope, error)
    faults = [replace(fault, row=row) for fault in problem.errors]
    return replace(problem, detail=f"row {row}: {problem.detail}", errors=faults)


async def _read(request: Request[Any, Any, Any]) -> AsyncIterator[Sequence[Kick | RequestError]]:
    """Yield the kicks or errors of some lines at a time; blank lines are left out."""
    async for block in _blocks(request):
        lines = [line for line in block.split(b"\n") if line.strip()]
        for start in range(0, len(lines), _TOGETHER):
            some = lines[start : start + _TOGETHER]
            if (kicks := read_good_lines(some)) is not None:
                yield kicks
                continue
            for at in range(0, len(some), _TOGETHER_BAD):
                yield read_lines(some[at : at + _TOGETHER_BAD])


async def _blocks(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield whole lines, as many as have come in."""
    rest = b""
    try:
        async for chunk in request.stream():
            lines, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield rest + lines + newline
                rest = b""
            rest = (rest + tail)[: LONGEST + 1]  # more than that is no kick, and is refused with less of it
    except InternalServerException:
        return  # the client has gone
    yield rest
