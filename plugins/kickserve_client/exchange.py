"""One call from its request to its answer: when it is repeated, and the errors it ends with.

There is no input or output here: a client adds that.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import httpx
import msgspec
from msgspec.structs import replace

from kickserve.errors import RemoteError, ServiceAway
from kickserve.schemas import UNDECODABLE, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve_client.calls import Call

T = TypeVar("T")

FIRST: Final = 0.2
"""Seconds before a call is repeated for the first time, at most; twice as many before each that follows."""

LONGEST: Final = 30.0
"""Seconds that are waited between two tries, at most, whatever the service says."""

_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
# No byte of the request has left: the service can't have heard it.
_UNHEARD: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# The service may have heard it or not. Errors in neither of the two will not pass by themselves.
_IN_DOUBT: Final = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)
_FOREIGN: Final = "but not like kickserve; is the URL right?"
_decode = msgspec.json.Decoder(Problem).decode


class ServiceBusy(ServiceAway):
    """A running service has no room now, and had none at any try."""


def pause(again: int, retry_after: float | None, chance: float) -> float | None:
    """Return the seconds to wait before a call is repeated: exponential backoff with full jitter.

    Args:
        again: 1 for the first repetition, and so on.
        retry_after: seconds that the service asks for, from 0; None where it asks for none.
        chance: from 0 to 1; drawn anew each time, so that many clients do not come back all at once.

    Returns:
        No fewer seconds than the service asks for; None for more than are waited.
    """
    if retry_after is not None and retry_after > LONGEST:
        return None
    backoff = chance * min(FIRST * 2.0 ** min(again - 1, 30), LONGEST)
    return backoff if retry_after is None else retry_after + backoff


class Exchange(Generic[T]):
    """One call, tried until it is answered.

    A call that the service may have heard is repeated only where twice is as good as once; one that it can't
    have heard, or has refused for want of room (429, 503), always.

    Args:
        call: the call.
        request: as it is sent.
        retries: how often it is repeated at most.
        draw: gives chances, from 0 to 1.
    """

    def __init__(
        self,
        call: Call[T],
        request: httpx.Request,
        retries: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.request = request
        self._call = call
        self._retries = retries
        self._draw = draw
        self._again = 0
        self._heard = False  # whether a try that failed may have been heard

    def failed(self, error: httpx.RequestError) -> float:
        """Return the seconds to wait before the next try, after one without an answer.

        Raises:
            ServiceAway: there is no next try.
        """
        unheard = isinstance(error, _UNHEARD)
        self._heard = self._heard or not unheard
        if unheard or (self._call.repeatable and isinstance(error, _IN_DOUBT)):
            seconds = self._next(None)
            if seconds is not None:
                return seconds
        url = self.request.url
        raise ServiceAway(
            f"no service answers at {url.scheme}://{url.netloc.decode()} ({type(error).__name__}: {error}):"
            " start one with `kickserve serve`",
            request_id=self._id,
        ) from error

    def answered(self, response: httpx.Response) -> float | None:
        """Return the seconds to wait before the next try; None for an answer to be read.

        Raises:
            ServiceBusy: the service has no room, and was asked often enough.
            RemoteError: it refuses, or is no kickserve.
        """
        # A delete whose first answer was lost, and which now finds nothing, has done its work.
        gone = self._call.method == "DELETE" and response.status_code == HTTPStatus.NOT_FOUND
        if response.is_success or (gone and self._heard):
            return None
        busy = response.status_code in _BUSY
        if busy:
            seconds = self._next(read_retry_after(response.headers.get("retry-after")))
            if seconds is not None:
                return seconds
        problem = self._problem(response)
        message = f"{self.request.url} answered {problem.status}: {problem.detail}"
        raise (ServiceBusy if busy else RemoteError)(message, problem, problem.request_id)

    def read(self, response: httpx.Response) -> T:
        """Return the result.

        Raises:
            RemoteError: the answer is none of kickserve.
        """
        try:
            return self._call.read(response)
        except UNDECODABLE as error:
            message = f"{self.request.url} answered {response.status_code} {_FOREIGN} ({error})"
            raise RemoteError(message, request_id=self._id) from error

    def _next(self, retry_after: float | None) -> float | None:
        if self._again >= self._retries:
            return None
        self._again += 1
        return pause(self._again, retry_after, self._draw())

    @property
    def _id(self) -> str:
        return str(self.request.headers.get("x-request-id", ""))

    def _problem(self, response: httpx.Response) -> Problem:
        """Read a problem document, or describe another answer: of a proxy, say, or of another service."""
        try:
            return _counted_from(self._call.first_row, _decode(response.content))
        except UNDECODABLE:
            return Problem(
                type="about:blank",
                title=response.reason_phrase,
                status=response.status_code,
                detail=_FOREIGN,
                instance=self.request.url.path,
                request_id=self._id,
            )


def read_retry_after(header: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110): seconds from now, from 0; None for none, or one without sense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        return _until(header)
    return max(seconds, 0.0) if seconds == seconds else None  # noqa: PLR0124  NaN is unlike itself


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _counted_from(first: int, problem: Problem) -> Problem:
    """Number rows as the caller does, who may have given more than this part of them."""
    if not first:
        return problem
    errors = [
        each if isinstance(each.row, msgspec.UnsetType) else replace(each, row=each.row + first)
        for each in problem.errors
    ]
    detail = re.sub(r"\brow (\d+)", lambda found: f"row {int(found[1]) + first}", problem.detail)
    return replace(problem, errors=errors, detail=detail)
