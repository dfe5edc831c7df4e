"""The answer to a kick, its reasons and its worth, as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve_ui.heat_map import GRADIENT
from kickserve_ui.rendering import render

if TYPE_CHECKING:
    from kickserve_scores.explain import Explanation
    from kickserve_ui.heat_map import TeeLine
    from kickserve_ui.messages import Messages
    from kickserve_ui.page_state import PageState

_EVEN: Final = 0.005  # points: a smaller difference counts as none
_SMALLEST_SCALE: Final = 0.5  # log-odds at the end of the bars, at least: small shares must look small
_SMALLEST_SHARE: Final = 0.005  # that gets a bar


class Answer(NamedTuple):
    """The answer to a kick, as the page shows it."""

    probability: float  # 0 to 1
    interval: tuple[float, float] | None  # of 95 %; None where the model gives none
    warnings: tuple[str, ...]  # of the model
    note: str  # whether the answer is recorded, in words
    recorded: bool


def answer_html(messages: Messages, state: PageState, answer: Answer) -> str:
    """Show the number, its interval, the word for it, and warnings."""
    warnings = [messages.warning(each) for each in answer.warnings]
    return render("answer", messages, state=state, answer=answer, warnings=warnings)


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
    return render("legend", messages, state=state, gradient=GRADIENT)


def drivers(messages: Messages, found: Explanation) -> str:
    """Draw each feature's share of the log-odds as a bar, the largest first."""
    shown = [each for each in found.shares if abs(each.share) >= _SMALLEST_SHARE]
    widest = max([_SMALLEST_SCALE, *(abs(each.share) for each in shown)])
    return render("drivers", messages, shares=shown, widest=widest, average=found.average_prediction)


def decision(messages: Messages, state: PageState, probability: float) -> str:
    """Compare a kick at goal with a kick to the corner, in expected points."""
    goal = state.points * probability + (1 - probability) * state.miss
    gain = goal - state.corner
    key = "advice_even" if abs(gain) < _EVEN else "advice_goal" if gain > 0 else "advice_corner"
    advice = messages(key, value=messages.number(abs(gain), 2))
    return render("decision", messages, state=state, goal=goal, advice=advice)


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
    values = {"text": text, "curve": curve, "here": here, "best": best, "probability": probability}
    return render("tee", messages, state=state, **values)
