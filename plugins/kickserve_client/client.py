"""The client of a running service: `Client`, `AsyncClient` for event loops, `connected` for commands.

`calls` makes requests and reads answers, `exchange` decides when a call is repeated; the two classes add
input and output. Both get a method for each call from its function in `calls`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import threading
import time
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

import httpx

import kickserve_client.calls as calls  # noqa: PLR0402  the package imports this module
from kickserve import __version__
from kickserve.errors import RemoteError
from kickserve.schemas import OutcomesKept
from kickserve_client.calls import TOGETHER
from kickserve_client.environment import http_client
from kickserve_client.exchange import Exchange
from kickserve_client.frames import Answers, index_of
from kickserve_scores.kickers import POINTS, SORTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
    from datetime import datetime

    from kickserve.schemas import OutcomeOf, Prediction, Record
    from kickserve.settings import Settings
    from kickserve_client.calls import Call, Page
    from kickserve_client.frames import KickLike
    from kickserve_scores.kickers import KickerRow

T = TypeVar("T")
P = ParamSpec("P")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)

DEFAULT_URL: Final = "http://127.0.0.1:7860"
API: Final = "/api/v1"
_PAGE: Final = 1_000
_COMMAND_TIMEOUT: Final = 60.0
_COMMAND_RETRIES: Final = 7  # a command has time, and its work half done is worth waiting for
_KNOCK_TIMEOUT: Final = 2.0  # seconds for a service of this machine to answer
_last_id: ContextVar[str] = ContextVar("kickserve_request_id", default="")


def _method(make: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """Make a method of `Client` that sends a call."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(make(*args, **kwargs))

    _describe(method, make)
    return method


