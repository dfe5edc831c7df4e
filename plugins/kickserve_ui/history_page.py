"""The history page: it works in the browser (`static/history.js`), and asks for the records page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request, Response  # noqa: TC002  FastAPI reads the annotations
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from kickserve.plugins import Forbidden, Scope, StoreError, Unauthorized
from kickserve_ui.app_page import NO_STORE, SEE_OTHER, show_app
from kickserve_ui.backend import current_backend
from kickserve_ui.calls import rights_of
from kickserve_ui.history import FILTERS, MOST, ROWS, Filter, csv_lines, page_of
from kickserve_ui.layout import visitor_of
from kickserve_ui.rendering import PATH

if TYPE_CHECKING:
    from kickserve_ui.layout import Visitor

_UNAVAILABLE = 503


def show_history(visitor: Visitor) -> None:
    """Make the page; the browser reads filter and page from its link."""
    boot = {"filters": FILTERS, "rows": ROWS, "most": MOST, "rights": rights_of(visitor)}
    show_app(visitor.messages, "history.js", boot, classes="page")


async def records(request: Request, newest: str = "") -> Response:
    """Return a page of records; the list holds still below the newest id that is named."""
    visitor = visitor_of(request)
    if not visitor.may(Scope.READ):
        text = visitor.messages("weak_key" if visitor.signed_in else "sign_in_text")
        raise Forbidden(text) if visitor.signed_in else Unauthorized(text)
    service, wanted = current_backend().app, Filter.read(request.query_params)
    try:
        await service.recorder.flush()
        found = await page_of(service.store, wanted, newest, visitor.messages)
    except StoreError:
        return JSONResponse({"detail": visitor.messages("store_away")}, _UNAVAILABLE, NO_STORE)
    return JSONResponse(found, headers=NO_STORE)


async def download(request: Request) -> Response:
    """Return the wanted records as CSV."""
    visitor, service = visitor_of(request), current_backend().app
    if not visitor.may(Scope.READ):
        return RedirectResponse(f"{PATH}/sign-in?to=/history", SEE_OTHER)
    try:
        await service.recorder.flush()
    except StoreError:
        text = visitor.messages("store_away")
        return JSONResponse({"detail": text}, _UNAVAILABLE, NO_STORE)
    return StreamingResponse(
        csv_lines(service.store, Filter.read(request.query_params)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="kickserve-predictions.csv"', **NO_STORE},
    )
