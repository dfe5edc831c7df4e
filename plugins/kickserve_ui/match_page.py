"""The match page, for the touchline: an app that a browser can install, and open without a connection.

It works in the browser (`static/match.js`). Page and worker hold nothing of a visitor: what was recorded
stays in the browser's own storage until the service has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from kickserve_ui.app_page import NO_STORE, kept_page, static_files, static_path
from kickserve_ui.messages import messages_for
from kickserve_ui.pitch_page import board
from kickserve_ui.rendering import ROOT, static

if TYPE_CHECKING:
    from fastapi import FastAPI

_PATH: Final = "/match"
_THEME: Final = "#1d5c56"  # of the icon
_PAPER: Final = "#f4f5f2"  # of the page, while it opens
_SIZES: Final = (192, 512)  # pixels of the icons that browsers ask of an app


def add_match(app: FastAPI) -> None:
    """Add the page, the manifest of its app, and the worker that keeps both in the browser."""
    app.get(_PATH, response_model=None)(_page)
    app.get(f"{_PATH}.webmanifest", response_model=None)(_manifest)
    app.get(f"{_PATH}-worker.js", response_model=None)(_worker)


async def _page(request: Request) -> Response:
    return kept_page(messages_for(request), _PATH, "title_match", "match.js", board())


async def _manifest(request: Request) -> Response:
    messages, page = messages_for(request), f"{ROOT.get()}{_PATH}"
    icons = [
        {"src": f"{static_path()}/icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png"}
        for size in _SIZES
    ]
    manifest = {
        "id": page,
        "start_url": page,
        "scope": page,
        "name": messages("title_match"),
        "short_name": messages("nav_match"),
        "lang": messages.language,
        "display": "standalone",
        "theme_color": _THEME,
        "background_color": _PAPER,
        "icons": [{**each, "purpose": purpose} for each in icons for purpose in ("any", "maskable")],
    }
    return JSONResponse(manifest, headers=NO_STORE, media_type="application/manifest+json")


async def _worker() -> Response:
    """Return the worker, which is another one where a file is another."""
    files = [f"{static_path()}/{name}" for name in sorted(static_files())]
    kept = msgspec.json.encode({"page": f"{ROOT.get()}{_PATH}", "static": static_path(), "files": files})
    script = f"const KEPT = {kept.decode()};\n{static('worker.js')}"
    return Response(script, headers=NO_STORE, media_type="text/javascript")
