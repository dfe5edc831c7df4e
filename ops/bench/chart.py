"""Draws the comparison as a chart for the README: a bar for each server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ops.commands import Row

WIDTH: Final = 760
LINE: Final = 28  # height of a row
LEFT: Final = 100  # where bars begin
LONGEST: Final = 480
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.name{text-anchor:end}.ours{font-weight:600}"
    "rect{fill:#afb8c1}rect.ours{fill:#1a7f37}"
)


def chart(rows: Iterable[Row]) -> str:
    """Return an SVG with a bar for each server, the longest first.

    Args:
        rows: `server`, its `throughput` (answers a second), that as `share` of the bare one's, and whether it
            is one of `ours`.
    """
    ordered = sorted(rows, key=lambda row: -row["throughput"])
    height = (len(ordered) + 1) * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">',
        f'<style>{_STYLE}</style><path d="M0 0h{WIDTH}v{height}H0z" fill="#fff"/>',
    ]
    for at, row in enumerate(ordered, start=1):
        base, ours = at * LINE, " ours" if row["ours"] else ""
        length = max(round(LONGEST * row["throughput"] / ordered[0]["throughput"]), 1)
        figures = f"{row['throughput']:,.0f}  ({row['share']:.2g} × bare)"  # noqa: RUF001  times
        parts += [
            f'<text class="name{ours}" x="{LEFT - 10}" y="{base}">{row["server"]}</text>',
            f'<rect class="{ours}" x="{LEFT}" y="{base - 13}" width="{length}" height="17"/>',
            f'<text class="{ours}" x="{LEFT + length + 8}" y="{base}">{figures}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
