"""One call from its request to its answer: when it is made again, and what it fails with.

There is no input or output here: a client adds that.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import httpx
import msgspec
from msgspec.structs import replace

from kickserve.errors import RemoteError, ServiceAway, ServiceBusy
from kickserve.schemas import UNDECODABLE, FieldError, Problem

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
# It may have been heard or not; what is in neither of both will not pass by itself.
_IN_DOUBT: Final = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)
_decode = msgspec.json.Decoder(Problem).decode


def pause(again: int, told: float | None, chance: float) -> float | None:
    """Say how long to wait before a call is repeated: exponential backoff with full jitter.

    Args:
        again: 1 for the first repetition, and so on.
        told: what the service said in Retry-After, in seconds, from 0; None where it did not.
        chance: from 0 to 1; drawn anew each time, so that many clients do not come back all at once.

    Returns:
        Seconds, no fewer than were told; None where it says that it takes longer than is waited.
    """
    if told is not None and told > LONGEST:
        return None
    backoff = chance * min(FIRST * 2.0 ** min(again - 1, 30), LONGEST)
    return backoff if told is None else told + backoff


class Exchange(Generic[T]):
    """One call, tried until it is answered.

    What is in doubt is repeated only where twice is as good as once; what can't have been heard, or was
    refused for want of room (429, 503), always.

    Args:
        call: what is asked.
        request: how it is sent.
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
        """Return how many seconds to wait before the next try, after one without an answer.

        Raises:
            ServiceAway: there is none.
        """
        unheard = isinstance(error, _UNHEARD)
        self._heard = self._heard or not unheard
        if unheard or (self._call.repeatable and isinstance(error, _IN_DOUBT)):
            seconds = self._next(None)
            if seconds is not None:
                return seconds
        raise ServiceAway(
            f"no service answers at {_base(self.request.url)} ({type(error).__name__}: {error}):"
            " start one with `kickserve serve`",
            request_id=self._id,
        ) from error

    def answered(self, response: httpx.Response) -> float | None:
        """Return how many seconds to wait before the next try; None where this answer is the one.

        Raises:
            ServiceBusy: the service has no room, and was asked often enough.
            RemoteError: it refuses, or is none of ours.
        """
        if response.is_success or self._gone(response):
            return None
        busy = response.status_code in _BUSY
        if busy:
            seconds = self._next(retry_after(response.headers.get("retry-after")))
            if seconds is not None:
                return seconds
        problem = self._problem(response)
        message = f"{self.request.url} answered {problem.status}: {problem.detail}"
        raise (ServiceBusy if busy else RemoteError)(message, problem, problem.request_id)

    def read(self, response: httpx.Response) -> T:
        """Return the result.

        Raises:
            RemoteError: the answer is none that kickserve gives.
        """
        try:
            return self._call.read(response)
        except UNDECODABLE as error:
            raise RemoteError(
                f"{self.request.url} answered {response.status_code} {_NONE_OF_OURS} ({error})",
                request_id=self._id,
            ) from error

    def _next(self, told: float | None) -> float | None:
        if self._again >= self._retries:
            return None
        self._again += 1
        return pause(self._again, told, self._draw())

    def _gone(self, response: httpx.Response) -> bool:
        """Say whether the try before this one has deleted what is not there any more."""
        return self._call.method == "DELETE" and response.status_code == HTTPStatus.NOT_FOUND and self._heard

    @property
    def _id(self) -> str:
        return str(self.request.headers.get("x-request-id", ""))

    def _problem(self, response: httpx.Response) -> Problem:
        try:
            problem = _decode(response.content)
        except UNDECODABLE:
            return self._foreign(response)
        return _counted_from(self._call.first_row, problem)

    def _foreign(self, response: httpx.Response) -> Problem:
        """Describe an answer that is no problem document: of a proxy, say, or of another service."""
        return Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            detail=_NONE_OF_OURS,
            instance=self.request.url.path,
            request_id=self._id,
        )


_NONE_OF_OURS: Final = "with something that is no answer of kickserve; is the URL right?"


def retry_after(header: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110): seconds from now, from 0; None where it says nothing."""
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
    errors = [_moved(each, first) for each in problem.errors]
    return replace(problem, errors=errors, detail=f"of the rows from {first:,} on, {problem.detail}")


def _moved(fault: FieldError, first: int) -> FieldError:
    return fault if isinstance(fault.row, msgspec.UnsetType) else replace(fault, row=fault.row + first)


def _base(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"
