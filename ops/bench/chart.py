"""Draws throughput by connections as an SVG that suits light and dark pages, with nothing but strings."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Series = Mapping[str, Sequence[tuple[int, float]]]

WIDTH: Final = 760
HEIGHT: Final = 430
LEFT, RIGHT, TOP, BOTTOM = 72, 640, 74, 372  # the edges of the plot
APART: Final = 19  # of two names at the right
FALLBACK: Final = ("#8a8984", "#8a8984")
# By server, on light and on dark: told apart by those who see colours differently, too.
COLOURS: Final = {
    "bare": ("#77766f", "#a6a59d"),
    "kickserve": ("#2a78d6", "#4b97ee"),
    "typed": ("#1a9a6c", "#27b583"),
    "fastapi": ("#d9571f", "#ee7a45"),
    "litserve": ("#6250c4", "#9a8ff0"),
    "forest": ("#c2427c", "#e2719f"),
}
STYLE: Final = """
  svg { --paper: #fdfdfc; --ink: #22221f; --soft: #66655f; --line: #e3e2dc; }
  text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--soft); }
  .title { font-size: 16px; font-weight: 600; fill: var(--ink); }
  .name { fill: var(--ink); }
  .strong { font-weight: 600; }
  .paper { fill: var(--paper); }
  .grid { stroke: var(--line); stroke-width: 1; }
  .leader { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 1 4; }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .point { stroke: var(--paper); stroke-width: 2; }
"""


def draw(series: Series) -> str:
    """Return the chart as SVG.

    Args:
        series: by server its points: connections, and answers a second.
    """
    scale = _Scale(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Answers a second by number of connections</title>",
        f"<style>{STYLE}{_colours(series)}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        f'<text class="title" x="{LEFT - 48}" y="32">Answers a second by number of connections</text>',
        f'<text x="{LEFT - 48}" y="53">one server core, logarithmic scale</text>',
        *_grid(scale),
        *_names(series, scale),
    ]
    # The one that it is about comes last, and so lies on top.
    for name in sorted(series, key=lambda name: name == "kickserve"):
        parts += _curve(name, series[name], scale)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    def __init__(self, series: Series) -> None:
        points = [point for each in series.values() for point in each]
        self.columns = sorted({connections for connections, _ in points})
        rates = [rate for _, rate in points]
        self.low = math.floor(math.log10(min(rates)))
        self.high = max(math.ceil(math.log10(max(rates))), self.low + 1)

    def x(self, connections: int) -> float:
        """Columns stand at equal distances, whatever the numbers."""
        steps = max(len(self.columns) - 1, 1)
        return LEFT + 24 + (RIGHT - LEFT - 48) * self.columns.index(connections) / steps

    def y(self, rate: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log10(rate) - self.low) / (self.high - self.low)


def _colours(series: Series) -> str:
    light = [f"--{name}: {COLOURS.get(name, FALLBACK)[0]};" for name in series]
    dark = [f"--{name}: {COLOURS.get(name, FALLBACK)[1]};" for name in series]
    page = "--paper: #1b1b1a; --ink: #f0efea; --soft: #a9a8a1; --line: #393834;"
    return (
        f"  svg {{ {' '.join(light)} }}\n"
        f"  @media (prefers-color-scheme: dark) {{ svg {{ {page} {' '.join(dark)} }} }}\n"
    )


def _grid(scale: _Scale) -> Iterator[str]:
    for exponent in range(scale.low, scale.high + 1):
        y = scale.y(10**exponent)
        yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>'
    below = [(scale.x(each), BOTTOM + 22, str(each)) for each in scale.columns]
    for x, y, text in [*below, ((LEFT + RIGHT) / 2, BOTTOM + 44, "connections")]:
        yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>'


def _curve(name: str, points: Sequence[tuple[int, float]], scale: _Scale) -> Iterator[str]:
    places = [(scale.x(connections), scale.y(rate)) for connections, rate in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    wider = ' style="stroke-width: 3"' if name == "kickserve" else ""
    yield f'<g stroke="var(--{name})" fill="var(--{name})">'
    yield f'<polyline class="curve" points="{line}"{wider}/>'
    for (x, y), (connections, rate) in zip(places, points, strict=True):
        tip = f"<title>{escape(name)}: {rate:,.0f}/s at {connections}</title>"
        yield f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5">{tip}</circle>'
    yield "</g>"


def _names(series: Series, scale: _Scale) -> Iterator[str]:
    """Write each name at the right, near the end of its curve, no two over each other."""
    ends = {name: (scale.x(points[-1][0]), scale.y(points[-1][1])) for name, points in series.items()}
    for name, y in _spread({name: end[1] for name, end in ends.items()}).items():
        x, end = ends[name]
        yield f'<line class="leader" x1="{x + 8:.1f}" y1="{end:.1f}" x2="{RIGHT + 6}" y2="{y:.1f}"/>'
        strong = " strong" if name == "kickserve" else ""
        yield f'<circle cx="{RIGHT + 15}" cy="{y:.1f}" r="5" fill="var(--{name})"/>'
        yield f'<text class="name{strong}" x="{RIGHT + 26}" y="{y + 4.5:.1f}">{escape(name)}</text>'


def _spread(wanted: Mapping[str, float]) -> dict[str, float]:
    """Move heights apart as far as needed, downwards first, then up again from the bottom."""
    names = sorted(wanted, key=lambda name: wanted[name])
    heights: list[float] = []
    for name in names:
        heights.append(max(wanted[name], heights[-1] + APART) if heights else wanted[name])
    lowest = float(BOTTOM)
    for at in reversed(range(len(heights))):
        heights[at] = min(heights[at], lowest)
        lowest = heights[at] - APART
    return dict(zip(names, heights, strict=True))
