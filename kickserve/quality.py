"""How good predictions are, once it is known what came of the kicks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BINS: Final = 10
_SUREST: Final = 1e-15  # keeps the logarithm of a prediction of 0 or 1 finite


class Bin(Struct, kw_only=True, frozen=True):
    """Kicks with like predictions.

    Attributes:
        count: how many, from 1.
        mean_prediction: their mean predicted probability.
        success_rate: the share that succeeded.
    """

    count: int
    mean_prediction: float
    success_rate: float


class Quality(Struct, kw_only=True, frozen=True):
    """How good the predictions of some kicks were.

    Attributes:
        count: how many kicks, from 1.
        mean_prediction: mean predicted probability.
        success_rate: the share that succeeded; near the mean prediction where the model is right on average.
        brier: mean squared error of the probability, 0 (best) to 1.
        log_loss: mean negative log-likelihood, 0 (best) upwards.
        ece: expected calibration error, 0 (best) to 1.
        auc: probability that a success was predicted higher than a failure, 0 to 1, 0.5 by chance; null where
            all kicks succeeded or all failed.
        bins: the reliability diagram, by rising prediction.
    """

    count: int
    mean_prediction: float
    success_rate: float
    brier: float
    log_loss: float
    ece: float
    auc: float | None
    bins: list[Bin]


def brier(prediction: ArrayLike, success: ArrayLike) -> float:
    """Mean squared difference of probability and outcome (Brier 1950, in its form for two outcomes).

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.

    Raises:
        InvalidInput: the two don't fit each other, or there is nothing to measure.
    """
    p, y = _pair(prediction, success)
    return float(np.mean((p - y) ** 2))


def log_loss(prediction: ArrayLike, success: ArrayLike) -> float:
    """Mean of -ln of the probability given to what happened (Good 1952, the logarithmic score).

    Probabilities are cut to 1e-15 from 0 and 1, so that one sure error costs much, but not everything.

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.

    Raises:
        InvalidInput: the two don't fit each other, or there is nothing to measure.
    """
    p, y = _pair(prediction, success)
    given = np.clip(np.where(y == 1, p, 1 - p), _SUREST, 1 - _SUREST)
    return float(-np.mean(np.log(given)))


def auc(prediction: ArrayLike, success: ArrayLike) -> float | None:
    """Area under the ROC curve: the share of pairs of a success and a failure that are in the right order.

    From the sum of ranks, ties counted as one half (Mann & Whitney 1947; Hanley & McNeil 1982).

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.

    Returns:
        0 to 1, or None where there is no such pair.

    Raises:
        InvalidInput: the two don't fit each other, or there is nothing to measure.
    """
    p, y = _pair(prediction, success)
    won = float(y.sum())
    lost = len(y) - won
    if not won or not lost:
        return None
    above = float(_middle(p)[y == 1].sum()) - won * won / 2  # less the pairs of two successes
    return above / (won * lost)


def reliability(prediction: ArrayLike, success: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Compare predictions with outcomes in bins that hold about as many kicks each.

    Equal predictions always share a bin, the one that their middle falls into; so bins may differ in size,
    and there may be fewer than asked for.

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.
        bins: how many at most, from 1.

    Returns:
        Bins by rising prediction, none empty.

    Raises:
        InvalidInput: the two don't fit each other, there is nothing to measure, or no bin to put it in.
    """
    p, y = _pair(prediction, success)
    if bins < 1:
        raise InvalidInput(f"bins={bins} can't be used: ask for 1 or more")
    chosen = (_middle(p) * bins / len(p)).astype(np.intp)
    counts = np.bincount(chosen)
    sums = zip(counts, np.bincount(chosen, p), np.bincount(chosen, y), strict=True)
    return [
        Bin(count=int(count), mean_prediction=float(total / count), success_rate=float(won / count))
        for count, total, won in sums
        if count
    ]


def expected_calibration_error(prediction: ArrayLike, success: ArrayLike, bins: int = BINS) -> float:
    """Mean distance of predicted and observed share over the bins of `reliability`, weighted by their size.

    The formula is that of Naeini, Cooper & Hauskrecht 2015, with bins of equal size instead of equal width.

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.
        bins: how many at most, from 1.

    Raises:
        InvalidInput: as for `reliability`.
    """
    return _calibration_error(reliability(prediction, success, bins))


def assess(prediction: ArrayLike, success: ArrayLike) -> Quality:
    """Measure predictions in every way that this module knows.

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.

    Raises:
        InvalidInput: the two don't fit each other, or there is nothing to measure.
    """
    p, y = _pair(prediction, success)
    bins = reliability(p, y)
    return Quality(
        count=len(p),
        mean_prediction=float(p.mean()),
        success_rate=float(y.mean()),
        brier=brier(p, y),
        log_loss=log_loss(p, y),
        ece=_calibration_error(bins),
        auc=auc(p, y),
        bins=bins,
    )


def _pair(prediction: ArrayLike, success: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(prediction, dtype=np.float64), np.asarray(success, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise InvalidInput(
            f"predictions of shape {p.shape} and outcomes of shape {y.shape} can't be compared:"
            " give one outcome for each prediction"
        )
    if not len(p):
        raise InvalidInput("there is nothing to measure: give at least one kick whose outcome is known")
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidInput("a prediction is no probability: give numbers from 0 to 1")
    if not ((y == 0) | (y == 1)).all():
        raise InvalidInput("an outcome is neither true nor false: give true, false, 1 or 0")
    return p, y


def _calibration_error(bins: list[Bin]) -> float:
    off = sum(each.count * abs(each.mean_prediction - each.success_rate) for each in bins)
    return off / sum(each.count for each in bins)


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many values lie below each, equal ones (and it itself) counted as one half."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    result: NDArray[np.float64] = (np.cumsum(counts) - counts / 2)[group]
    return result
