"""Talks to a running service, for the commands that take `--url`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

from kickserve.errors import RemoteError, ServiceAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kickserve.settings import Settings

_TIMEOUT: Final = 60.0
_KNOCK: Final = 2.0  # seconds that a service gets to say that it is there
_TRIES: Final = 8
_PATIENCE: Final = 30.0  # no longer than this is waited between tries, whatever the service says
_BUSY: Final = frozenset({429, 503})

_encode = msgspec.json.Encoder().encode


class Client:
    """The API of a running service.

    Args:
        http: for its base URL, with its key.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, method: str, path: str, content: Any = None) -> bytes:
        """Call the API; a service that is busy, or has heard enough of this client, is waited for.

        Args:
            method: as `POST`.
            path: below `/api/v1`.
            content: what to send as JSON; None sends nothing.

        Raises:
            ServiceAway: it can't be reached.
            RemoteError: it refuses.
        """
        body = b"" if content is None else _encode(content)
        for attempt in range(1, _TRIES + 1):
            response = await self._request(method, path, body)
            if response.is_success:
                return response.content
            if response.status_code not in _BUSY or attempt == _TRIES:
                break
            await asyncio.sleep(_retry_after(response))
        raise RemoteError(_said(response))

    async def _request(self, method: str, path: str, body: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        try:
            return await self._http.request(method, f"/api/v1{path}", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceAway(
                f"no service answers at {self._http.base_url} ({type(error).__name__}: {error}):"
                " start one with `kickserve serve`, or leave --url out to work in this process"
            ) from error


@asynccontextmanager
async def connected(url: str, settings: Settings, *, patience: float = _TIMEOUT) -> AsyncIterator[Client]:
    """Make a client for a service, with the key of the settings.

    Args:
        url: base URL of the service.
        settings: the key stands there.
        patience: seconds that an answer may take.

    Raises:
        RemoteError: the URL can't be used.
    """
    if not url.startswith(("http://", "https://")):
        raise RemoteError(f"--url {url!r} can't be used: it must start with http:// or https://")
    headers = {} if settings.api_key is None else {"X-API-Key": settings.api_key}
    try:
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=patience)
    except httpx.InvalidURL as error:
        raise RemoteError(f"--url {url!r} can't be used: {error}") from error
    async with http:
        yield Client(http)


async def running(settings: Settings) -> str | None:
    """Return the base URL of the service that these settings describe, if it answers; else None."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", ""} else settings.host  # noqa: S104  it is asked, not opened
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{settings.port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_KNOCK) as http:
            response = await http.get("/api/v1/health/live")
        return url if msgspec.json.decode(response.content)["status"] == "live" else None
    except (httpx.HTTPError, msgspec.DecodeError, KeyError, TypeError):
        return None  # nobody is there, or somebody else


def _said(response: httpx.Response) -> str:
    try:
        detail = msgspec.json.decode(response.content)["detail"]
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = "with something that is no answer of kickserve; is the URL right?"
    return f"{response.url} answered {response.status_code}: {detail}"


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(float(response.headers.get("retry-after", "1")), _PATIENCE)
    except ValueError:
        return 1.0
