"""The page of kickers: it works in the browser (`static/kickers.js`), which keeps the visitor's file.

Each call brings the file along, and the service forgets it with the answer.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from kickserve.plugins import InvalidInput, MissingExtra, RequestError, Scope
from kickserve_data import DataError
from kickserve_data.season import COLUMNS, MOST_KICKS, REQUIRED
from kickserve_scores.kickers import COLUMNS as FIGURES
from kickserve_ui import kickers
from kickserve_ui.app_page import NO_STORE, show_app
from kickserve_ui.backend import current_backend
from kickserve_ui.calls import rights_of, visitor_who_may
from kickserve_ui.layout import visitor_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from kickserve_ui.layout import Visitor
    from kickserve_ui.messages import Messages

MOST_BYTES: Final = 10_000_000
"""Bytes of a visitor's file."""

_SECONDS: Final = 60.0  # in which a file must have come
_AGAIN: Final = 5  # seconds


class FileTooLarge(RequestError):
    """A visitor's file is larger than is read."""

    status = 413
    title = "File too large"


class FileUnusable(RequestError):
    """A visitor's file can't be read."""

    status = 422
    title = "Unusable file"


class FilesWait(RequestError):
    """Other visitors' files are read at present."""

    status = 503
    title = "Busy"
    retry_after = _AGAIN


def show_kickers(visitor: Visitor) -> None:
    """Make the page; the browser reads from its link what is shown."""
    boot = {
        "columns": COLUMNS,
        "required": REQUIRED,
        "usual": {"minute": kickers.USUAL.minute, "wind": kickers.USUAL.wind, "rain": kickers.USUAL.rain},
        "figures": FIGURES,
        "most": {"bytes": MOST_BYTES, "kicks": MOST_KICKS},
        "rights": {**rights_of(visitor), "read": visitor.may(Scope.READ)},
    }
    show_app(visitor.messages, "kickers.js", boot, classes="page")


def add_kicker_calls(app: FastAPI) -> None:
    """Add the calls of the page to the application of the pages."""
    app.get("/kickers/sample", response_model=None)(_sample)
    app.get("/kickers/stored", response_model=None)(_stored)
    app.get("/kickers/kicks", response_model=None)(_kicks)
    app.post("/kickers/read", response_model=None)(_read)
    app.post("/kickers/save", response_model=None)(_save)


async def _sample(request: Request) -> Response:
    """Return the simulated season."""
    return _packed(await kickers.of_sample(current_backend(), visitor_of(request).messages))


async def _stored(request: Request) -> Response:
    """Return the table of the stored kickers."""
    visitor_who_may(request, Scope.READ)
    return _packed(await kickers.of_store(current_backend()))


async def _kicks(request: Request, kicker: str) -> Response:
    """Return the stored kicks of a kicker."""
    visitor_who_may(request, Scope.READ)
    return _packed(await kickers.of_stored_kicker(current_backend(), kicker))


async def _read(request: Request) -> Response:
    """Return the figures of a file, which nothing is recorded of."""
    messages = visitor_of(request).messages
    async with _file_of(request, messages) as (content, columns):
        return _packed(await kickers.of_file(current_backend(), messages, content, columns))


async def _save(request: Request) -> Response:
    """Record the kicks of a file with their outcomes; a second time nothing is added."""
    messages = visitor_who_may(request, Scope.PREDICT).messages
    async with _file_of(request, messages) as (content, columns):
        return JSONResponse(await kickers.save(current_backend(), content, columns), headers=NO_STORE)


@asynccontextmanager
async def _file_of(
    request: Request, messages: Messages
) -> AsyncIterator[tuple[bytes, dict[str, str] | None]]:
    """Give the file of a request, and the columns that the visitor has chosen.

    Raises:
        FileTooLarge: it is larger than is read.
        FilesWait: too many files come at once.
        FileUnusable: it can't be read.
        InvalidInput: the query `columns` is no JSON object of names.
    """
    room = current_backend().files
    try:
        columns = msgspec.json.decode(request.query_params.get("columns", "null"), type=dict[str, str] | None)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"columns is no JSON object of names: {error}") from None
    if room.locked():
        raise FilesWait(messages("files_wait"))
    async with room:
        content = await _received(request, messages)
        try:
            yield content, columns
        except (DataError, MissingExtra) as error:
            raise FileUnusable(messages.reason(str(error))) from error


async def _received(request: Request, messages: Messages) -> bytes:
    """Return the body of a request.

    Raises:
        FileTooLarge: it is larger than is read.
        FileUnusable: it has not come in time, or not wholly.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    raise FileTooLarge(messages("file_too_large", most=messages.number(MOST_BYTES / 1e6)))
                parts.append(part)
    except (TimeoutError, ClientDisconnect):
        raise FileUnusable(messages("file_not_received")) from None
    return b"".join(parts)


def _packed(content: bytes) -> Response:
    headers = {"Content-Encoding": "gzip", **NO_STORE}
    return Response(content, media_type="application/octet-stream", headers=headers)
