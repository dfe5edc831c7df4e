"""What learning would have brought: the kicks of a file, each predicted before its outcome is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve_scores.alarm import Alarm, Change
from kickserve_scores.filter import Filter
from kickserve_scores.quality import assess

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve_learning.file import Heard

_STEP: Final = 1_000  # kicks between two reports of progress


class Measured(Struct, kw_only=True, frozen=True):
    """How good the predictions were.

    Attributes:
        brier: Brier score.
        log_loss: mean negative log-likelihood.
        ece: expected calibration error.
        auc: null where all kicks succeeded or all failed.
        n: number of kicks.
    """

    brier: float
    log_loss: float
    ece: float
    auc: float | None
    n: int


class Raised(Struct, kw_only=True, frozen=True):
    """The first alarm on the model's own predictions.

    Attributes:
        at: line of the outcome that raised it, in Parquet its row; null where there was none.
        what: has changed: `level up`, `level down`, `too flat` or `too steep`; null without an alarm.
    """

    at: int | None
    what: str | None


class Replay(Struct, kw_only=True, frozen=True):
    """The result of a replay.

    Attributes:
        base: the model's own predictions.
        level: with the level learned.
        kickers: with the level and the kickers' abilities learned; null where the file names no kickers.
        alarm: on the model's own predictions.
    """

    base: Measured
    level: Measured
    kickers: Measured | None
    alarm: Raised


class Changes(Struct, frozen=True):
    """The first alarm on each of the predictions of a replay; None where there was none."""

    base: Change | None
    learned: Change | None


def replay(heard: Heard, advance: Callable[[int], object] = lambda _: None) -> tuple[Replay, Changes]:
    """Go through kicks in their order: predict each, then hear its outcome.

    Args:
        heard: the kicks.
        advance: called with each count of kicks that were replayed.
    """
    level, kickers = _learned(heard, advance)
    best = level if kickers is None else kickers
    changes = Changes(base=_first(heard, heard.base), learned=_first(heard, best))
    raised = changes.base
    return Replay(
        base=_measure(heard, heard.base),
        level=_measure(heard, level),
        kickers=None if kickers is None else _measure(heard, kickers),
        alarm=Raised(at=None, what=None) if raised is None else Raised(at=int(raised.at), what=raised.what),
    ), changes


def _learned(
    heard: Heard, advance: Callable[[int], object]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the predictions with the level learned, and those with the kickers too, shape (n,) each."""
    filters = [Filter(level=True, kickers=False)]
    if heard.named:
        filters.append(Filter(level=True, kickers=True))
    predicted = np.empty((len(filters), len(heard.base)))
    kicks = zip(heard.base.tolist(), heard.kicker, heard.success.tolist(), strict=True)
    for at, (base, kicker, success) in enumerate(kicks):
        for row, each in zip(predicted, filters, strict=True):
            row[at] = each.predict(base, kicker)
            each.update(base, kicker, success)
        if at % _STEP == 0:
            advance(_STEP)
    return predicted[0], predicted[1] if heard.named else None


def _measure(heard: Heard, prediction: NDArray[np.float64]) -> Measured:
    found = assess(prediction, heard.success)
    return Measured(brier=found.brier, log_loss=found.log_loss, ece=found.ece, auc=found.auc, n=found.count)


def _first(heard: Heard, prediction: NDArray[np.float64]) -> Change | None:
    alarm = Alarm()
    alarm.hear(prediction, heard.success, heard.lines)
    return alarm.first
