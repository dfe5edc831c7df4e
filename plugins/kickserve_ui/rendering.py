"""HTML of the pages by the templates in `templates/`: all texts are escaped there."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from kickserve_ui.messages import Messages

PATH: Final = "/ui"
ROOT: Final[ContextVar[str]] = ContextVar("kickserve_ui_root", default=PATH)
"""The path of the pages as a browser sees it, behind a proxy too."""


def render(template: str, messages: Messages, **values: Any) -> str:
    """Return the HTML of a template.

    Args:
        template: its name; without `.html`.
        messages: of the visitor; `t` in the template.
        values: the rest, by the names in the template.
    """
    name = template if template.endswith(".svg") else f"{template}.html"
    return _templates().get_template(name).render(t=messages, **values)


def hint(text: str) -> str:
    """Return a small paragraph."""
    return f"<p class='hint'>{escape(text)}</p>"


@cache
def static(name: str) -> Markup:
    """Return a file of `static/` as it is."""
    from markupsafe import Markup

    return Markup(files("kickserve_ui").joinpath("static", name).read_text(encoding="utf-8"))  # noqa: S704


def notice_page(messages: Messages, title: str, text: str, *, refresh: int = 0) -> str:
    """Return a page of a title and a paragraph, without scripts.

    Args:
        messages: of the visitor.
        title: its heading.
        text: its paragraph.
        refresh: seconds until the browser asks again; 0 for never.
    """
    values = {"title": title, "text": text, "refresh": refresh, "style": static("style.css")}
    return render("notice", messages, **values)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("kickserve_ui"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.globals["root"] = ROOT.get
    return templates
