"""What needs no NiceGUI: the style of the pages, their mark, and a page that only says something."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from kickserve_ui.palette import GRADIENT

if TYPE_CHECKING:
    from kickserve_ui.words import Words

FAVICON: Final = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='8'"
    " fill='#1d5c56'/><path d='M9 5v22M23 5v22M9 18h14' stroke='#fff' stroke-width='2.6' fill='none'"
    " stroke-linecap='round'/><ellipse cx='16' cy='10.5' rx='2.6' ry='4' fill='#f0d264' "
    "transform='rotate(35 16 10.5)'/></svg>"
)


@cache
def stylesheet() -> str:
    """Return the pages' own style."""
    text = files("kickserve_ui").joinpath("static/style.css").read_text(encoding="utf-8")
    return text.replace("$GRADIENT", GRADIENT)


def plain(words: Words, title: str, text: str) -> str:
    """Return a page that is a title and a paragraph, and needs neither scripts nor NiceGUI."""
    return (
        f"<!doctype html><html lang='{words.language}'><head><meta charset='utf-8'><title>{escape(title)} ·"
        f" kickserve</title><meta name='viewport' content='width=device-width'><style>{stylesheet()}</style></head>"
        f"<body class='plain'><main><h1>{escape(title)}</h1><p>{escape(text)}</p>"
        "<p><a href='/docs'>API</a></p></main></body></html>"
    )
