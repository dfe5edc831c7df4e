"""NiceGUI's application: its pages by path, and the calls beside them. To import it takes a second."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from nicegui import Client, app, ui
from starlette.middleware.gzip import GZipMiddleware

from kickserve.plugins import (
    SANDBOX,
    Scope,
    TooManyRequests,
    Unauthorized,
    drift_reports,
    identity,
    newest_drift,
    nonce_of,
    with_nonce,
)
from kickserve_ui.app_page import NO_STORE, SEE_OTHER, static_file
from kickserve_ui.backend import Backend, current_backend, serving
from kickserve_ui.calls import add_calls
from kickserve_ui.history_page import download, records, show_history
from kickserve_ui.kickers_page import add_kicker_calls, show_kickers
from kickserve_ui.layout import COOKIE, open_page, show_sign_in
from kickserve_ui.match_page import add_match
from kickserve_ui.messages import messages_for
from kickserve_ui.model_page import show_model, with_summary
from kickserve_ui.pitch_page import show_comparison, show_pitch
from kickserve_ui.rendering import PATH, notice_page, static
from kickserve_ui.sessions import LIFETIME
from kickserve_ui.sharing import add_sharing, tags_of
from kickserve_ui.visits import PageLimit, drop_unopened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from litestar.types import ASGIApp, Receive, Send

    from kickserve.plugins import App, SecurityHeaders
    from kickserve_ui.layout import Visitor

_FAULTS: Final = frozenset({"wrong_key", "wrong_keys"})
_PAGES: Final = frozenset({"", "/match", "/kickers", "/history", "/model", "/compare"})
_RECONNECT: Final = 10.0  # seconds in which a page that lost its connection finds the same state again
_COMPRESSION: Final = 5  # of 9, the default, which takes three times as long and gains two percent
_POLICY: Final = b"content-security-policy"
_LENGTH: Final = b"content-length"


@asynccontextmanager
async def running(service: App) -> AsyncIterator[ASGIApp]:
    """Run the pages of an application until the block ends.

    Raises:
        ConfigurationError: another application of this process has the pages.
    """
    fast = _fastapi()
    served: Any = _with_policy(PageLimit(fast), service.security_headers)
    served = GZipMiddleware(served, compresslevel=_COMPRESSION)
    with serving(Backend(service)):
        async with fast.router.lifespan_context(fast):
            # A collection that walked over NiceGUI would take 50 ms. The server freezes its own modules, too;
            # where it has not (in tests), nothing is frozen.
            if gc.get_freeze_count():
                gc.freeze()
            drop_unopened()
            yield served


@cache
def _fastapi() -> FastAPI:
    """Make the FastAPI application around NiceGUI's: once a process, because NiceGUI is global to it."""
    ui.add_head_html(f"<style>{static('style.css')}</style>", shared=True)
    ui.page("/")(_pitch)
    ui.page("/kickers")(_kickers)
    ui.page("/history")(_history)
    ui.page("/model")(_model)
    ui.page("/compare")(_compare)
    ui.page("/sign-in")(_sign_in_page)
    app.get("/static/{digest}/{name}", response_model=None)(static_file)
    add_calls(app)
    add_match(app)
    add_sharing(app)
    add_kicker_calls(app)
    app.get("/records", response_model=None)(records)
    app.get("/history.csv", response_model=None)(download)
    app.on_delete(lambda: current_backend().collect_soon())
    app.post("/sign-in", response_model=None)(_sign_in)
    app.post("/sign-out", response_model=None)(_sign_out)
    app.get("/report", response_model=None)(_report)
    app.add_exception_handler(404, _missing)
    fast = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        fast,
        title="kickserve",
        favicon=static("favicon.svg").strip(),
        language="en-GB",
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,  # nothing is bound to values that change by themselves
        reconnect_timeout=_RECONNECT,
        show_welcome_message=False,
        gzip_middleware_factory=None,  # `running` compresses, after scripts have got their nonce
    )
    return fast


