"""Charts and tables as HTML: functions of what they show."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_scores.quality import Bin
    from kickserve_ui.words import Words

_SIZE: Final = 300
_EDGE: Final = 44


def sheet(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; all columns but the first hold numbers."""
    head = "".join(
        f"<th scope='col'{' class=end' if at else ''}>{escape(each)}</th>" for at, each in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=end' if at else ''}>{escape(each)}</td>" for at, each in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll' tabindex='0'><table class='sheet'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def reliability(words: Words, bins: Sequence[Bin]) -> str:
    """Draw how often kicks went over against how often that was predicted, a circle a group by its size."""
    most = max(each.count for each in bins)
    circles = "".join(
        f"<circle cx='{_x(each.mean_prediction):.1f}' cy='{_y(each.success_rate):.1f}'"
        f" r='{3 + 4 * (each.count / most) ** 0.5:.1f}'><title>{words.percent(each.mean_prediction)} →"
        f" {words.percent(each.success_rate)} ({words.number(each.count)})</title></circle>"
        for each in bins
    )
    ticks = "".join(
        f"<text x='{_x(at):.0f}' y='{_SIZE + 26}' text-anchor='middle'>{words.percent(at, 0)}</text>"
        f"<text x='{_EDGE - 8}' y='{_y(at) + 4:.0f}' text-anchor='end'>{words.percent(at, 0)}</text>"
        for at in (0, 0.25, 0.5, 0.75, 1)
    )
    title = escape(words("reliability"))
    return (
        f"<svg class='diagram' viewBox='0 0 {_SIZE + _EDGE + 20} {_SIZE + 52}' role='img' aria-label='{title}'>"
        f"<rect class='frame' x='{_EDGE}' y='10' width='{_SIZE}' height='{_SIZE}'/>"
        f"<path class='ideal' d='M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}'/>{ticks}{circles}"
        f"<text x='{_x(0.5)}' y='{_SIZE + 46}' text-anchor='middle'>{escape(words('predicted'))}</text>"
        f"<text transform='translate(11 {_y(0.5)}) rotate(-90)' text-anchor='middle'>{escape(words('happened'))}</text>"
        "</svg>"
    )


def _x(share: float) -> float:
    return _EDGE + _SIZE * share


def _y(share: float) -> float:
    return 10 + _SIZE * (1 - share)
