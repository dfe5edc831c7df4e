"""The plugin `ui`: a pitch in the browser with the probability at every spot, at `/ui`.

NiceGUI is global to its process and wants a FastAPI application with a lifespan of its own, which Litestar
does not run for a mounted application. It is imported and started with the first request for a page.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from litestar import MediaType, Request, Response, asgi, get
from litestar.exceptions import NotFoundException

from kickserve.plugins import NO_KEY, SAFE, ConfigurationError, Forbidden, Plugin, cancel_task, identity
from kickserve_ui.messages import messages_for
from kickserve_ui.rendering import PATH, ROOT, notice_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from click import Group
    from litestar.config.app import AppConfig
    from litestar.handlers import HTTPRouteHandler
    from litestar.types import ASGIApp, Receive, Send

    from kickserve.plugins import App, Settings

__all__ = ["UIPlugin", "create_plugin"]

_OWN: Final = f"{PATH}/_nicegui"  # how the paths of NiceGUI's files and connections begin
_CONNECTIONS: Final = f"{PATH}/_nicegui_ws/"  # paths of the pages' connections, by websocket or polling
_AGAIN: Final = b'<meta http-equiv="refresh" content="0">'  # loads the page anew, wherever it stands

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> UIPlugin:
    """Make the plugin: the entry point names this function."""
    return UIPlugin(settings)


class UIPlugin(Plugin):
    """Brings the pages, and the command that opens them.

    Most of its modules are imported when somebody opens the page: nothing else needs their 50 MB.
    """

    _pages: _Pages | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Mount the pages, and redirect `/` to them.

        With several workers a notice takes their place: a browser's next request would reach another
        process, without the page.
        """
        if self.settings.workers > 1:
            _log.info("the page at %s needs a single worker: a notice there explains it", PATH)
            app_config.route_handlers.append(_single_worker_notice(self.settings.workers))
            return app_config
        self._pages = pages = _Pages()
        app_config.route_handlers.append(asgi(PATH, is_mount=True, copy_scope=True)(pages.serve))
        app_config.lifespan.append(pages.lifespan)
        app_config.state.setdefault("home", PATH)  # another plugin may have set one
        return app_config

    def health(self) -> Mapping[str, str]:
        """Return why there are no pages, where they could not be loaded."""
        return {"page": self._pages.trouble} if self._pages and self._pages.trouble else {}

    def on_cli_init(self, cli: Group) -> None:
        """Add `kickserve ui`."""
        from kickserve_ui.command import command

        cli.add_command(command)


class _Pages:
    """NiceGUI's application within one application of the service.

    Attributes:
        trouble: why it can't be loaded; empty before it is loaded, and where it was.
    """

    trouble = ""

    @asynccontextmanager
    async def lifespan(self, service: Any) -> AsyncIterator[None]:
        """Load and start NiceGUI when asked for, and stop it with the application."""
        self._service: App = service
        self._requested = asyncio.Event()
        self._app: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
        # In a task of its own: a lifespan must end in the task in which it began.
        task = asyncio.create_task(self._run(), name="page")
        try:
            yield
        finally:
            await cancel_task(task)

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve a request or websocket below the mount (ASGI)."""
        path = unquote(scope.get("raw_path", b"").decode("latin-1").partition("?")[0])
        if path != PATH and not path.startswith(f"{PATH}/"):  # a mount takes /uikit too
            raise NotFoundException
        changes = scope["type"] == "http" and (scope["method"] not in SAFE or path.startswith(_CONNECTIONS))
        if changes and not self._service.security_headers.is_same_origin(dict(scope["headers"])):
            raise Forbidden(
                "the request comes from a page of another origin: /ui answers only its own pages. Behind"
                " a proxy, pass the header Host on, or name the proxy in KICKSERVE_TRUSTED_PROXIES"
            )
        if not path.startswith(_OWN):
            self._charge(scope)
        root = scope.get("root_path", "")  # the path under which a proxy serves
        scope["root_path"], scope["path"] = f"{root}{PATH}", f"{root}{path}"
        ROOT.set(scope["root_path"])
        if not self._app.done() and _opens_page(scope):
            await self._announce(scope, send)
            return
        self._requested.set()
        app = await asyncio.shield(self._app)
        await app(scope, receive, send)

    async def _announce(self, scope: Any, send: Send) -> None:
        """Answer at once with a page that says that the page is coming, and bring that when it is there."""
        request = Request[Any, Any, Any](scope)
        messages = messages_for(request)
        page = notice_page(messages, messages("coming_title"), messages("coming_text"))
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx passes on what there is
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page.encode(), "more_body": True})
        self._requested.set()  # now: the import takes most of the processor
        await asyncio.wait([self._app])
        await send({"type": "http.response.body", "body": _AGAIN, "more_body": False})

    def _charge(self, scope: Any) -> None:
        """Count a request against the limit of its address.

        Raises:
            TooManyRequests: the limit is used up.
        """
        client = scope.get("client")
        authenticator = self._service.authenticator
        principal = authenticator.principal(NO_KEY, identity(client[0]) if client else b"")
        scope["state"]["principal"] = principal
        authenticator.enter(principal)

    async def _run(self) -> None:
        await self._requested.wait()
        try:
            module = await asyncio.to_thread(import_module, "kickserve_ui.application")
            async with module.running(self._service) as app:
                self._app.set_result(app)
                with suppress(asyncio.CancelledError):  # so that NiceGUI's own lifespan ends in order
                    await asyncio.Event().wait()
        except Exception as error:
            if self._app.done():
                raise
            self.trouble = f"can't be loaded ({type(error).__name__}: {error}); the API is not affected"
            _log.exception("the page %s", self.trouble)
            self._app.set_exception(ConfigurationError(f"the page {self.trouble}"))


def _opens_page(scope: Any) -> bool:
    """Return whether a browser opens something to show (ASGI).

    Robots of chats, which name no language, wait instead: they want the tags of the page itself.
    """
    headers = dict(scope["headers"])
    wants_page = b"text/html" in headers.get(b"accept", b"") and b"accept-language" in headers
    return scope["type"] == "http" and scope["method"] == "GET" and wants_page


def _single_worker_notice(workers: int) -> HTTPRouteHandler:
    """Return a page that explains why several workers serve no pages."""

    @get([PATH, f"{PATH}/{{rest:path}}"], include_in_schema=False, media_type=MediaType.HTML)
    async def several_workers(request: Request[Any, Any, Any]) -> Response[str]:
        messages = messages_for(request)
        text = messages("workers_text", workers=workers)
        return Response(notice_page(messages, messages("workers_title"), text), status_code=503)

    return several_workers
