"""The answer to a kick, its reasons and its worth, as HTML: functions of what is shown, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from kickserve_ui.palette import GRADIENT

if TYPE_CHECKING:
    from kickserve.schemas import Interval
    from kickserve_scores.explain import Explanation, Share
    from kickserve_ui.heat import TeeLine
    from kickserve_ui.scene import Scene
    from kickserve_ui.words import Words

_EVEN: Final = 0.005  # points that nobody would decide by
_SMALLEST_SCALE: Final = 0.5  # log-odds at the end of the bars, at least: small shares must look small
_SMALLEST_SHARE: Final = 0.005  # that gets a bar


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a kick.

    Attributes:
        probability: 0 to 1.
        interval: of 95 %, or None where the model gives none.
        warnings: what makes it unlike those that the model knows.
        note: whether it is kept, in words.
        kept: whether it is.
    """

    probability: float
    interval: Interval | None
    warnings: tuple[str, ...]
    note: str
    kept: bool


def answer(words: Words, scene: Scene, told: Told) -> str:
    """Show the number, its interval, the word for it, and what to be wary of."""
    warnings = [words("outside", what=", ".join(map(words.warning, told.warnings)))] if told.warnings else []
    if not scene.spot.on_pitch:
        warnings.append(words("off_pitch"))
    return (
        f"<p class='label'>{escape(words('probability'))}</p>"
        f"<p class='number'>{words.percent(told.probability)}</p>"
        f"<p class='word'>{escape(words.judgement(told.probability))}</p>"
        f"{_range(words, told)}"
        + "".join(f"<p class='warning'>{escape(each)}</p>" for each in warnings)
        + f"<p class='note {'is-kept' if told.kept else ''}'>{escape(told.note)}</p>"
    )


def summary(words: Words, scene: Scene, told: Told) -> str:
    """Say the same in a sentence, for who can't see it."""
    return words(
        "summary",
        place=place(words, scene),
        probability=words.percent(told.probability),
        word=words.judgement(told.probability),
    )


def place(words: Words, scene: Scene) -> str:
    """Say where the ball lies."""
    return words(
        "place",
        distance=words.number(scene.distance, 1),
        angle=words.number(scene.angle, 1),
        side=words(f"of_{scene.side}"),
    )


def legend(words: Words, *, penalty: bool) -> str:
    """Explain the colours of the pitch."""
    ticks = "".join(f"<span>{words.percent(level / 100, 0)}</span>" for level in range(0, 101, 20))
    pays = f"<span class='pays-key'>{escape(words('pays'))}</span>" if penalty else ""
    return (
        f"<div class='scale' style='background:{GRADIENT}'></div><div class='ticks'>{ticks}</div>"
        f"<p class='keys'>{pays}<span class='faded-key'>{escape(words('faded'))}</span></p>"
    )


def drivers(words: Words, found: Explanation) -> str:
    """Draw each feature's share on the log-odds as a bar, the largest first."""
    shown = [each for each in found.shares if abs(each.share) >= _SMALLEST_SHARE]
    widest = max([_SMALLEST_SCALE, *(abs(each.share) for each in shown)])
    bars = "".join(_bar(words, each, widest) for each in shown)
    text = words("drivers_text", average=words.percent(found.average_prediction, 0))
    return f"<p class='hint'>{escape(text)}</p><ul class='bars'>{bars}</ul>"


def decision(words: Words, scene: Scene, probability: float) -> str:
    """Weigh a kick at goal against a kick to the corner, in points to be expected."""
    goal = scene.points * probability + (1 - probability) * scene.miss
    gain = goal - scene.corner
    key = "advice_even" if abs(gain) < _EVEN else "advice_goal" if gain > 0 else "advice_corner"
    even = break_even(scene)
    pays = "" if even is None else words("break_even", value=words.percent(even, 0))
    return (
        f"{_worth(words, 'points_goal', goal, scene.points)}{_worth(words, 'points_corner', scene.corner, scene.points)}"
        f"<p class='advice'>{escape(words(key, value=words.number(abs(gain), 2)))}. {escape(pays)}</p>"
        f"<p class='hint'>{escape(words('values_text'))}</p>"
    )


def break_even(scene: Scene) -> float | None:
    """Return the probability from which on a kick at goal is worth more than the corner, if there is one."""
    if scene.points <= scene.miss:
        return None
    even = (scene.corner - scene.miss) / (scene.points - scene.miss)
    return even if 0 < even < 1 else None


def tee(words: Words, scene: Scene, line: TeeLine, probability: float) -> str:
    """Draw what going back on the line does to a conversion."""
    text = words(
        "tee_text",
        best=words.number(line.best.out, 1),
        probability=words.percent(line.best_probability, 1),
        here=words.number(scene.spot.out, 1),
    )
    far = float(line.out[-1])
    curve = " ".join(
        f"{300 * out / far:.1f},{80 - 76 * p:.1f}"
        for out, p in zip(line.out.tolist(), line.probability.tolist(), strict=True)
    )
    here, best = 300 * min(scene.spot.out, far) / far, 300 * line.best.out / far
    worth = words("tee_worth", value=words.number(scene.points * probability, 2))
    return (
        f"<p>{escape(text)}</p><svg class='curve' viewBox='0 0 300 84' aria-hidden='true'>"
        f"<polyline points='{curve}'/><path class='best' d='M{best:.1f} 0V80'/>"
        f"<circle cx='{here:.1f}' cy='{80 - 76 * probability:.1f}' r='4'/></svg>"
        f"<p class='hint'>{escape(worth)}</p>"
    )


def _range(words: Words, told: Told) -> str:
    if told.interval is None:
        return f"<p class='interval'>{escape(words('no_interval'))}</p>"
    low, high = told.interval
    text = words("interval", low=words.percent(low, 0), high=words.percent(high, 0))
    return (
        f"<div class='range' aria-hidden='true'><i style='left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%'></i>"
        f"<b style='left:{100 * told.probability:.1f}%'></b></div><p class='interval'>{escape(text)}</p>"
    )


def _bar(words: Words, share: Share, widest: float) -> str:
    width = 50 * abs(share.share) / widest
    left = 50.0 if share.share > 0 else 50 - width
    side = "helps" if share.share > 0 else "hurts"
    return (
        f"<li><span>{escape(words(f'feature_{share.feature}'))}</span>"
        f"<span class='track'><i class='{side}' style='left:{left:.1f}%;width:{width:.1f}%'></i></span>"
        f"<span class='value'>{words.number(share.share, 2, signed=True)}</span></li>"
    )


def _worth(words: Words, key: str, value: float, most: int) -> str:
    return (
        f"<div class='worth'><span>{escape(words(key))}</span><span class='track'>"
        f"<i style='width:{min(100 * value / most, 100):.1f}%'></i></span>"
        f"<span class='value'>{words.number(value, 2)}</span></div>"
    )
