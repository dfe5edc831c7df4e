"""Draws reliability diagrams as SVG: what was said against what came of it, for one model or several."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kickserve_scores.quality import Bin, Quality

_SIZE: Final = 400  # of the square, in pixels
_LEFT: Final = 60
_TOP: Final = 20
_BELOW: Final = 50
_LINE: Final = 22  # of the legend
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by all eyes (Okabe & Ito 2008)
_STYLE: Final = (
    "text{font:13px sans-serif;fill:#333}.grid{stroke:#ddd}.ideal{stroke:#888;stroke-dasharray:5 4}"
    ".bar{stroke-width:1.5;opacity:.6}"
)


def reliability_plot(models: Mapping[str, Quality]) -> str:
    """Draw how often kicks succeeded against how likely they were said to be.

    Each point is one of the bins of `reliability`, with the range in which the share of
    successes lies in 95 of 100 cases, were the predictions right (by the normal approximation).

    Args:
        models: how good each was, by its name; four at most have a colour of their own.

    Returns:
        An SVG document that needs nothing else.
    """
    height = _TOP + _SIZE + _BELOW + _LINE * len(models)
    width = _LEFT + _SIZE + _TOP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>Reliability: predicted probability and share that succeeded</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *_axes(),
            *(
                line
                for number, (name, quality) in enumerate(models.items())
                for line in _model(number, name, quality)
            ),
            "</svg>\n",
        ]
    )


def _x(share: float) -> float:
    return round(_LEFT + share * _SIZE, 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _SIZE, 1)


def _axes() -> Iterator[str]:
    for tenth in range(0, 11, 2):
        share = tenth / 10
        yield f'<path class="grid" d="M{_x(0)} {_y(share)}H{_x(1)}M{_x(share)} {_y(0)}V{_y(1)}"/>'
        yield f'<text x="{_x(0) - 8}" y="{_y(share) + 4}" text-anchor="end">{share:.0%}</text>'
        yield f'<text x="{_x(share)}" y="{_y(0) + 18}" text-anchor="middle">{share:.0%}</text>'
    yield f'<path class="ideal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>'
    yield f'<text x="{_x(0.5)}" y="{_y(0) + 38}" text-anchor="middle">predicted probability</text>'
    yield (
        f'<text transform="translate(14 {_y(0.5)}) rotate(-90)" text-anchor="middle">'
        "share that succeeded</text>"
    )


def _model(number: int, name: str, quality: Quality) -> Iterator[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    points = " ".join(f"{_x(each.mean_prediction)},{_y(each.success_rate)}" for each in quality.bins)
    yield f'<polyline points="{points}" fill="none" stroke="{colour}"/>'
    for each in quality.bins:
        low, high = _range(each)
        at = _x(each.mean_prediction)
        yield f'<path class="bar" stroke="{colour}" d="M{at} {_y(low)}V{_y(high)}"/>'
        yield f'<circle cx="{at}" cy="{_y(each.success_rate)}" r="4" fill="{colour}">'
        said = f"{each.count:,} kicks: {each.mean_prediction:.1%} said, {each.success_rate:.1%} came"
        yield f"<title>{said}</title></circle>"
    y = _TOP + _SIZE + _BELOW + _LINE * number
    words = f"{escape(name)}: Brier {quality.brier:.4f}, ECE {quality.ece:.4f}"
    yield f'<circle cx="{_LEFT}" cy="{y + 4}" r="5" fill="{colour}"/>'
    yield f'<text x="{_LEFT + 14}" y="{y + 8}">{words}</text>'


def _range(found: Bin) -> tuple[float, float]:
    """Return where the share of successes would lie by chance, around what came of the kicks."""
    return max(found.success_rate - found.by_chance, 0.0), min(found.success_rate + found.by_chance, 1.0)
