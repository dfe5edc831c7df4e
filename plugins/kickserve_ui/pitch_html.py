"""The answer to a kick, its reasons and its worth, as HTML: functions of their arguments alone."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve_ui.heat_map import GRADIENT
from kickserve_ui.layout import hint

if TYPE_CHECKING:
    from kickserve_scores.explain import Explanation, Share
    from kickserve_ui.heat_map import TeeLine
    from kickserve_ui.messages import Messages
    from kickserve_ui.page_state import PageState

_EVEN: Final = 0.005  # points: a smaller difference counts as none
_SMALLEST_SCALE: Final = 0.5  # log-odds at the end of the bars, at least: small shares must look small
_SMALLEST_SHARE: Final = 0.005  # that gets a bar


class Answer(NamedTuple):
    """The answer to a kick, as the page shows it.

    Attributes:
        probability: 0 to 1.
        interval: of 95 %, or None where the model gives none.
        warnings: of the model.
        note: whether it is recorded, in words.
        recorded: whether it is.
    """

    probability: float
    interval: tuple[float, float] | None
    warnings: tuple[str, ...]
    note: str
    recorded: bool


def answer_html(messages: Messages, state: PageState, answer: Answer) -> str:
    """Show the number, its interval, the word for it, and warnings."""
    warnings = []
    if answer.warnings:
        warnings.append(messages("outside", what=", ".join(map(messages.warning, answer.warnings))))
    if not state.spot.on_pitch:
        warnings.append(messages("off_pitch"))
    return (
        f"<p class='label'>{escape(messages('probability'))}</p>"
        f"<p class='number'>{messages.percent(answer.probability)}</p>"
        f"<p class='word'>{escape(messages.likelihood(answer.probability))}</p>"
        f"{_interval(messages, answer)}"
        + "".join(f"<p class='warning'>{escape(each)}</p>" for each in warnings)
        + f"<p class='note {'is-kept' if answer.recorded else ''}'>{escape(answer.note)}</p>"
    )


def summary(messages: Messages, state: PageState, answer: Answer) -> str:
    """Return the same in a sentence, for screen readers."""
    place = messages(
        "place",
        distance=messages.number(state.distance, 1),
        angle=messages.number(state.angle, 1),
        side=messages(f"of_{state.side}"),
    )
    word = messages.likelihood(answer.probability)
    return messages("summary", place=place, probability=messages.percent(answer.probability), word=word)


def legend(messages: Messages, state: PageState) -> str:
    """Explain the colours of the pitch."""
    ticks = "".join(f"<span>{messages.percent(level / 100, 0)}</span>" for level in range(0, 101, 20))
    pays = f"<span class='pays-key'>{escape(messages('pays'))}</span>" if state.kind == "penalty" else ""
    return (
        f"<div class='scale' style='background:{GRADIENT}'></div><div class='ticks'>{ticks}</div>"
        f"<p class='keys'>{pays}<span class='faded-key'>{escape(messages('faded'))}</span></p>"
    )


def drivers(messages: Messages, found: Explanation) -> str:
    """Draw each feature's share of the log-odds as a bar, the largest first."""
    shown = [each for each in found.shares if abs(each.share) >= _SMALLEST_SHARE]
    widest = max([_SMALLEST_SCALE, *(abs(each.share) for each in shown)])
    bars = "".join(_bar(messages, each, widest) for each in shown)
    text = messages("drivers_text", average=messages.percent(found.average_prediction, 0))
    return f"{hint(text)}<ul class='bars'>{bars}</ul>"


def decision(messages: Messages, state: PageState, probability: float) -> str:
    """Compare a kick at goal with a kick to the corner, in expected points."""
    goal = state.points * probability + (1 - probability) * state.miss
    gain = goal - state.corner
    key = "advice_even" if abs(gain) < _EVEN else "advice_goal" if gain > 0 else "advice_corner"
    even = state.break_even
    pays = "" if even is None else messages("break_even", value=messages.percent(even, 0))
    return (
        _worth(messages, "points_goal", goal, state.points)
        + _worth(messages, "points_corner", state.corner, state.points)
        + f"<p class='advice'>{escape(messages(key, value=messages.number(abs(gain), 2)))}. {escape(pays)}</p>"
        + hint(messages("values_text"))
    )


def tee(messages: Messages, state: PageState, line: TeeLine, probability: float) -> str:
    """Draw the probability of a conversion over the metres back from the goal line."""
    text = messages(
        "tee_text",
        best=messages.number(line.best.out, 1),
        probability=messages.percent(line.best_probability, 1),
        here=messages.number(state.spot.out, 1),
    )
    far = float(line.out[-1])
    curve = " ".join(
        f"{300 * out / far:.1f},{80 - 76 * p:.1f}"
        for out, p in zip(line.out.tolist(), line.probability.tolist(), strict=True)
    )
    here, best = 300 * min(state.spot.out, far) / far, 300 * line.best.out / far
    worth = messages("tee_worth", value=messages.number(state.points * probability, 2))
    return (
        f"<p>{escape(text)}</p><svg class='curve' viewBox='0 0 300 84' aria-hidden='true'>"
        f"<polyline points='{curve}'/><path class='best' d='M{best:.1f} 0V80'/>"
        f"<circle cx='{here:.1f}' cy='{80 - 76 * probability:.1f}' r='4'/></svg>{hint(worth)}"
    )


def _interval(messages: Messages, answer: Answer) -> str:
    if answer.interval is None:
        return f"<p class='interval'>{escape(messages('no_interval'))}</p>"
    low, high = answer.interval
    text = messages("interval", low=messages.percent(low, 0), high=messages.percent(high, 0))
    return (
        f"<div class='range' aria-hidden='true'><i style='left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%'></i>"
        f"<b style='left:{100 * answer.probability:.1f}%'></b></div><p class='interval'>{escape(text)}</p>"
    )


def _bar(messages: Messages, share: Share, widest: float) -> str:
    width = 50 * abs(share.share) / widest
    left = 50.0 if share.share > 0 else 50 - width
    side = "helps" if share.share > 0 else "hurts"
    return (
        f"<li><span>{escape(messages(f'feature_{share.feature}'))}</span>"
        f"<span class='track'><i class='{side}' style='left:{left:.1f}%;width:{width:.1f}%'></i></span>"
        f"<span class='value'>{messages.number(share.share, 2, signed=True)}</span></li>"
    )


def _worth(messages: Messages, key: str, value: float, most: int) -> str:
    return (
        f"<div class='worth'><span>{escape(messages(key))}</span><span class='track'>"
        f"<i style='width:{min(100 * value / most, 100):.1f}%'></i></span>"
        f"<span class='value'>{messages.number(value, 2)}</span></div>"
    )
