"""Checks a model before it serves: one prediction, its speed, and its quality on kicks with an outcome."""

from __future__ import annotations

from timeit import Timer
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.plugins import TYPICAL, AnswersOne, predict
from kickserve.schemas import ModelCard
from kickserve_data import DataError
from kickserve_data.scoring import REFUSALS_KEPT
from kickserve_scores.quality import Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kickserve.plugins import Model
    from kickserve_data.kicks import Block, RefusedRow

MANY: Final = 10_000
_ROUNDS: Final = 7


class Check(Struct, kw_only=True, frozen=True):
    """The result for one model.

    Attributes:
        model: its card.
        probability: its prediction of a typical kick: 30 m, 20°, a light wind.
        one_us: microseconds for one kick, in the quickest of several rounds.
        many_ms: milliseconds for 10,000 kicks together.
    """

    model: ModelCard
    probability: float
    one_us: float
    many_ms: float


class Comparison(Struct, kw_only=True, frozen=True):
    """Two models on the same kicks.

    Attributes:
        candidate: quality of the model that is checked.
        current: quality of the current model.
        in_use: card of the current model.
        without_outcome: kicks left out because their outcome is unknown.
        refused: lines left out because they hold no kick.
    """

    candidate: Quality
    current: Quality
    in_use: ModelCard
    without_outcome: int
    refused: int


def check(model: Model) -> Check:
    """Predict a typical kick, and measure the time.

    Raises:
        PredictionFailed: it raised, or returned something that is no probability.
    """
    probability = float(predict(model, TYPICAL).probability[0])
    many = np.repeat(TYPICAL, MANY, axis=0)
    row = TYPICAL[0].tolist()
    one = (
        (lambda: model.predict_one(row)) if isinstance(model, AnswersOne) else lambda: model.predict(TYPICAL)
    )
    return Check(
        model=model.card,
        probability=probability,
        one_us=_seconds(one) * 1e6,
        many_ms=_seconds(lambda: model.predict(many)) * 1e3,
    )


def compare(candidate: Model, current: Model, blocks: Iterable[Block]) -> tuple[Comparison, list[RefusedRow]]:
    """Measure two models on the same kicks.

    Args:
        candidate: the model that is checked.
        current: the model in use.
        blocks: kicks, as `kickserve_data.reader.read_blocks` yields them.

    Returns:
        The quality of both, and the first thousand of the lines that hold no kick.

    Raises:
        DataError: no outcome is known.
        PredictionFailed: a model raised, or returned something that is no probability.
    """
    measures = [(candidate, RunningQuality()), (current, RunningQuality())]
    refusals: list[RefusedRow] = []
    without_outcome = refused = 0
    for block in blocks:
        refused += len(block.refusals)
        refusals += block.refusals[: REFUSALS_KEPT - len(refusals)]
        outcome = np.full(len(block.lines), np.nan) if block.outcome is None else block.outcome
        known = ~np.isnan(outcome)
        without_outcome += len(known) - int(known.sum())
        for model, quality in measures:
            quality.add(predict(model, block.matrix[known]).probability, outcome[known])
    found, found_current = (quality.result() for _, quality in measures)
    if found is None or found_current is None:
        raise DataError("no kick of the data has an outcome: it needs a column success with 1 and 0")
    comparison = Comparison(
        candidate=found,
        current=found_current,
        in_use=current.card,
        without_outcome=without_outcome,
        refused=refused,
    )
    return comparison, refusals


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call: the mean of the quickest of several rounds."""
    timer = Timer(call)
    number = max(timer.autorange()[0] // _ROUNDS, 1)
    return min(timer.repeat(_ROUNDS, number)) / number
