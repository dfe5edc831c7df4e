"""The running service that a command works with: the one at `--url`, or that which the settings describe."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from kickserve.errors import RemoteError
from kickserve_client import calls
from kickserve_client.client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kickserve.settings import Settings

_TIMEOUT: Final = 60.0
_KNOCK: Final = 2.0  # seconds that a service gets to say that it is there
_RETRIES: Final = 7  # a command has time, and its work half done is worth waiting for


@asynccontextmanager
async def connected(url: str, settings: Settings) -> AsyncIterator[AsyncClient]:
    """Make a client for a service, with the key of the settings.

    Args:
        url: base URL of the service.
        settings: the key stands there.

    Raises:
        RemoteError: the URL can't be used, or another service is there.
        ServiceAway: nobody is there. That is said at once; later on, a service that is away is waited for.
    """
    await _knock(url, _TIMEOUT)
    async with AsyncClient(url, key=settings.api_key or "", timeout=_TIMEOUT, retries=_RETRIES) as client:
        yield client


async def running(settings: Settings) -> str | None:
    """Return the base URL of the service that these settings describe, if it answers; else None."""
    url = settings.own_url
    try:
        await _knock(url, _KNOCK)
    except RemoteError:
        return None  # nobody is there, or somebody else
    return url


async def _knock(url: str, patience: float) -> None:
    async with AsyncClient(url, key="", timeout=patience, retries=0) as client:
        await client.send(calls.live())
