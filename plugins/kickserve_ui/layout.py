"""The layout around every page: head, navigation, language, light and dark, sign-in."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from nicegui import ui

from kickserve_ui import PATH
from kickserve_ui.backend import current_backend
from kickserve_ui.messages import language_of, messages_in
from kickserve_ui.mount import FAVICON, stylesheet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from nicegui import Client
    from nicegui.language import Language as Tag

    from kickserve.plugins import Key, Scope
    from kickserve_ui.messages import Language, Messages

_LANGUAGE: Final = "kickserve_language"
_THEME: Final = "kickserve_theme"
_LANGUAGE_TAGS: Final[Mapping[Language, Tag]] = {"en": "en-GB", "fr": "fr"}
_THEMES: Final = {"dark": True, "light": False}
_PAGES: Final = (("nav_pitch", ""), ("nav_history", "/history"), ("nav_model", "/model"))
# Choices of the visitor stay in the browser: a cookie each, read when the next page is made.
_HEAD: Final = f"""<script>
// In a frame of another site a browser may refuse storage by an error that would stop NiceGUI.
try {{ sessionStorage; }} catch {{ Object.defineProperty(window, "sessionStorage", {{ value: {{}} }}); }}
const kickserve = {{
  choose(name, value) {{ document.cookie = `${{name}}=${{value}};path={PATH};max-age=31536000;samesite=lax`; }},
  speak(language) {{ this.choose("{_LANGUAGE}", language); location.reload(); }},
  toggleTheme() {{
    const dark = !document.body.classList.contains("body--dark");
    this.choose("{_THEME}", dark ? "dark" : "light"); Quasar.Dark.set(dark);
  }},
}};
// Not in attributes of the buttons: only a script with the page's nonce runs.
document.addEventListener("click", (event) => {{
  const button = event.target.closest("[data-speak], [data-theme]");
  if (button?.dataset.speak) kickserve.speak(button.dataset.speak);
  else if (button) kickserve.toggleTheme();
}});
</script>"""


@dataclass(frozen=True)
class Visitor:
    """A visitor of a page.

    Attributes:
        messages: in the visitor's language.
        key: that the visitor has signed in with, if any.
    """

    messages: Messages
    key: Key | None

    def may(self, scope: Scope) -> bool:
        """Say whether the visitor's key has this scope now."""
        return current_backend().sessions.may(self.key, scope)


def messages_for(request: Request) -> Messages:
    """Return the messages in the language that the visitor has chosen, or else the browser's."""
    chosen = request.cookies.get(_LANGUAGE, "")
    return messages_in(language_of(chosen, request.headers.get("accept-language", "")))


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
    client.page.dark = _THEMES.get(request.cookies.get(_THEME, ""))
    client.title = f"{messages(title)} · kickserve"
    ui.add_head_html(f"{_HEAD}<style>{stylesheet()}</style>")
    visitor = Visitor(messages, current_backend().sessions.key_of(request))
    _header(visitor, path)
    return visitor


def show_sign_in(messages: Messages, target: str, fault: str = "") -> None:
    """Show the form that asks for the key.

    Args:
        messages: of the visitor.
        target: path of the page to go to afterwards.
        fault: key of the message about the last attempt, if it failed.
    """
    complaint = f"<p class='complaint' role='alert'>{escape(messages(fault))}</p>" if fault else ""
    ui.html(
        f"<form class='card sign-in' method='post' action='{PATH}/sign-in?{urlencode({'to': target})}'>"
        f"<h1>{escape(messages('sign_in'))}</h1><p>{escape(messages('sign_in_text'))}</p>{complaint}"
        f"<label for='key'>{escape(messages('key'))}</label>"
        "<input id='key' name='key' type='password' required autocomplete='current-password' autofocus>"
        f"<button class='button primary'>{escape(messages('sign_in'))}</button></form>",
        sanitize=False,
    ).props("id=content")


def card(title: str, classes: str = "") -> ui.element:
    """Return a card with a heading, to be filled."""
    section = ui.element("section").classes(f"card {classes}")
    with section:
        ui.html(escape(title), tag="h2", sanitize=False)
    return section


def hint(text: str) -> str:
    """Return a small paragraph."""
    return f"<p class='hint'>{escape(text)}</p>"


def _header(visitor: Visitor, path: str) -> None:
    messages = visitor.messages
    links = "".join(
        f"<a href='{PATH}{each}'{' aria-current=page' if each == path else ''}>{escape(messages(key))}</a>"
        for key, each in _PAGES
    )
    other = "fr" if messages.language == "en" else "en"
    ui.html(
        f"<a class='skip' href='#content'>{escape(messages('skip'))}</a>"
        f"<a class='brand' href='{PATH}' aria-label='kickserve'>{FAVICON}<span>kickserve</span></a>"
        f"<nav aria-label='{escape(messages('nav'))}'>{links}"
        f"<a href='/docs'>{escape(messages('nav_api'))}</a></nav>"
        f"<div class='switches'>{_session_link(visitor, path)}"
        f"<button class='button quiet' lang='{other}' data-speak='{other}'>"
        f"{escape(messages('language'))}</button>"
        "<button class='button quiet' data-theme"
        f" aria-label='{escape(messages('theme'))}' title='{escape(messages('theme'))}'>◐</button></div>",
        sanitize=False,
        tag="header",
    ).classes("top")


def _session_link(visitor: Visitor, path: str) -> str:
    if not current_backend().sessions.guarded:
        return ""
    messages = visitor.messages
    if visitor.key is None:
        target = f"{PATH}/sign-in?{urlencode({'to': path})}"
        return f"<a class='button quiet' href='{target}'>{escape(messages('sign_in'))}</a>"
    return (
        f"<form method='post' action='{PATH}/sign-out'><button class='button quiet'>"
        f"{escape(messages('sign_out'))}</button></form>"
    )
