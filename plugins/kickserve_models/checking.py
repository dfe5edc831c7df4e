"""Checks a model before it serves: one prediction, its speed, and its quality on kicks with an outcome."""

from __future__ import annotations

import math
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

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_data.kicks import Block, RefusedRow

MANY: Final = 10_000
EXIT_CODES: Final = {"better": 0, "as good": 0, "worse": 9, "upside down": 8, "worse than the share": 8}
"""The kinds of verdict, and the exit code of each."""
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


class Verdict(Struct, kw_only=True, frozen=True):
    """What to make of a comparison.

    Attributes:
        kind: one of `EXIT_CODES`.
        text: the same in words, after "the model is", with the figures that it rests on.
    """

    kind: str
    text: str


class Comparison(Struct, kw_only=True, frozen=True):
    """Two models on the same kicks.

    Attributes:
        candidate: quality of the model that is checked.
        current: quality of the current model.
        in_use: card of the current model.
        verdict: whether to serve the candidate.
        without_outcome: kicks left out because their outcome is unknown.
        refused: lines left out because they hold no kick.
    """

    candidate: Quality
    current: Quality
    in_use: ModelCard
    verdict: Verdict
    without_outcome: int
    refused: int


def check(model: Model) -> Check:
    """Predict a typical kick, and measure the time.

    Raises:
        PredictionFailed: it raised, or returned something that is no probability.
    """
    many = np.repeat(TYPICAL, MANY, axis=0)
    probability = float(predict(model, many).probability[0])  # in its time limit, before it is measured
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
    errors = _Errors()
    refusals: list[RefusedRow] = []
    without_outcome = refused = 0
    for block in blocks:
        refused += len(block.refusals)
        refusals += block.refusals[: REFUSALS_KEPT - len(refusals)]
        outcome = np.full(len(block.lines), np.nan) if block.outcome is None else block.outcome
        known = ~np.isnan(outcome)
        without_outcome += len(known) - int(known.sum())
        predictions = []
        for model, quality in measures:
            predictions.append(predict(model, block.matrix[known]).probability)
            quality.add(predictions[-1], outcome[known])
        errors.add(predictions[0], predictions[1], outcome[known])
    found, found_current = (quality.result() for _, quality in measures)
    if found is None or found_current is None:
        raise DataError("no kick of the data has an outcome: it needs a column success with 1 and 0")
    comparison = Comparison(
        candidate=found,
        current=found_current,
        in_use=current.card,
        verdict=_verdict(found, current.card.name, errors),
        without_outcome=without_outcome,
        refused=refused,
    )
    return comparison, refusals


class _Errors:
    """Sums of squared errors of two models on the same kicks, apart for misses and successes."""

    def __init__(self) -> None:
        # A row a miss or success; columns: kicks, sum and sum of squares of the candidate's error, and of the
        # difference to the current model's.
        self._sums = np.zeros((2, 5))

    def add(
        self, candidate: NDArray[np.float64], current: NDArray[np.float64], outcome: NDArray[np.float64]
    ) -> None:
        """Add n kicks: two probabilities and an outcome of each, shape (n,)."""
        error = (candidate - outcome) ** 2
        more = error - (current - outcome) ** 2
        columns = np.column_stack([np.ones(len(error)), error, error**2, more, more**2])
        for each in (0, 1):
            self._sums[each] += columns[outcome == each].sum(axis=0)

    def against_current(self) -> tuple[float, float]:
        """Return how much more Brier score the candidate has than the current model, and twice its error."""
        count, _, _, total, squares = self._sums.sum(axis=0)
        mean = total / count
        return float(mean), 2 * math.sqrt(max(squares / count - mean**2, 0) / count)

    def against_share(self) -> tuple[float, float]:
        """Return the same against the share of successes as the prediction of every kick."""
        count, total, squares, *_ = self._sums.T
        share = count[1] / count.sum()
        constant = (
            np.array([share, 1 - share]) ** 2
        )  # the squared error of the share, for a miss and a success
        mean = (total - count * constant).sum() / count.sum()
        square = (squares - 2 * constant * total + count * constant**2).sum() / count.sum()
        return float(mean), 2 * math.sqrt(max(square - mean**2, 0) / count.sum())


def _verdict(this: Quality, name: str, errors: _Errors) -> Verdict:
    """Judge a model by differences that exceed twice their standard error."""
    won = this.success_rate * this.count
    lost = this.count - won
    # The spread of the AUC of predictions that say nothing (Mann & Whitney 1947).
    if this.auc is not None and this.auc < 0.5 - 2 * math.sqrt((this.count + 1) / (12 * won * lost)):
        return Verdict(
            kind="upside down",
            text=f"upside down: its AUC is {this.auc:.4f}, so that misses get higher probabilities."
            " Don't serve it: see that its labels are 1 for a success, or set KICKSERVE_SUCCESS_LABEL",
        )
    more, sure = errors.against_share()
    if more > sure:
        return Verdict(
            kind="worse than the share",
            text=f"worse than always saying {this.success_rate:.1%}, by {more:.4f} ± {sure:.4f} of Brier"
            " score. Don't serve it: train it on kicks like these",
        )
    more, sure = errors.against_current()
    score = f"{abs(more):.4f} ± {sure:.4f} of Brier score"
    if abs(more) <= sure:
        return Verdict(
            kind="as good", text=f"as good as {name}, the model in use, within {sure:.4f} of Brier score"
        )
    if more > 0:
        return Verdict(kind="worse", text=f"worse than {name}, the model in use, by {score}: keep that")
    return Verdict(kind="better", text=f"better than {name}, the model in use, by {score}")


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call: the mean of the quickest of several rounds."""
    timer = Timer(call)
    number = max(timer.autorange()[0] // _ROUNDS, 1)
    return min(timer.repeat(_ROUNDS, number)) / number
