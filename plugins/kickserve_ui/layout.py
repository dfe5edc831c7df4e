"""The layout around every page: head, navigation, language, light and dark, sign-in."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from nicegui import ui

from kickserve_ui.backend import current_backend
from kickserve_ui.messages import LANGUAGE_COOKIE, messages_for
from kickserve_ui.rendering import render, static

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from nicegui import Client
    from nicegui.language import Language as Tag

    from kickserve.plugins import Scope
    from kickserve_ui.messages import Language, Messages

COOKIE: Final = "kickserve"
"""Name of the cookie of a session."""

# As the language, this choice stays in the browser: in a cookie that is read when the next page is made.
THEME: Final = "kickserve_theme"
_LANGUAGE_TAGS: Final[Mapping[Language, Tag]] = {"en": "en-GB", "fr": "fr"}
_THEMES: Final = {"dark": True, "light": False}
_PAGES: Final = (
    ("nav_pitch", ""),
    ("nav_match", "/match"),
    ("nav_kickers", "/kickers"),
    ("nav_history", "/history"),
    ("nav_model", "/model"),
)


@dataclass(frozen=True)
class Visitor:
    """A visitor of a page.

    Attributes:
        messages: in the visitor's language.
        cookie: of the visitor's session; any text of a visitor who is not signed in.
    """

    messages: Messages
    cookie: str = ""

    @property
    def signed_in(self) -> bool:
        """Whether the visitor's session goes on, and its key is valid."""
        return current_backend().sessions.key_of(self.cookie) is not None

    def may(self, scope: Scope) -> bool:
        """Return whether the visitor's key has this scope now."""
        return current_backend().sessions.may(self.cookie, scope)


def open_page(client: Client, request: Request, title: str, path: str) -> Visitor:
    """Begin a page: set its language, title and theme, and put the header on it.

    Args:
        client: that NiceGUI made for the page.
        request: for the page.
        title: key of the title.
        path: below the mount.
    """
    messages = messages_for(request)
    client.page = copy(client.page)  # the page's own is shared by all visitors
    client.page.language = _LANGUAGE_TAGS[messages.language]
    client.page.dark = _THEMES.get(request.cookies.get(THEME, ""))
    client.title = f"{messages(title)} · kickserve"
    ui.add_head_html(render("head", messages, language=LANGUAGE_COOKIE, theme=THEME))
    visitor = visitor_of(request)
    client.storage[COOKIE] = visitor.cookie
    ui.html(header_html(visitor.messages, path, visitor), sanitize=False, tag="header").classes("top")
    return visitor


def visitor_of(request: Request) -> Visitor:
    """Return the visitor of a request."""
    return Visitor(messages_for(request), request.cookies.get(COOKIE, ""))


def header_html(messages: Messages, path: str, visitor: Visitor | None = None) -> str:
    """Return the header of a page: the other pages, sign-in, language and theme.

    Args:
        messages: of the visitor.
        path: of the page below the mount.
        visitor: of the page; None on a page that is the same for all, and has no sign-in.
    """
    return render(
        "header",
        messages,
        favicon=static("favicon.svg"),
        pages=_PAGES,
        path=path,
        guarded=visitor is not None and current_backend().sessions.guarded,
        signed_in=visitor is not None and visitor.signed_in,
        other="fr" if messages.language == "en" else "en",
    )


def show_sign_in(messages: Messages, target: str, fault: str = "") -> None:
    """Show the form that asks for the key.

    Args:
        messages: of the visitor.
        target: path of the page to go to afterwards.
        fault: key of the message about the last attempt, if it failed.
    """
    form = render("sign_in", messages, target=target, fault=fault)
    ui.html(form, sanitize=False).props("id=content")


def card(title: str, classes: str = "") -> ui.element:
    """Return a card with a heading, to be filled."""
    section = ui.element("section").classes(f"card {classes}")
    with section:
        ui.html(escape(title), tag="h2", sanitize=False)
    return section
