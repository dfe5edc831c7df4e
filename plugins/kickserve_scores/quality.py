"""How good predictions are, measured by the outcomes of the kicks: all at once, or part by part."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from kickserve.documents import NORMAL_975
from kickserve.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_BINS: Final = 10
_CELLS: Final = 1 << 16  # of equal width, which a histogram divides the probabilities into
_SUREST: Final = 1e-15  # distance from 0 and 1 that probabilities are cut to before a logarithm is taken


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

    @property
    def by_chance(self) -> float:
        """How far the two lie apart at most in 95 of 100 cases, were the predictions right (normal)."""
        return NORMAL_975 * math.sqrt(self.mean_prediction * (1 - self.mean_prediction) / self.count)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true share of successes lies in 95 of 100 cases (Wilson 1927, the score interval)."""
        share, square = self.success_rate, NORMAL_975**2 / self.count
        middle = (share + square / 2) / (1 + square)
        reach = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
        return max(middle - reach, 0.0), min(middle + reach, 1.0)


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


def assess(prediction: ArrayLike, success: ArrayLike) -> Quality:
    """Measure predictions; the order of the kicks does not matter.

    - Brier score: mean squared difference of probability and outcome (Brier 1950, for two outcomes).
    - Log loss: mean of -ln of the probability given to the outcome (Good 1952, the logarithmic score).
      Probabilities are cut to 1e-15 from 0 and 1, so that one sure error costs much, but not everything.
    - AUC: share of pairs of a success and a failure that are in the right order, ties counted as one half
      (Mann & Whitney 1947; Hanley & McNeil 1982).
    - Bins: ten that hold about as many kicks each. Equal predictions share a bin, the one that their middle
      falls into, so that there may be fewer.
    - ECE: mean distance of predicted and observed share over the bins, weighted by their size (Naeini, Cooper
      & Hauskrecht 2015, with bins of equal size instead of equal width).

    Args:
        prediction: probabilities, shape (n,), n from 1.
        success: outcomes, shape (n,), true/false or 1/0.

    Raises:
        InvalidInput: the two don't fit each other, there is nothing to measure, or a value is out of range.
    """
    p, y = _pair(prediction, success)
    values, group = np.unique(p, return_inverse=True)
    counts = np.array([np.bincount(group, y == each, len(values)) for each in (0, 1)])
    return _quality(counts, np.tile(values, (2, 1)), _log_likelihood(p, y))


def compare(first: ArrayLike, second: ArrayLike, success: ArrayLike) -> tuple[Quality, Quality, float, float]:
    """Measure two predictions of the same kicks.

    Args:
        first: probabilities, shape (n,), n from 1.
        second: other ones.
        success: outcomes, as for `assess`.

    Returns:
        The quality of both; the mean difference of the squared errors, second less first: below 0 the second
        is better; and its standard error, from the pairs; 0 for a single kick.

    Raises:
        InvalidInput: as `assess`.
    """
    qualities = assess(first, success), assess(second, success)
    (one, outcome), (other, _) = _pair(first, success), _pair(second, success)
    difference = (other - outcome) ** 2 - (one - outcome) ** 2
    error = float(difference.std() / max(len(difference) - 1, 1) ** 0.5)
    return *qualities, float(difference.mean()), error


