"""How good predictions are, measured by the outcomes of the kicks: all at once, or part by part."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from kickserve.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CELLS: Final = 1 << 16
"""Cells of equal width that a histogram divides the probabilities into."""
CENTRES: Final = (np.arange(CELLS) + 0.5) / CELLS
"""The probability at the centre of each cell, shape (65536,)."""
EXACT: Final = 1_000_000
"""Kicks up to which a running assessment is exact."""
SUREST: Final = 1e-15
"""Distance from 0 and 1 that probabilities are cut to before a logarithm is taken."""

_BINS: Final = 10
_NORMAL_975: Final = 1.96


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
        return _NORMAL_975 * math.sqrt(self.mean_prediction * (1 - self.mean_prediction) / self.count)


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
    won = np.bincount(group, y)
    lost = np.bincount(group) - won
    sums = np.sum([won * each for each in _scores(values, 1)], 1)
    sums += np.sum([lost * each for each in _scores(values, 0)], 1)
    return _quality(values, lost, won, sums)


class RunningQuality:
    """Measures predictions that come part by part, in memory that does not grow with their number.

    Up to `exact` kicks the result is that of `assess`, of all parts together. Beyond, outcomes are counted in
    a histogram of 65,536 cells: count, means, Brier score and log loss stay exact but for rounding; `auc` and
    `ece` take the kicks of a cell for equal, and the edges of `bins` lie between cells. Of predictions that
    spread over a tenth of the range or more, `auc` and `ece` then differ from `assess` by less than 1e-4.

    Args:
        exact: kicks up to which the result is exact; each takes nine bytes.
    """

    def __init__(self, exact: int = EXACT) -> None:
        self._exact = exact
        self._pairs: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
        self._held = 0
        self._histogram: _Histogram | None = None

    def add(self, prediction: ArrayLike, success: ArrayLike) -> None:
        """Add a part.

        Args:
            prediction: probabilities, shape (n,); n may be 0.
            success: outcomes, shape (n,), true/false or 1/0.

        Raises:
            InvalidInput: the two don't fit each other, or a value is out of range.
        """
        if np.size(prediction) or np.size(success):
            p, y = _pair(prediction, success)
            self._hold(p.copy(), y == 1)

    def merge(self, other: RunningQuality) -> None:
        """Add all kicks of another one, such as one of another process; the other is not changed."""
        if other._histogram is not None:
            self._counted().merge(other._histogram)
        for p, y in other._pairs:
            self._hold(p, y)

    def result(self) -> Quality | None:
        """Measure all kicks so far; None where there are none."""
        if self._histogram is not None:
            return self._counted().quality()
        return assess(*self._joined()) if self._pairs else None

    def to_bytes(self) -> bytes:
        """Write the state for a file: a compressed NumPy archive."""
        file = io.BytesIO()
        if self._histogram is None:
            p, y = self._joined()
            np.savez_compressed(file, p=p, y=y)
        else:
            counted = self._counted()
            np.savez_compressed(file, counts=counted.counts, sums=counted.sums)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, exact: int = EXACT) -> RunningQuality:
        """Read a state that `to_bytes` wrote."""
        made = cls(exact)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if "p" in arrays:
                made._hold(arrays["p"], arrays["y"])
            else:
                made._histogram = _Histogram(arrays["counts"], arrays["sums"])
        return made

    def _hold(self, p: NDArray[np.float64], y: NDArray[np.bool_]) -> None:
        if len(p):
            self._pairs.append((p, y))
            self._held += len(p)
            if self._held > (self._exact if self._histogram is None else CELLS):
                self._counted()

    def _joined(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        pairs = [(np.empty(0), np.empty(0, bool)), *self._pairs]
        return np.concatenate([p for p, _ in pairs]), np.concatenate([y for _, y in pairs])

    def _counted(self) -> _Histogram:
        """Move all kicks that are held into the histogram."""
        if self._histogram is None:
            self._histogram = _Histogram(np.zeros((2, CELLS), np.int64), np.zeros(3))
        self._histogram.add(*self._joined())
        self._pairs, self._held = [], 0
        return self._histogram


class _Histogram:
    """Outcomes counted by the cell of the prediction.

    Attributes:
        counts: shape (2, 65536), failures and successes.
        sums: shape (3,), of the `_scores` of all kicks.
    """

    def __init__(self, counts: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
        self.counts = counts
        self.sums = sums

    def add(self, p: NDArray[np.float64], y: NDArray[np.bool_]) -> None:
        counts = np.bincount(cell_of(p) + CELLS * y, minlength=2 * CELLS)
        self.counts += counts.reshape(2, CELLS)
        self.sums += [each.sum() for each in _scores(p, y)]

    def merge(self, other: _Histogram) -> None:
        self.counts += other.counts
        self.sums += other.sums

    def quality(self) -> Quality:
        some = self.counts.any(axis=0)
        lost, won = self.counts[:, some]
        return _quality(CENTRES[some], lost, won, self.sums)


def cell_of(prediction: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the cell of each probability, shape (n,), 0 to 65535."""
    return np.minimum((prediction * CELLS).astype(np.intp), CELLS - 1)


def _scores(p: NDArray[np.float64], y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return probability, squared error and log-likelihood of each kick."""
    given = np.where(np.equal(y, 1), p, 1 - p)
    return p, (1 - given) ** 2, np.log(np.clip(given, SUREST, 1 - SUREST))


def _quality(
    values: NDArray[np.float64], lost: NDArray[Any], won: NDArray[Any], sums: NDArray[np.float64]
) -> Quality:
    """Measure kicks that are grouped by prediction.

    Args:
        values: the predictions, shape (g,), rising.
        lost: failures with each prediction, shape (g,).
        won: successes with each prediction, shape (g,).
        sums: shape (3,), of the `_scores` of all kicks.
    """
    count = int(lost.sum() + won.sum())
    mean, squares, logs = (sums / count).tolist()
    bins = _reliability(values, lost + won, won)
    return Quality(
        count=count,
        mean_prediction=mean,
        success_rate=float(won.sum()) / count,
        brier=squares,
        log_loss=-logs,
        ece=sum(each.count * abs(each.mean_prediction - each.success_rate) for each in bins) / count,
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
