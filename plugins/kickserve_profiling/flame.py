"""Draws a flame graph as one SVG: each function as wide as its time, what it called above it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from kickserve_profiling.calls import WAITING, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kickserve_profiling.calls import Node

WIDTH: Final = 1200
_ROW: Final = 18
_MARGIN: Final = 10
_HEAD: Final = 48
_LETTER: Final = 6.3  # pixels that a letter takes at most
_NARROWEST: Final = 0.4  # pixels below which nothing is to be seen
_COLOURS: Final = (("kickserve", "#e4793a"), ("site-packages", "#ecc25c"), ("<frozen", "#c9d3a0"))
_WAITING: Final = "#b9c8da"
_OTHER: Final = "#d8cf9a"

_STYLE: Final = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#222;pointer-events:none}"
    ".t{font:600 15px system-ui,sans-serif}.n{font:12px system-ui,sans-serif;fill:#555}"
    "g.f{cursor:pointer}g.f:hover rect{stroke:#222;stroke-width:1}"
)
# A click on a function widens it to the whole width; a click on the empty ground shows all again.
_SCRIPT: Final = """
const all = [...document.querySelectorAll('g.f')];
const wide = %d, left = %d;
function show(x, w) {
  for (const g of all) {
    const a = +g.dataset.x, b = +g.dataset.w, r = g.querySelector('rect'), t = g.querySelector('text');
    const from = Math.max(a, x), to = Math.min(a + b, x + w);
    g.style.display = to - from > w / wide * 0.4 ? '' : 'none';
    const px = left + (from - x) / w * wide, pw = Math.max(0, (to - from) / w * wide);
    r.setAttribute('x', px); r.setAttribute('width', Math.max(0, pw - 0.6));
    t.setAttribute('x', px + 3);
    const n = Math.floor((pw - 6) / %f), s = g.dataset.n;
    t.textContent = n < 3 ? '' : s.length <= n ? s : s.slice(0, n - 1) + '\\u2026';
  }
}
for (const g of all) g.addEventListener('click', e => {
  e.stopPropagation(); show(+g.dataset.x, +g.dataset.w);
});
document.documentElement.addEventListener('click', () => show(0, 1));
"""


def draw(trees: Sequence[Node], title: str) -> str:
    """Draw trees of calls side by side.

    Args:
        trees: see `calls.tree`.
        title: what the picture is of.
    """
    whole = sum(node.total for node in trees)
    depth = max(map(_depth, trees), default=1)
    height = _HEAD + depth * _ROW + 2 * _MARGIN
    boxes = "".join(_boxes(trees, 0.0, whole or 1.0, height - _MARGIN - _ROW))
    script = _SCRIPT % (WIDTH - 2 * _MARGIN, _MARGIN, _LETTER)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="{_MARGIN}" y="22">{escape(title)}</text>'
        f'<text class="n" x="{_MARGIN}" y="40">{_milliseconds(whole)} in all; orange: kickserve, yellow:'
        " libraries, blue: waiting. Click to zoom, click the ground to go back.</text>"
        f"{boxes}<script><![CDATA[{script}]]></script></svg>\n"
    )


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, node.children), default=0)


def _boxes(nodes: Sequence[Node], start: float, whole: float, y: int) -> Iterator[str]:
    for node in nodes:
        share = node.total / whole
        if share * WIDTH < _NARROWEST:
            continue
        yield _box(node, start, share, y)
        yield from _boxes(node.children, start, whole, y - _ROW)
        start += share


def _box(node: Node, start: float, share: float, y: int) -> str:
    inner = WIDTH - 2 * _MARGIN
    x, width = _MARGIN + start * inner, share * inner
    name = named(node.function)
    room = int((width - 6) / _LETTER)
    shown = "" if room < 3 else name if len(name) <= room else name[: room - 1] + "…"  # noqa: PLR2004  as in the script
    told = f"{name}: {_milliseconds(node.total)} ({share:.1%}), {_milliseconds(node.own)} in itself"
    return (
        f'<g class="f" data-x="{start:.6f}" data-w="{share:.6f}" data-n="{escape(name)}">'
        f"<title>{escape(told)}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{max(0.0, width - 0.6):.2f}" height="{_ROW - 1}" rx="1"'
        f' fill="{_colour(node)}"/><text x="{x + 3:.2f}" y="{y + 12}">{escape(shown)}</text></g>'
    )


def _colour(node: Node) -> str:
    if node.function == WAITING:
        return _WAITING
    file = node.function[0]
    if "site-packages" in file:
        return _COLOURS[1][1]
    return next((colour for word, colour in _COLOURS if word in file), _OTHER)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.3f} ms" if seconds < 1 else f"{seconds:,.2f} s"
