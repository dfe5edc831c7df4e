"""Puts NiceGUI's application inside the service: below `/ui`, and only there.

NiceGUI is global to its process and wants a FastAPI application with a lifespan of its own, which Litestar
does not run for what is mounted. It is begun when somebody first asks for the page (`application`).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from litestar import MediaType, Request, Response, asgi, get
from litestar.exceptions import NotFoundException

from kickserve.background import end
from kickserve_ui import PATH
from kickserve_ui.plain import plain
from kickserve_ui.secret import kept_secret
from kickserve_ui.site import Site, serving
from kickserve_ui.words import language_of, words_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from kickserve.settings import Settings

_QUIET: Final = 0.5  # seconds after the start before NiceGUI is imported: what was waited for comes first
_UNAVAILABLE: Final = 503
# Nothing comes from anywhere else. NiceGUI compiles templates in the browser, which needs `unsafe-eval`.
_HEADERS: Final = (
    (
        b"content-security-policy",
        b"; ".join(
            (
                b"default-src 'self'",
                b"script-src 'self' 'unsafe-inline' 'unsafe-eval'",
                b"style-src 'self' 'unsafe-inline'",
                b"img-src 'self' data:",
                b"font-src 'self' data:",
                b"frame-ancestors 'self'",
                b"form-action 'self'",
                b"base-uri 'self'",
            )
        ),
    ),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)


def mount(app_config: AppConfig, settings: Settings) -> None:
    """Add the page to an application that is being made."""
    site = _Site(settings)
    app_config.route_handlers.append(site.handler())
    app_config.lifespan.append(site.lifespan)


def apology(workers: int) -> HTTPRouteHandler:
    """Return what answers in the page's place where there are several workers."""

    @get([PATH, f"{PATH}/{{rest:path}}"], include_in_schema=False, media_type=MediaType.HTML)
    async def several_workers(request: Request[Any, Any, Any]) -> Response[str]:
        words = words_in(language_of("", request.headers.get("accept-language", "")))
        text = words("workers_text", workers=workers)
        return Response(plain(words, words("workers_title"), text), status_code=_UNAVAILABLE)

    return several_workers


class _Site:
    """The page of one application.

    Args:
        settings: the key and the folder of the secret stand there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starting = asyncio.Lock()
        self._app: ASGIApp | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    @asynccontextmanager
    async def lifespan(self, app: Litestar) -> AsyncIterator[None]:
        """End what was begun, when the application ends."""
        self._service = app.state.service
        warming = asyncio.create_task(self._warm_up(), name="page-import")
        try:
            yield
        finally:
            self._end.set()
            await end(warming)
            if self._task is not None:
                await self._task

    async def _warm_up(self) -> None:
        """Import NiceGUI, which takes a second, when the service is up and before the first visitor comes."""
        await asyncio.sleep(_QUIET)
        await self._module()

    async def _module(self) -> Any:
        return await asyncio.to_thread(import_module, "kickserve_ui.application")

    def handler(self) -> ASGIRouteHandler:
        """Return what serves everything below the page's path."""

        @asgi(PATH, is_mount=True, copy_scope=True)
        async def page(scope: Scope, receive: Receive, send: Send) -> None:
            path = unquote(scope.get("raw_path", b"").decode("latin-1").partition("?")[0])
            if path != PATH and not path.startswith(f"{PATH}/"):  # a mount takes /uikit too
                raise NotFoundException
            scope["root_path"], scope["path"] = PATH, path
            await (await self._started())(scope, receive, _with_headers(send))

        return page

    async def _started(self) -> ASGIApp:
        async with self._starting:
            if self._app is None:
                up: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
                # A task of its own: a lifespan must end in the task in which it began.
                self._task = asyncio.create_task(self._run(up), name="page")
                self._app = await up
            return self._app

    async def _run(self, up: asyncio.Future[ASGIApp]) -> None:
        try:
            secret = await asyncio.to_thread(kept_secret, self._settings.journal_dir)
            made = await self._module()
            fast, signed = made.application(secret)
            with serving(Site(self._service, self._settings.api_key, secret, self._settings.reports)):
                async with fast.router.lifespan_context(fast):
                    up.set_result(signed)
                    await self._end.wait()
        except Exception as error:
            if up.done():
                raise
            up.set_exception(error)


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    def sending(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        return send(message)

    return sending