def _with_policy(served: Any, security_headers: SecurityHeaders) -> Any:
    """Give pages a Content-Security-Policy by which only scripts with their nonce run.

    NiceGUI writes scripts into its pages, and compiles templates in the browser, which needs `unsafe-eval`.
    Texts of visitors are escaped in them. Pages come here uncompressed.
    """

    async def serve(scope: Any, receive: Receive, send: Send) -> None:
        start: Any = None  # of a page, held back until the body is whole: the page's length changes
        body = b""

        async def send_page(message: Any) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _wants_policy(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    nonce = nonce_of(scope)
                    page = with_nonce(body, nonce)
                    headers = [each for each in start["headers"] if each[0] != _LENGTH]
                    headers.append((_LENGTH, b"%d" % len(page)))
                    headers.append((_POLICY, security_headers.policy(nonce, evaluates=True).encode()))
                    start["headers"] = headers
                    await send(start)
                    await send({"type": "http.response.body", "body": page, "more_body": False})

        await served(scope, receive, send_page if scope["type"] == "http" else send)

    return serve


def _wants_policy(start: Any) -> bool:
    headers = dict(start["headers"])
    return headers.get(b"content-type", b"").startswith(b"text/html") and _POLICY not in headers


async def _pitch(client: Client, request: Request) -> None:
    visitor = open_page(client, request, "title_pitch", "")
    ui.add_head_html(await tags_of(request))
    show_pitch(visitor)


async def _kickers(client: Client, request: Request) -> None:
    show_kickers(open_page(client, request, "title_kickers", "/kickers"))


async def _history(client: Client, request: Request) -> None:
    _show_to_readers(open_page(client, request, "title_history", "/history"), "/history", show_history)


async def _model(client: Client, request: Request) -> None:
    _show_to_readers(open_page(client, request, "title_model", "/model"), "/model", show_model)


async def _compare(client: Client, request: Request) -> None:
    _show_to_readers(open_page(client, request, "title_compare", "/compare"), "/compare", show_comparison)


def _show_to_readers(visitor: Visitor, page: str, show: Callable[[Visitor], None]) -> None:
    if visitor.may(Scope.READ):
        show(visitor)
    else:
        show_sign_in(visitor.messages, page, "weak_key" if visitor.signed_in else "")


async def _sign_in_page(client: Client, request: Request, to: str = "", fault: str = "") -> None:
    visitor = open_page(client, request, "sign_in", "/sign-in")
    show_sign_in(visitor.messages, to, fault if fault in _FAULTS else "")


async def _sign_in(request: Request, key: Annotated[str, Form()], to: str = "") -> Response:
    page = to if to in _PAGES else ""
    backend = current_backend()
    address = identity(request.client.host) if request.client else b""
    try:
        cookie = backend.sessions.sign_in(key, address, request.cookies.get(COOKIE, ""))
    except Unauthorized:
        return RedirectResponse(f"{PATH}/sign-in?fault=wrong_key&to={page}", SEE_OTHER)
    except TooManyRequests:
        return RedirectResponse(f"{PATH}/sign-in?fault=wrong_keys&to={page}", SEE_OTHER)
    response = RedirectResponse(f"{PATH}{page}", SEE_OTHER)
    secure = request.url.scheme == "https"
    framed = secure and backend.app.security_headers.framed  # by a page of another site
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=LIFETIME,
        path=PATH,
        secure=secure,
        httponly=True,
        samesite="none" if framed else "lax",
    )
    return response


async def _sign_out(request: Request) -> Response:
    """End the session in the service, and load all its open pages anew."""
    cookie = request.cookies.get(COOKIE, "")
    current_backend().sessions.sign_out(cookie)
    for client in Client.instances.values():
        if cookie and client.storage.get(COOKIE) == cookie:
            client.run_javascript("location.reload()")
    response = RedirectResponse(PATH, SEE_OTHER)
    response.delete_cookie(COOKIE, path=PATH)
    return response


def _may_read(request: Request) -> bool:
    return current_backend().sessions.may(request.cookies.get(COOKIE, ""), Scope.READ)


async def _missing(request: Request, _: Exception) -> Response:
    messages = messages_for(request)
    return HTMLResponse(notice_page(messages, messages("missing_title"), messages("missing_text")), 404)


async def _report(request: Request) -> Response:
    """Return the newest full drift report: the API's own link needs the key in a header."""
    if not _may_read(request):
        return RedirectResponse(f"{PATH}/sign-in?to=/model", SEE_OTHER)
    service = current_backend().app
    summary, folder = newest_drift(service), drift_reports(service)
    if summary is None or summary.report is None or folder is None:
        return RedirectResponse(f"{PATH}/model", SEE_OTHER)
    file, messages = folder / PurePosixPath(summary.report).name, messages_for(request)
    headers = {"Content-Security-Policy": SANDBOX, **NO_STORE}
    if messages.language == "en":
        return FileResponse(file, media_type="text/html", headers=headers)
    parts = await asyncio.to_thread(lambda: (file.read_bytes(), file.with_suffix(".json").read_bytes()))
    return HTMLResponse(with_summary(messages, *parts), headers=headers)
