"""The client of a running service, for programs: `Client`, and `AsyncClient` for event loops.

What is sent and how answers are read stands in `calls`, when a call is made again in `exchange`; the two
classes only add the input and output, and a method a call.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import httpx

from kickserve import __version__
from kickserve.errors import RemoteError
from kickserve_client import calls
from kickserve_client.calls import TOGETHER
from kickserve_client.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from datetime import datetime

    from kickserve.schemas import (
        DriftSummary,
        Health,
        ModelCard,
        OutcomeOf,
        OutcomesKept,
        Prediction,
        Record,
    )
    from kickserve_client.calls import Call, KickLike
    from kickserve_scores.explain import Explanation
    from kickserve_scores.report import QualityReport

T = TypeVar("T")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)

DEFAULT_URL: Final = "http://127.0.0.1:7860"
API: Final = "/api/v1"
_PAGE: Final = 1_000
_last_id: ContextVar[str] = ContextVar("kickserve_request_id", default="")


class _Base(Generic[H]):
    """What both clients have.

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

    **What is asked again.** A call is repeated, up to `retries` times, after pauses that grow from 0.2 s and
    are drawn by chance, and no sooner than the service says in `Retry-After` (where that is more than 30 s,
    it is given up). Where the service has no room (429, 503), or no connection could be made, every call
    is: nothing was done. Where a connection broke or an answer did not come in time, the service may have
    heard all the same. Then only what may be done twice is repeated: `get`, `predictions`, `quality` and
    the like, outcomes, `explain`, and `delete`. `predict` and `predict_batch` are not: each keeps a
    prediction, so one that is asked twice may be kept twice, under two ids. Whether to risk that is for you
    to say: catch `ServiceAway`, and call again.

    Args:
        url: of the service; with or without `/api/v1`.
        key: of the service; that of the environment's `API_KEY` where not given, none where empty.
        timeout: seconds that a connection may take, and the service be silent, at each try.
        retries: how often a call is repeated at most; 0 for never.
        connections: how many there are at once at most.
        transport: what carries requests, for tests, proxies or certificates of one's own.

    Raises:
        RemoteError: the URL or the key can't be used. Every method raises it where the service refuses: with
            `status`, `title`, `detail`, `errors` field by field, and `request_id`; `ServiceAway` where
            the service can't be reached, and `ServiceBusy`, a kind of that, where it stays without room.
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
        super().__init__(httpx.Client(**options, transport=transport), retries)
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

    def predict(self, kick: KickLike | None = None, /, **features: float | bool) -> Prediction:
        """Predict a kick.

        Args:
            kick: a `Kick`, or its eleven features by name.
            features: the same as arguments; beside a kick they are put over its own.
        """
        return self.send(calls.predict(kick, features))

    def predict_batch(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> list[Prediction]:
        """Predict many kicks; the answers come in their order.

        They go in requests of `chunk`, each of which is answered whole or refused: where one is refused,
        the kicks of those before it are predicted and kept. `predict_stream` gives their answers.

        Args:
            kicks: any number.
            chunk: how many go together, up to 100,000.
        """
        return list(self.predict_stream(kicks, chunk=chunk))

    def predict_stream(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> Iterator[Prediction]:
        """Predict any number of kicks in memory that does not grow: `chunk` are taken, sent and answered."""
        for call in calls.predict_parts(kicks, chunk):
            yield from self.send(call)

    def explain(self, kick: KickLike | None = None, /, **features: float | bool) -> Explanation:
        """Say what drives the answer to a kick; nothing is kept. The arguments are those of `predict`."""
        return self.send(calls.explain(kick, features))

    def predictions(
        self, *, since: datetime | None = None, until: datetime | None = None, page: int = _PAGE
    ) -> Iterator[Record]:
        """Yield what is kept, newest first, page by page as it is asked for.

        Args:
            since: only what was predicted at this instant or later.
            until: only what was predicted before this instant.
            page: how many come at a time, up to 10,000.
        """
        query: Mapping[str, Any] | None = {"limit": page, "since": since, "until": until}
        while query is not None:
            found = self.send(calls.page(query))
            yield from found.records
            query = found.next

    def get(self, record_id: str) -> Record:
        """Return one prediction as it is kept; `RemoteError` with the status 404 where there is none."""
        return self.send(calls.get(record_id))

    def delete(self, record_id: str) -> None:
        """Remove one prediction for good; `RemoteError` with the status 404 where there is none."""
        self.send(calls.delete(record_id))

    def tell_outcome(self, record_id: str, *, success: bool) -> None:
        """Say what came of a kick. Told again, the newer word holds."""
        self.send(calls.outcome(record_id, success=success))

    def tell_outcomes(self, outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> OutcomesKept:
        """Say what came of many kicks, by the ids of their predictions; the answer names unknown ones."""
        return calls.together(map(self.send, calls.outcome_parts(outcomes)))

    def quality(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> QualityReport:
        """Say how good the predictions were whose outcome is known."""
        return self.send(calls.quality({"model": model, "since": since, "until": until}))

    def drift(self) -> DriftSummary:
        """Say how far the newest kicks have drifted; `RemoteError` with 409 where they are too few."""
        return self.send(calls.drift())

    def model(self) -> ModelCard:
        """Say what model is served."""
        return self.send(calls.model())

    def reload(self) -> ModelCard:
        """Have the model loaded anew; `RemoteError` with 409 where it can't be used."""
        return self.send(calls.reload())

    def health(self) -> Health:
        """Say in one word how the service is, and of its parts."""
        return self.send(calls.health())


class AsyncClient(_Base[httpx.AsyncClient]):
    """The same as `Client`, for an event loop: each method is awaited, each iterator read with `async for`.

    Arguments and errors are those of `Client`, and so is what is asked again.
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
        super().__init__(httpx.AsyncClient(**options, transport=transport), retries)
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

    async def predict(self, kick: KickLike | None = None, /, **features: float | bool) -> Prediction:
        """Predict a kick; see `Client.predict`."""
        return await self.send(calls.predict(kick, features))

    async def predict_batch(self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER) -> list[Prediction]:
        """Predict many kicks; see `Client.predict_batch`."""
        return [each async for each in self.predict_stream(kicks, chunk=chunk)]

    async def predict_stream(
        self, kicks: Iterable[KickLike], *, chunk: int = TOGETHER
    ) -> AsyncIterator[Prediction]:
        """Predict any number of kicks; see `Client.predict_stream`."""
        for call in calls.predict_parts(kicks, chunk):
            for prediction in await self.send(call):
                yield prediction

    async def explain(self, kick: KickLike | None = None, /, **features: float | bool) -> Explanation:
        """Say what drives the answer to a kick; see `Client.explain`."""
        return await self.send(calls.explain(kick, features))

    async def predictions(
        self, *, since: datetime | None = None, until: datetime | None = None, page: int = _PAGE
    ) -> AsyncIterator[Record]:
        """Yield what is kept, newest first; see `Client.predictions`."""
        query: Mapping[str, Any] | None = {"limit": page, "since": since, "until": until}
        while query is not None:
            found = await self.send(calls.page(query))
            for record in found.records:
                yield record
            query = found.next

    async def get(self, record_id: str) -> Record:
        """Return one prediction as it is kept; see `Client.get`."""
        return await self.send(calls.get(record_id))

    async def delete(self, record_id: str) -> None:
        """Remove one prediction for good; see `Client.delete`."""
        await self.send(calls.delete(record_id))

    async def tell_outcome(self, record_id: str, *, success: bool) -> None:
        """Say what came of a kick; see `Client.tell_outcome`."""
        await self.send(calls.outcome(record_id, success=success))

    async def tell_outcomes(self, outcomes: Mapping[str, bool] | Iterable[OutcomeOf]) -> OutcomesKept:
        """Say what came of many kicks; see `Client.tell_outcomes`."""
        return calls.together([await self.send(call) for call in calls.outcome_parts(outcomes)])

    async def quality(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> QualityReport:
        """Say how good the predictions were whose outcome is known."""
        return await self.send(calls.quality({"model": model, "since": since, "until": until}))

    async def drift(self) -> DriftSummary:
        """Say how far the newest kicks have drifted; see `Client.drift`."""
        return await self.send(calls.drift())

    async def model(self) -> ModelCard:
        """Say what model is served."""
        return await self.send(calls.model())

    async def reload(self) -> ModelCard:
        """Have the model loaded anew; see `Client.reload`."""
        return await self.send(calls.reload())

    async def health(self) -> Health:
        """Say in one word how the service is, and of its parts."""
        return await self.send(calls.health())


def _options(url: str, key: str | None, timeout: float, connections: int) -> dict[str, Any]:
    """Return what both of httpx's clients are made with.

    Raises:
        RemoteError: URL or key can't be used.
    """
    key = os.environ.get("API_KEY", "") if key is None else key
    headers = {b"Content-Type": b"application/json", b"User-Agent": f"kickserve/{__version__}".encode()}
    if key:
        headers[b"X-API-Key"] = _checked(key)
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


def _checked(key: str) -> bytes:
    # Here, because the library's own complaint shows the key.
    if not key.isprintable():
        raise RemoteError("the key can't be sent: it holds a line break or the like")
    return key.strip().encode()
