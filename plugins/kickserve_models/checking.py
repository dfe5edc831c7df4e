"""Checks a model before it is served: what it says of a kick, how quick it is, how it does on kicks known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.errors import DataError
from kickserve.model import TYPICAL, AnswersOne, predict
from kickserve.schemas import ModelCard
from kickserve_data.scoring import REFUSALS_KEPT
from kickserve_scores.quality import Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kickserve.model import Model
    from kickserve_data.kicks import Block, RefusedRow

MANY: Final = 10_000
_ENOUGH: Final = 0.2  # seconds that are spent on measuring one time


class Check(Struct, kw_only=True, frozen=True):
    """What came out for one model.

    Attributes:
        model: what it is.
        probability: what it says of a typical kick: 30 m, 20°, a light wind.
        one_us: microseconds for one kick, the quickest of several calls.
        many_ms: milliseconds for 10,000 kicks together.
    """

    model: ModelCard
    probability: float
    one_us: float
    many_ms: float


class Comparison(Struct, kw_only=True, frozen=True):
    """Two models on the same kicks.

    Attributes:
        candidate: how good the model that is checked is.
        current: how good the one in use is.
        in_use: what that is.
        without_outcome: kicks left out because it is not known what came of them.
        refused: lines left out because they hold no kick.
    """

    candidate: Quality
    current: Quality
    in_use: ModelCard
    without_outcome: int
    refused: int


def check(model: Model) -> Check:
    """Ask a model about a typical kick, and measure how long it takes.

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
        one_us=_quickest(one) * 1e6,
        many_ms=_quickest(lambda: model.predict(many)) * 1e3,
    )


def compare(candidate: Model, current: Model, blocks: Iterable[Block]) -> tuple[Comparison, list[RefusedRow]]:
    """Ask two models about kicks whose outcome is known.

    Args:
        candidate: the one that is checked.
        current: the one in use.
        blocks: kicks, as `kickserve_data.reader.read_blocks` gives them.

    Returns:
        How good they are, and the first thousand of the lines that hold no kick.

    Raises:
        DataError: no outcome is known.
        PredictionFailed: a model raised, or returned something that is no probability.
    """
    models, qualities = (candidate, current), (RunningQuality(), RunningQuality())
    refusals: list[RefusedRow] = []
    unknown = refused = 0
    for block in blocks:
        refused += len(block.refusals)
        refusals += block.refusals[: REFUSALS_KEPT - len(refusals)]
        if block.outcome is None:
            unknown += len(block.lines)
            continue
        told = ~np.isnan(block.outcome)
        matrix, success = block.matrix[told], block.outcome[told]
        unknown += len(told) - len(matrix)
        for model, quality in zip(models, qualities, strict=True):
            quality.add(predict(model, matrix).probability, success)
    found, found_current = (quality.result() for quality in qualities)
    if found is None or found_current is None:
        raise DataError("no kick of the data says what came of it: it needs a column success with 1 and 0")
    comparison = Comparison(
        candidate=found,
        current=found_current,
        in_use=current.card,
        without_outcome=unknown,
        refused=refused,
    )
    return comparison, refusals


def _quickest(call: Callable[[], object]) -> float:
    """Return the seconds that the quickest of several calls takes."""
    best, end = np.inf, time.perf_counter() + _ENOUGH
    while True:
        started = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - started)
        if now > end:
            return float(best)
