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

from kickserve.batching import cancel_task
from kickserve.errors import Forbidden
from kickserve.middleware import SAFE
from kickserve_ui import PATH
from kickserve_ui.leftovers import set_apart
from kickserve_ui.plain import plain
from kickserve_ui.secret import kept_secret
from kickserve_ui.site import Site, serving
from kickserve_ui.words import language_of, words_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.config.app import AppConfig
    from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
    from litestar.types import ASGIApp, Receive, Scope, Send

    from kickserve.settings import Settings

_QUIET: Final = 0.5  # seconds after the start before NiceGUI is imported: what was waited for comes first
_UNAVAILABLE: Final = 503
# Where the pages' connections begin, by websocket or not.
_CONNECTIONS: Final = f"{PATH}/_nicegui_ws/"


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
        settings: the folders of the secret and of the reports stand there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starting = asyncio.Lock()
        self._app: ASGIApp | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = asyncio.Event()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """End what was begun, when the application ends."""
        self._service, self._gate, self._shield = app.state.service, app.authenticator, app.security_headers
        warming = asyncio.create_task(self._warm_up(), name="page-import")
        try:
            yield
        finally:
            self._end.set()
            await cancel_task(warming)
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
            if self._is_foreign(scope, path):
                raise Forbidden("a page of another origin asks: the page at /ui answers its own alone")
            scope["root_path"], scope["path"] = PATH, path
            await (await self._started())(scope, receive, send)

        return page

    def _is_foreign(self, scope: Any, path: str) -> bool:
        """Say whether a page of another origin wants to change something, or to take part in a connection."""
        asks = scope["type"] == "http" and (scope["method"] not in SAFE or path.startswith(_CONNECTIONS))
        return asks and not self._shield.is_same_origin(dict(scope["headers"]))

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
            fast, signed = made.application(secret, self._shield)
            with serving(Site(self._service, self._gate, secret, self._settings.reports)):
                async with fast.router.lifespan_context(fast):
                    set_apart()
                    up.set_result(signed)
                    await self._end.wait()
        except Exception as error:
            if up.done():
                raise
            up.set_exception(error)
