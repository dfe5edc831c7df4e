"""Mounts NiceGUI's application inside the service at `/ui`, or a notice in its place.

NiceGUI is global to its process and wants a FastAPI application with a lifespan of its own, which Litestar
does not run for a mounted application. It starts with the first request for a page.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from litestar import MediaType, Request, Response, asgi, get
from litestar.exceptions import NotFoundException

from kickserve.plugins import SAFE, Forbidden, cancel_task
from kickserve_ui.messages import language_of, messages_in
from kickserve_ui.rendering import PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.config.app import AppConfig
    from litestar.handlers import HTTPRouteHandler
    from litestar.types import ASGIApp, Receive, Send

    from kickserve.plugins import App

_IMPORT_AFTER: Final = 0.5  # seconds after the start: importing NiceGUI takes one, and others come first
_UNAVAILABLE: Final = 503
_CONNECTIONS: Final = f"{PATH}/_nicegui_ws/"  # paths of the pages' connections, by websocket or polling


def mount(app_config: AppConfig) -> None:
    """Add the pages to an application that is being made."""
    pages = _Pages()

    @asgi(PATH, is_mount=True, copy_scope=True)
    async def page(scope: Any, receive: Receive, send: Send) -> None:
        path = unquote(scope.get("raw_path", b"").decode("latin-1").partition("?")[0])
        if path != PATH and not path.startswith(f"{PATH}/"):  # a mount takes /uikit too
            raise NotFoundException
        changes = scope["type"] == "http" and (scope["method"] not in SAFE or path.startswith(_CONNECTIONS))
        if changes and not pages.is_same_origin(scope):
            raise Forbidden(
                "the request comes from a page of another origin: the page at /ui answers only its own origin"
            )
        scope["root_path"], scope["path"] = PATH, path
        await (await pages.started())(scope, receive, send)

    app_config.route_handlers.append(page)
    app_config.lifespan.append(pages.lifespan)


class _Pages:
    """NiceGUI's application within one application of the service."""

    @asynccontextmanager
    async def lifespan(self, service: Any) -> AsyncIterator[None]:
        """Start NiceGUI when asked for, and stop it with the application."""
        self._service: App = service
        self._requested = asyncio.Event()
        self._app: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
        # In a task of its own: a lifespan must end in the task in which it began.
        task = asyncio.create_task(self._run(), name="page")
        try:
            yield
        finally:
            await cancel_task(task)

    def is_same_origin(self, scope: Any) -> bool:
        """Say whether a request comes from no page of another origin."""
        return self._service.security_headers.is_same_origin(dict(scope["headers"]))

    async def started(self) -> ASGIApp:
        """Return the application, once it has started."""
        self._requested.set()
        return await asyncio.shield(self._app)

    async def _run(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_IMPORT_AFTER):
                await self._requested.wait()
        module = await asyncio.to_thread(import_module, "kickserve_ui.application")
        await self._requested.wait()
        try:
            async with module.running(self._service) as app:
                self._app.set_result(app)
                with suppress(asyncio.CancelledError):  # so that NiceGUI's own lifespan ends in order
                    await asyncio.Event().wait()
        except Exception as error:
            if self._app.done():
                raise
            self._app.set_exception(error)


def single_worker_notice(workers: int) -> HTTPRouteHandler:
    """Return a page that explains why several workers serve no pages."""

    @get([PATH, f"{PATH}/{{rest:path}}"], include_in_schema=False, media_type=MediaType.HTML)
    async def several_workers(request: Request[Any, Any, Any]) -> Response[str]:
        from kickserve_ui.rendering import notice_page

        messages = messages_in(language_of("", request.headers.get("accept-language", "")))
        text = messages("workers_text", workers=workers)
        page = notice_page(messages, messages("workers_title"), text)
        return Response(page, status_code=_UNAVAILABLE)

    return several_workers