def _async_method(
    make: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Make a method of `AsyncClient` that sends a call."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(make(*args, **kwargs))

    _describe(method, make)
    return method


def _describe(method: Any, make: Callable[..., Any]) -> None:
    """Give a method the name, the documentation and the arguments of the function that makes its call."""
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    arguments = inspect.signature(make).parameters.values()
    method.__name__, method.__doc__ = make.__name__, make.__doc__
    method.__signature__ = inspect.Signature([itself, *arguments])


class _Base(Generic[H]):
    """The parts that both clients share.

    No more requests than connections are let into the pool: one that waits in it for a connection can have it
    closed under its feet (encode/httpcore#1110).
    """

    def __init__(self, http: H, retries: int) -> None:
        self._http: H = http
        self._retries = retries

    @property
    def last_request_id(self) -> str:
        """The id of the newest request of this thread or task: the service's log has it too."""
        return _last_id.get()

    def _begin(self, call: Call[T]) -> Exchange[T]:
        request_id = secrets.token_hex(8)  # one a call: the tries of a call are found together in the log
        _last_id.set(request_id)
        request = self._http.build_request(
            call.method,
            f"{API}{call.path}",
            params=call.params,
            content=call.content,
            headers={"X-Request-ID": request_id},
            timeout=self._http.timeout if call.timeout is None else call.timeout,
        )
        return Exchange(call, request, self._retries)


class Client(_Base[httpx.Client]):
    """A client of a running service.

    It keeps connections open: use one for many calls (threads may share it), and close it, or use it in
    `with`.

    **When a call is repeated.** Up to `retries` times, after pauses that grow from 0.2 s and are drawn by
    chance, and no sooner than the service says in `Retry-After` (where that is more than 30 s, it is given
    up). A service without room (429, 503), or without a connection, has done nothing: every call is repeated.
    After a broken connection, or an answer that did not come in time, the service may have heard all the
    same: only calls that may be done twice are repeated, such as `get`, `predictions`, `quality`, outcomes,
    `explain` and `delete`. `predict` and `predict_batch` are not: a prediction that is asked for twice may be
    kept twice, under two ids. Whether to risk that is the caller's choice: catch `ServiceAway`, call again.

    Args:
        url: of the service; with or without `/api/v1`.
        key: of the service; by default `API_KEY` of the environment; none where empty.
        timeout: seconds that a connection may take, and the service be silent, at each try.
        retries: how often a call is repeated at most; 0 for never.
        connections: how many there are at once at most.
        transport: carries requests, for tests, proxies or certificates of one's own.

    Raises:
        ConfigurationError: a proxy or the certificates of the environment can't be used.
        RemoteError: the URL or the key can't be used. Every method raises it for a refusal of the service:
            with `status`, `title`, `detail`, `errors` field by field, and `request_id`; `ServiceAway` for a
            service that can't be reached, and `ServiceBusy`, a kind of that, for one that stays without room.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        connections: int = 20,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = _options(url, key, timeout, connections)
        super().__init__(http_client(httpx.Client, url, **options, transport=transport), retries)
        self._room = threading.BoundedSemaphore(connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Make any call of `kickserve_client.calls`; the other methods are made of this one."""
        exchange = self._begin(call)
        while True:
            pause: float | None
            try:
                with self._room:
                    response = self._http.send(exchange.request)
            except httpx.RequestError as error:
                pause = exchange.failed(error)
            else:
                pause = exchange.answered(response)
                if pause is None:
                    return exchange.read(response)
            time.sleep(pause)

    predict = _method(calls.predict)
    explain = _method(calls.explain)
    get = _method(calls.get)
    delete = _method(calls.delete)
    tell_outcome = _method(calls.tell_outcome)
    quality = _method(calls.quality)
    kicker = _method(calls.kicker)
    forget_kicker = _method(calls.forget_kicker)
    drift = _method(calls.drift)
    model = _method(calls.model)
    reload = _method(calls.reload)
    health = _method(calls.health)

    def predict_batch(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> Answers[Prediction]:
        """Predict many kicks; the answers come in their order: a list, whose `to_pandas` makes a DataFrame.

        They go in requests of `chunk`, each of which is answered whole or refused: where one is refused,
        the kicks of those before it are predicted and kept. `predict_stream` gives their answers.

        Args:
            kicks: any number; or a DataFrame of pandas or polars, whose columns are found by name.
            chunk: how many go together, up to 100,000.
        """
        return Answers(self.predict_stream(kicks, chunk=chunk), index_of(kicks))

    def predict_stream(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> Iterator[Prediction]:
        """Predict any number of kicks in memory that does not grow: `chunk` are taken, sent and answered."""
        for call in calls.predict_parts(kicks, chunk):
            yield from self.send(call)

    def predictions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kicker: str | None = None,
        page: int = _PAGE,
    ) -> Iterator[Record]:
        """Yield kept predictions, newest first, page by page as they are asked for.

        Args:
            since: only those made at this instant or later.
            until: only those made before this instant.
            kicker: only those with this label.
            page: how many come at a time, up to 10,000.
        """
        return self._pages(calls.page, {"limit": page, "since": since, "until": until, "kicker": kicker})

    def kickers(
        self, sort: str = SORTS[0], *, points: float = POINTS, page: int = _PAGE
    ) -> Iterator[KickerRow]:
        """Yield the kickers with known outcomes, page by page as they are asked for.

        Args:
            sort: one of `kickserve_scores.kickers.SORTS`; `kicker` rises, the others fall.
            points: of a kick: 3 for penalties, 2 for conversions.
            page: how many come at a time, up to 10,000.
        """
        return self._pages(calls.kickers_page, {"sort": sort, "limit": page, "points": points})

    def _pages(
        self, call: Callable[[Mapping[str, Any]], Call[Page[T]]], query: Mapping[str, Any] | None
    ) -> Iterator[T]:
        while query is not None:
            found = self.send(call(query))
            yield from found.records
            query = found.next

    def tell_outcomes(self, outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> OutcomesKept:
        """Set the outcomes of many kicks, by the ids of their predictions; the answer names unknown ids."""
        return _together([self.send(call) for call in calls.outcome_parts(outcomes)])


class AsyncClient(_Base[httpx.AsyncClient]):
    """The same as `Client`, for an event loop: each method is awaited, each iterator read with `async for`.

    Arguments and errors are those of `Client`, and so are repeated calls.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        connections: int = 20,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = _options(url, key, timeout, connections)
        super().__init__(http_client(httpx.AsyncClient, url, **options, transport=transport), retries)
        self._room = asyncio.BoundedSemaphore(connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Make any call of `kickserve_client.calls`."""
        exchange = self._begin(call)
        while True:
            pause: float | None
            try:
                async with self._room:
                    response = await self._http.send(exchange.request)
            except httpx.RequestError as error:
                pause = exchange.failed(error)
            else:
                pause = exchange.answered(response)
                if pause is None:
                    return exchange.read(response)
            await asyncio.sleep(pause)

    predict = _async_method(calls.predict)
    explain = _async_method(calls.explain)
    get = _async_method(calls.get)
    delete = _async_method(calls.delete)
    tell_outcome = _async_method(calls.tell_outcome)
    quality = _async_method(calls.quality)
    kicker = _async_method(calls.kicker)
    forget_kicker = _async_method(calls.forget_kicker)
    drift = _async_method(calls.drift)
    model = _async_method(calls.model)
    reload = _async_method(calls.reload)
    health = _async_method(calls.health)

    async def predict_batch(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> Answers[Prediction]:
        """Predict many kicks; see `Client.predict_batch`."""
        return Answers([each async for each in self.predict_stream(kicks, chunk=chunk)], index_of(kicks))

    async def predict_stream(
        self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER
    ) -> AsyncIterator[Prediction]:
        """Predict any number of kicks; see `Client.predict_stream`."""
        for call in calls.predict_parts(kicks, chunk):
            for prediction in await self.send(call):
                yield prediction

    def predictions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kicker: str | None = None,
        page: int = _PAGE,
    ) -> AsyncIterator[Record]:
        """Yield kept predictions, newest first; see `Client.predictions`."""
        return self._pages(calls.page, {"limit": page, "since": since, "until": until, "kicker": kicker})

    def kickers(
        self, sort: str = SORTS[0], *, points: float = POINTS, page: int = _PAGE
    ) -> AsyncIterator[KickerRow]:
        """Yield the kickers with known outcomes; see `Client.kickers`."""
        return self._pages(calls.kickers_page, {"sort": sort, "limit": page, "points": points})

    async def _pages(
        self, call: Callable[[Mapping[str, Any]], Call[Page[T]]], query: Mapping[str, Any] | None
    ) -> AsyncIterator[T]:
        while query is not None:
            found = await self.send(call(query))
            for each in found.records:
                yield each
            query = found.next

    async def tell_outcomes(self, outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> OutcomesKept:
        """Set the outcomes of many kicks; see `Client.tell_outcomes`."""
        return _together([await self.send(call) for call in calls.outcome_parts(outcomes)])


@asynccontextmanager
async def connected(url: str, settings: Settings) -> AsyncIterator[AsyncClient]:
    """Make the client of a command, with the key of the settings.

    Args:
        url: base URL of the service.
        settings: of the command.

    Raises:
        RemoteError: the URL can't be used, or another service is there.
        ServiceAway: no service is there. That is said at once; a service that goes away later is waited for.
    """
    await _knock(url, _COMMAND_TIMEOUT)
    key = settings.api_key or ""
    async with AsyncClient(url, key=key, timeout=_COMMAND_TIMEOUT, retries=_COMMAND_RETRIES) as client:
        yield client


async def running_url(settings: Settings, say: Callable[[str], None]) -> str | None:
    """Return the base URL of the service that the settings describe; None, with the reason, without one."""
    try:
        await _knock(settings.own_url, _KNOCK_TIMEOUT)
    except RemoteError as error:
        say(f"not through a service: {error}")
        return None
    return settings.own_url


async def _knock(url: str, patience: float) -> None:
    async with AsyncClient(url, key="", timeout=patience, retries=0) as client:
        await client.send(calls.live())


def _together(answers: list[OutcomesKept]) -> OutcomesKept:
    unknown = [each for answer in answers for each in answer.unknown]
    return OutcomesKept(kept=sum(answer.kept for answer in answers), unknown=unknown)


def _options(url: str, key: str | None, timeout: float, connections: int) -> dict[str, Any]:
    """Return the arguments of both of httpx's clients.

    Raises:
        RemoteError: URL or key can't be used.
    """
    key = os.environ.get("API_KEY", "") if key is None else key
    headers = {b"Content-Type": b"application/json", b"User-Agent": f"kickserve/{__version__}".encode()}
    if key:
        if not key.isprintable():  # checked here, because the library's own complaint shows the key
            raise RemoteError("the key can't be sent in a header: remove line breaks and control characters")
        headers[b"X-API-Key"] = key.strip().encode()
    return {
        "base_url": _base_url(url),
        "headers": headers,
        "timeout": timeout,
        "limits": httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    }


def _base_url(url: str) -> httpx.URL:
    if not url.startswith(("http://", "https://")):
        raise RemoteError(f"the URL {url!r} can't be used: it must start with http:// or https://")
    try:
        return httpx.URL(url.rstrip("/").removesuffix(API))
    except httpx.InvalidURL as error:
        raise RemoteError(f"the URL {url!r} can't be used: {error}") from error
