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
from kickserve.predictor import Answers
from kickserve.problems import problem_of
from kickserve.validation import cut_lines, kick_or_error, read_good_lines

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import Receive, Send

    from kickserve.predictor import Predictor
    from kickserve.schemas import Kick, Problem

LONGEST: Final = 64_000  # bytes of a line; no kick is longer
_TOGETHER: Final = 128  # lines that go together where one is bad: a thousand errors take 8 ms
_SPACE: Final = b" \t\r"  # that may be around a kick

_encode = msgspec.json.Encoder().encode_lines


class Streamed(Response[AsyncIterator[bytes]]):
    """An answer that leaves piece by piece, and may begin while its request is still being read.

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
        answers = await predictor.predict_each(kicks)
        app_of(request).authenticator.charge(request.scope, good + len(kicks), before=good)
        if isinstance(answers, Answers) and len(answers) == len(read):
            yield answers.encode(lines=True)
        else:
            found = iter(answers)
            answered = [each if isinstance(each, RequestError) else next(found) for each in read]
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
        for text in cut_lines(block):
            if (kicks := read_good_lines(text)) is not None:
                yield kicks
                continue
            lines = [line.strip(_SPACE) for line in text.split(b"\n") if line.strip()]
            if (kicks := read_good_lines(b"\n".join(lines))) is not None:
                yield kicks
                continue
            for at in range(0, len(lines), _TOGETHER):
                yield [kick_or_error(line) for line in lines[at : at + _TOGETHER]]


async def _blocks(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield whole lines, as many as have come in, without the newline of the last."""
    rest = b""
    try:
        async for chunk in request.stream():
            lines, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield rest + lines
                rest = b""
            rest = (rest + tail)[: LONGEST + 1]  # more than that is no kick, and is refused with less of it
    except InternalServerException:
        return  # the client has gone
    yield rest
