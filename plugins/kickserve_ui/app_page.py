"""Pages that work in the browser alone: their shell, and the files that they are made of.

Such a page is a module of `static/` that mounts Vue components; it needs no connection, and asks the calls of
`kickserve_ui.calls`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import msgspec
import nicegui
from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from kickserve_ui.layout import THEME, header_html, visitor_of
from kickserve_ui.messages import LANGUAGE_COOKIE, messages_for, texts_in
from kickserve_ui.rendering import ROOT, render

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_STORE: Final = {"Cache-Control": "no-store"}
"""No proxy and no browser may keep a copy."""

SEE_OTHER: Final = 303
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}  # the digest is in the path
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def app_page(
    request: Request, path: str, title: str, module: str, boot: Mapping[str, Any], *, classes: str = "room"
) -> Response:
    """Return a page that a module makes in the element `#board`.

    Args:
        request: for it.
        path: of the page below the mount.
        title: key of its title.
        module: file of `static/`.
        boot: what the module needs beside root, language and texts.
        classes: of the element.
    """
    language = messages_for(request).language
    common = {"root": ROOT.get(), "language": language, "texts": texts_in(language)}
    values = msgspec.json.encode({**common, **boot}).decode().replace("<", "\\u003c")
    return _page(request, path, title, module=module, boot=values, classes=classes, body="")


def sign_in_page(request: Request, target: str, fault: str = "") -> Response:
    """Return the form that asks for the key.

    Args:
        request: for the page.
        target: path of the page to go to afterwards.
        fault: key of the message about the last attempt, if it failed.
    """
    form = render("sign_in", messages_for(request), target=target, fault=fault)
    return _page(request, "/sign-in", "sign_in", module="", boot="", classes="", body=form)


def key_page(request: Request, path: str) -> Response:
    """Return the form in the place of a page that needs a key."""
    return sign_in_page(request, path, "weak_key" if visitor_of(request).signed_in else "")


def _page(request: Request, path: str, title: str, **values: Any) -> Response:
    visitor = visitor_of(request)
    page = render(
        "app",
        visitor.messages,
        title=visitor.messages(title),
        header=header_html(visitor, path),
        static=f"{ROOT.get()}/static/{_digest()}",
        theme=THEME,
        chosen=request.cookies.get(THEME, ""),
        language=LANGUAGE_COOKIE,
        **values,
    )
    return HTMLResponse(page, headers=NO_STORE)


async def static_file(digest: str, name: str) -> Response:
    """Return a file of `static/`, or Vue; a page asks for them with the digest of all."""
    content = _files().get(name)
    if content is None or digest != _digest():
        return Response(status_code=404)
    return Response(content, headers=_FOREVER, media_type=_TYPES[PurePosixPath(name).suffix])


@cache
def _files() -> Mapping[str, bytes]:
    found = {
        each.name: each.read_bytes()
        for each in files("kickserve_ui").joinpath("static").iterdir()
        if PurePosixPath(each.name).suffix in _TYPES
    }
    vue = Path(nicegui.__file__).with_name("static") / "vue.esm-browser.prod.js"
    return {**found, "vue.js": vue.read_bytes()}


@cache
def _digest() -> str:
    return hashlib.sha256(b"".join(each for _, each in sorted(_files().items()))).hexdigest()[:12]
