"""What surrounds every page: head, navigation, language, light and dark."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from nicegui import ui

from kickserve_ui import PATH
from kickserve_ui.plain import FAVICON, stylesheet
from kickserve_ui.site import current
from kickserve_ui.words import language_of, words_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from nicegui import Client
    from nicegui.language import Language as Tag

    from kickserve.plugins import Key, Scope
    from kickserve_ui.words import Language, Words

_LANGUAGE: Final = "kickserve_language"
_THEME: Final = "kickserve_theme"
_LANGUAGE_TAGS: Final[Mapping[Language, Tag]] = {"en": "en-GB", "fr": "fr"}
_THEMES: Final = {"dark": True, "light": False}
_ROOMS: Final = (("nav_pitch", ""), ("nav_history", "/history"), ("nav_model", "/model"))
# What the visitor chooses stays in the browser: a cookie each, read when the next page is made.
_HEAD: Final = f"""<script>
// In a frame of another site a browser may keep nothing, and say so by an error that would stop NiceGUI.
try {{ sessionStorage; }} catch {{ Object.defineProperty(window, "sessionStorage", {{ value: {{}} }}); }}
const kickserve = {{
  choose(name, value) {{ document.cookie = `${{name}}=${{value}};path={PATH};max-age=31536000;samesite=lax`; }},
  speak(language) {{ this.choose("{_LANGUAGE}", language); location.reload(); }},
  toggleTheme() {{
    const dark = !document.body.classList.contains("body--dark");
    this.choose("{_THEME}", dark ? "dark" : "light"); Quasar.Dark.set(dark);
  }},
}};
// Not in the buttons themselves: what runs here runs by its nonce.
document.addEventListener("click", (event) => {{
  const button = event.target.closest("[data-speak], [data-theme]");
  if (button?.dataset.speak) kickserve.speak(button.dataset.speak);
  else if (button) kickserve.toggleTheme();
}});
</script>"""


@dataclass(frozen=True)
class Visit:
    """Somebody who looks at a page.

    Attributes:
        words: in the visitor's language.
        key: that the visitor has signed in with, if any.
    """

    words: Words
    key: Key | None

    def may(self, scope: Scope) -> bool:
        """Say whether the visitor may do what this scope says, now: a key may have been taken away."""
        return self.key is not None and current().gate.opens(self.key, scope)


def words_for(request: Request) -> Words:
    """Return the words in the language that the visitor has chosen, or else the browser's."""
    chosen = request.cookies.get(_LANGUAGE, "")
    return words_in(language_of(chosen, request.headers.get("accept-language", "")))


def visit(client: Client, request: Request, title: str, room: str) -> Visit:
    """Begin a page: set its language, title and theme, and put the frame around it.

    Args:
        client: that NiceGUI made for the page.
        request: for the page.
        title: key of the title.
        room: path below the page's own.
    """
    words = words_for(request)
    client.page = copy(client.page)  # the page's own is shared by all visitors
    client.page.language = _LANGUAGE_TAGS[words.language]
    client.page.dark = _THEMES.get(request.cookies.get(_THEME, ""))
    client.title = f"{words(title)} · kickserve"
    ui.add_head_html(f"{_HEAD}<style>{stylesheet()}</style>")
    key = current().key_of(request)
    _header(words, room, admitted=key is not None)
    return Visit(words, key)


def sign_in(words: Words, target: str, fault: str = "") -> None:
    """Show the form that asks for the key.

    Args:
        words: to say it in.
        target: room to go to afterwards.
        fault: what was wrong just before, if anything: the key of a text.
    """
    complaint = f"<p class='complaint' role='alert'>{escape(words(fault))}</p>" if fault else ""
    ui.html(
        f"<form class='card sign-in' method='post' action='{PATH}/sign-in?{urlencode({'to': target})}'>"
        f"<h1>{escape(words('sign_in'))}</h1><p>{escape(words('sign_in_text'))}</p>{complaint}"
        f"<label for='key'>{escape(words('key'))}</label>"
        "<input id='key' name='key' type='password' required autocomplete='current-password' autofocus>"
        f"<button class='button primary'>{escape(words('sign_in'))}</button></form>",
        sanitize=False,
    ).props("id=content")


def card(title: str, classes: str = "") -> ui.element:
    """Return a card with a heading, to be filled."""
    section = ui.element("section").classes(f"card {classes}")
    with section:
        ui.html(escape(title), tag="h2", sanitize=False)
    return section


def _header(words: Words, room: str, *, admitted: bool) -> None:
    links = "".join(
        f"<a href='{PATH}{path}'{' aria-current=page' if path == room else ''}>{escape(words(key))}</a>"
        for key, path in _ROOMS
    )
    other = "fr" if words.language == "en" else "en"
    ui.html(
        f"<a class='skip' href='#content'>{escape(words('skip'))}</a>"
        f"<a class='brand' href='{PATH}' aria-label='kickserve'>{FAVICON}<span>kickserve</span></a>"
        f"<nav aria-label='{escape(words('nav'))}'>{links}<a href='/docs'>{escape(words('nav_api'))}</a></nav>"
        f"<div class='switches'>{_door(words, room, admitted=admitted)}"
        f"<button class='button quiet' lang='{other}' data-speak='{other}'>"
        f"{escape(words('language'))}</button>"
        "<button class='button quiet' data-theme"
        f" aria-label='{escape(words('theme'))}' title='{escape(words('theme'))}'>◐</button></div>",
        sanitize=False,
        tag="header",
    ).classes("top")


def _door(words: Words, room: str, *, admitted: bool) -> str:
    if not current().gate.guarded:
        return ""
    if not admitted:
        return f"<a class='button quiet' href='{PATH}/sign-in?{urlencode({'to': room})}'>{escape(words('sign_in'))}</a>"
    return (
        f"<form method='post' action='{PATH}/sign-out'><button class='button quiet'>"
        f"{escape(words('sign_out'))}</button></form>"
    )