class RunningQuality:
    """Measures predictions that come part by part, in 3 MB however many they are.

    Kicks are counted in a histogram of 65,536 cells, which has their mean in each. So the result is that of
    `assess`, of all parts together, but that `auc` and the `bins` take the kicks of a cell for equal: of
    predictions that spread over a tenth of the range or more, `auc` and `ece` differ by less than 1e-4.
    """

    def __init__(self) -> None:
        # By outcome (failure, success, unknown) and cell: number of kicks, and sum of their predictions.
        self._counts, self._totals = np.zeros((3, _CELLS)), np.zeros((3, _CELLS))
        self._log = 0.0  # near 0 and 1 a logarithm is not that of the mean of its cell

    def add(self, prediction: NDArray[np.float64], outcome: NDArray[np.float64]) -> None:
        """Add a part.

        Args:
            prediction: probabilities, shape (n,); n may be 0.
            outcome: shape (n,): 1 for a success, 0 for a failure, NaN where unknown.
        """
        cell = np.minimum((prediction * _CELLS).astype(np.intp), _CELLS - 1)
        cell += _CELLS * np.where(np.isnan(outcome), 2, outcome).astype(np.intp)
        np.add.at(self._counts.ravel(), cell, 1)
        np.add.at(self._totals.ravel(), cell, prediction)
        known = ~np.isnan(outcome)
        self._log += _log_likelihood(prediction[known], outcome[known])

    def merge(self, other: RunningQuality) -> None:
        """Add all kicks of another one, such as one of another process."""
        self._counts += other._counts
        self._totals += other._totals
        self._log += other._log

    def result(self) -> Quality | None:
        """Measure all kicks so far whose outcome is known; None where there are none."""
        some = self._counts[:2].any(axis=0)
        if not some.any():
            return None
        counts = self._counts[:2, some]
        return _quality(counts, self._totals[:2, some] / np.maximum(counts, 1), self._log)

    def cells(self, *, known: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the kicks whose outcome is known, or the others, by cell.

        Returns:
            Number of kicks, from 1, and mean prediction, which rises: both of shape (g,).
        """
        rows = slice(2) if known else slice(2, 3)
        counts, totals = self._counts[rows].sum(axis=0), self._totals[rows].sum(axis=0)
        some = counts > 0
        return counts[some], totals[some] / counts[some]

    def to_bytes(self) -> bytes:
        """Write the state for a file: a compressed NumPy archive."""
        file = io.BytesIO()
        np.savez_compressed(file, counts=self._counts, totals=self._totals, log=self._log)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> RunningQuality:
        """Read a state that `to_bytes` wrote."""
        made = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            made._counts, made._totals, made._log = arrays["counts"], arrays["totals"], float(arrays["log"])
        return made


def _log_likelihood(p: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    given = np.where(y == 1, p, 1 - p)
    return float(np.log(np.clip(given, _SUREST, 1 - _SUREST)).sum())


def _quality(counts: NDArray[np.float64], means: NDArray[np.float64], log_likelihood: float) -> Quality:
    """Measure kicks that are grouped by prediction.

    Args:
        counts: failures and successes of each group, shape (2, g).
        means: their mean predictions, rising, shape (2, g).
        log_likelihood: sum over all kicks of the logarithm of the probability given to what came.
    """
    lost, won = counts
    count = lost + won
    values = (counts * means).sum(axis=0) / count
    number = float(count.sum())
    error = np.array([means[0], 1 - means[1]])
    bins = _reliability(values, count, won)
    return Quality(
        count=int(number),
        mean_prediction=float(values @ count) / number,
        success_rate=float(won.sum()) / number,
        brier=float((counts * error**2).sum()) / number,
        log_loss=-log_likelihood / number,
        ece=sum(each.count * abs(each.mean_prediction - each.success_rate) for each in bins) / number,
        auc=_auc(lost, won),
        bins=bins,
    )


def _auc(lost: NDArray[Any], won: NDArray[Any]) -> float | None:
    if not lost.any() or not won.any():
        return None
    below = np.cumsum(lost) - lost / 2
    return float(np.sum(below / lost.sum() * (won / won.sum())))


def _reliability(values: NDArray[np.float64], count: NDArray[Any], won: NDArray[Any]) -> list[Bin]:
    middle = np.cumsum(count) - count / 2
    chosen = (middle * _BINS / count.sum()).astype(np.intp)
    sums = (np.bincount(chosen, each) for each in (count, values * count, won))
    return [
        Bin(count=int(count), mean_prediction=float(total / count), success_rate=float(won / count))
        for count, total, won in zip(*sums, strict=True)
        if count
    ]


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
