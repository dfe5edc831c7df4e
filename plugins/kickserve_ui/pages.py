"""The pages by their path, and what is no page: signing in and out, the download."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Final

from fastapi import Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, StreamingResponse
from nicegui import Client, app, ui

from kickserve.errors import StoreError, TooManyRequests, Unauthorized
from kickserve.middleware import SANDBOX
from kickserve.plugins import Scope
from kickserve_ui import PATH
from kickserve_ui.download import csv_lines
from kickserve_ui.frame import Visit, sign_in, visit, words_for
from kickserve_ui.history import History
from kickserve_ui.history_filter import Filter
from kickserve_ui.model_page import ModelPage
from kickserve_ui.pitch_page import PitchPage
from kickserve_ui.plain import plain
from kickserve_ui.site import current

_SEE_OTHER: Final = 303
_UNAVAILABLE: Final = 503
_FAULTS: Final = frozenset({"wrong_key", "wrong_keys"})
# What is kept is not to be kept by anybody on the way.
_NO_STORE: Final = {"Cache-Control": "no-store"}
_ROOMS: Final = frozenset({"", "/history", "/model"})


def register() -> None:
    """Tell NiceGUI the pages: once a process."""
    ui.page("/")(_pitch)
    ui.page("/history")(_history)
    ui.page("/model")(_model)
    ui.page("/sign-in")(_sign_in_page)
    app.on_delete(_left)
    app.post("/sign-in", include_in_schema=False, response_model=None)(_sign_in)
    app.post("/sign-out", include_in_schema=False, response_model=None)(_sign_out)
    app.get("/report", include_in_schema=False, response_model=None)(_report)
    app.get("/history.csv", include_in_schema=False, response_model=None)(_download)


def _left() -> None:
    current().leftovers.clear_soon()


async def _pitch(client: Client, request: Request) -> None:
    await PitchPage(visit(client, request, "title_pitch", ""), request.query_params).build()


async def _history(client: Client, request: Request) -> None:
    seen = visit(client, request, "title_history", "/history")
    if seen.may(Scope.READ):
        await History(seen).build()
    else:
        _ask_for_key(seen, "/history")


async def _model(client: Client, request: Request) -> None:
    seen = visit(client, request, "title_model", "/model")
    if seen.may(Scope.READ):
        ModelPage(seen).build()
    else:
        _ask_for_key(seen, "/model")


def _ask_for_key(seen: Visit, room: str) -> None:
    sign_in(seen.words, room, "" if seen.key is None else "weak_key")


async def _sign_in_page(client: Client, request: Request, to: str = "", fault: str = "") -> None:
    seen = visit(client, request, "sign_in", "/sign-in")
    sign_in(seen.words, to, fault if fault in _FAULTS else "")


async def _sign_in(request: Request, key: Annotated[str, Form()], to: str = "") -> Response:
    room = to if to in _ROOMS else ""
    try:
        current().sign_in(request, key)
    except Unauthorized:
        return RedirectResponse(f"{PATH}/sign-in?fault=wrong_key&to={room}", _SEE_OTHER)
    except TooManyRequests:
        return RedirectResponse(f"{PATH}/sign-in?fault=wrong_keys&to={room}", _SEE_OTHER)
    return RedirectResponse(f"{PATH}{room}", _SEE_OTHER)


async def _sign_out(request: Request) -> Response:
    current().sign_out(request)
    return RedirectResponse(PATH, _SEE_OTHER)


async def _report(request: Request) -> Response:
    """Hand out the newest full report of drift: the API's own link wants the key in a header."""
    site = current()
    if not site.admits(request, Scope.READ):
        return RedirectResponse(f"{PATH}/sign-in?to=/model", _SEE_OTHER)
    summary = site.service.drift()
    if summary is None or summary.report is None:
        return RedirectResponse(f"{PATH}/model", _SEE_OTHER)
    return FileResponse(
        site.reports / PurePosixPath(summary.report).name,
        media_type="text/html",
        headers={"Content-Security-Policy": SANDBOX, **_NO_STORE},
    )


async def _download(request: Request, since: str = "", until: str = "", outcome: str = "any") -> Response:
    site = current()
    if not site.admits(request, Scope.READ):
        return RedirectResponse(f"{PATH}/sign-in?to=/history", _SEE_OTHER)
    try:
        await site.service.recorder.flush()
    except StoreError:
        words = words_for(request)
        page = plain(words, words("title_history"), words("store_away"))
        return HTMLResponse(page, _UNAVAILABLE, headers=_NO_STORE)
    return StreamingResponse(
        csv_lines(site.service.store, Filter.read(since, until, outcome)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="kickserve-predictions.csv"', **_NO_STORE},
    )
