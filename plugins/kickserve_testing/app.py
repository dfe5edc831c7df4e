"""An application for tests: it runs in the event loop of a test, and an HTTP client speaks to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kickserve.middleware import App


@asynccontextmanager
async def running(app: App) -> AsyncIterator[None]:
    """Run the lifespan of an application until the block ends.

    It runs in a task of its own: a lifespan must end in the task in which it began, and a fixture may not.

    Raises:
        KickserveError: the application could not start.
    """
    started, ended = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        try:
            async with app.lifespan():
                started.set()
                await ended.wait()
        finally:
            started.set()

    task = asyncio.create_task(run())
    await started.wait()
    if task.done():
        await task
    try:
        yield
    finally:
        ended.set()
        await task


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application, and yield a client whose paths begin below /api/v1: `client.get("/model")`.

    Its header `Host` names this machine, whatever a URL says: without a key, a service refuses other names.
    A bug in the application is an answer with status 500, as a client of a server would see it.
    """
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
        base_url="http://localhost/api/v1",
        headers={"Host": "localhost"},
    )
    async with running(app), client:
        yield client
