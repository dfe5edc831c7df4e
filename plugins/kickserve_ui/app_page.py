"""Pages that work while the connection is away, and the files that they are made of.

Such a page is a module of `static/` that mounts Vue components, and asks the calls of `kickserve_ui.calls`.
It stands in a page of NiceGUI, or in one without any connection, which the browser can keep.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import msgspec
import nicegui
from fastapi import Response
from fastapi.responses import HTMLResponse
from nicegui import ui
from nicegui.element import Element

from kickserve_ui.layout import THEME, header_html
from kickserve_ui.messages import LANGUAGE_COOKIE, texts_in
from kickserve_ui.rendering import ROOT, render, static

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kickserve_ui.messages import Messages

NO_STORE: Final = {"Cache-Control": "no-store"}
"""No proxy and no browser may keep a copy."""

SEE_OTHER: Final = 303
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}  # the digest is in the path
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}


class _Mount(Element, component="static/mount.js"):
    """The place of a module in a page of NiceGUI: see `static/mount.js`."""

    def __init__(self, module: str, classes: str) -> None:
        super().__init__()
        self._props["module"] = module
        self._props["classes"] = classes


def show_app(messages: Messages, module: str, boot: Mapping[str, Any], *, classes: str = "room") -> None:
    """Have a module make the page of NiceGUI that is being built. It works while the connection is away.

    Args:
        messages: of the visitor.
        module: file of `static/`, which mounts its components in `#board`.
        boot: what the module needs beside root, language and texts.
        classes: of the element.
    """
    ui.add_head_html(f'<script id="boot" type="application/json">{_encoded(messages, boot)}</script>')
    _Mount(f"{static_path()}/{module}", classes)


def kept_page(messages: Messages, path: str, title: str, module: str, boot: Mapping[str, Any]) -> Response:
    """Return a page that a browser may keep, to open it without a connection: nothing in it is personal.

    Args:
        messages: of the visitor.
        path: of the page below the mount; the manifest of its app stands at `<path>.webmanifest`.
        title: key of its title.
        module: as for `show_app`.
        boot: as for `show_app`.
    """
    page = render(
        "kept",
        messages,
        title=messages(title),
        header=header_html(messages, path),
        path=path,
        static=static_path(),
        theme=THEME,
        language=LANGUAGE_COOKIE,
        module=module,
        boot=_encoded(messages, boot),
    )
    return HTMLResponse(page, headers=NO_STORE)


def _encoded(messages: Messages, boot: Mapping[str, Any]) -> str:
    texts = texts_in(messages.language)
    common = {
        "root": ROOT.get(),
        "language": messages.language,
        "texts": texts,
        "pitch": str(static("pitch.svg")),
    }
    return msgspec.json.encode({**common, **boot}).decode().replace("<", "\\u003c")


def static_path() -> str:
    """Return the path of the files of `static/`, as a browser sees it: other files have another."""
    return f"{ROOT.get()}/static/{_digest()}"


async def static_file(digest: str, name: str) -> Response:
    """Return a file of `static/`, or Vue; a page asks for them with the digest of all."""
    content = static_files().get(name)
    if content is None or digest != _digest():
        return Response(status_code=404)
    return Response(content, headers=_FOREVER, media_type=_TYPES[PurePosixPath(name).suffix])


@cache
def static_files() -> Mapping[str, bytes]:
    """Return the files by name, and Vue for pages without NiceGUI."""
    found = {
        each.name: each.read_bytes()
        for each in files("kickserve_ui").joinpath("static").iterdir()
        if PurePosixPath(each.name).suffix in _TYPES
    }
    vue = Path(nicegui.__file__).with_name("static") / "vue.esm-browser.prod.js"
    return {**found, "vue.js": vue.read_bytes()}


@cache
def _digest() -> str:
    return hashlib.sha256(b"".join(each for _, each in sorted(static_files().items()))).hexdigest()[:12]
