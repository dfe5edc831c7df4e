"""How good predictions are, once it is known what came of the kicks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from kickserve.errors import InvalidInput
from kickserve_scores.cells import CELLS, WHOLE, Cells, whole_sum
from kickserve_scores.packing import limbs, of_limbs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

BINS: Final = 10
EXACT: Final = 1_000_000
"""Kicks up to which a running assessment is exact."""

_SURE: Final = 1.96  # standard errors on each side, for 95 of 100 cases
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

    @property
    def by_chance(self) -> float:
        """How far the two lie apart at most in 95 of 100 cases, were the predictions right (normal)."""
        return _SURE * math.sqrt(self.mean_prediction * (1 - self.mean_prediction) / self.count)


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
    return float(-np.mean(_log_given(p, y)))


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
    return _bins(chosen, 1, p, y)


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
    """Measure predictions in every way that this module knows; their order does not matter to the last bit.

    Args:
        prediction: probabilities, shape (n,).
        success: outcomes, shape (n,), true/false or 1/0.

    Raises:
        InvalidInput: the two don't fit each other, or there is nothing to measure.
    """
    p, y = _pair(prediction, success)
    order = np.lexsort((y, p))  # what sums of floats come to depends on it
    p, y = p[order], y[order]
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


class RunningQuality:
    """Measures predictions that come part by part, in memory that does not grow with their number.

    Up to `exact` kicks the result is that of `assess`, of all parts together. Beyond, the pairs are counted
    in 65,536 cells of equal width: count, means, Brier score and log loss stay exact but for rounding;
    `auc` takes pairs within a cell for ties, and the edges of `bins` stand between cells. Of predictions that
    spread over a tenth of the range or more, `auc` and `ece` then differ from `assess` by less than 1e-4.
    Either way the result is the same to the last bit, however the kicks are split into parts, and in
    whatever order the parts come or are merged.

    Args:
        exact: kicks up to which it is exact; each takes nine bytes.
    """

    def __init__(self, exact: int = EXACT) -> None:
        self._exact = exact
        self._held: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
        self._holding = 0
        self._cells: _Cells | None = None

    def add(self, prediction: ArrayLike, success: ArrayLike) -> None:
        """Add a part.

        Args:
            prediction: probabilities, shape (n,); n may be 0.
            success: outcomes, shape (n,), true/false or 1/0.

        Raises:
            InvalidInput: the two don't fit each other.
        """
        if np.size(prediction) or np.size(success):
            p, y = _pair(prediction, success)
            self._hold(p.copy(), y == 1)

    def merge(self, other: RunningQuality) -> None:
        """Add all that another has been given, such as one of another process; it is left as it is."""
        if other._cells is not None:
            self._counted().merge(other._cells)
        for p, y in other._held:
            self._hold(p, y)

    def result(self) -> Quality | None:
        """Measure what was added so far; None where that is nothing."""
        if self._cells is None:
            return assess(*map(np.concatenate, zip(*self._held, strict=True))) if self._held else None
        return self._counted().quality()

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that it holds as arrays, for a file or another process."""
        if self._cells is None:
            p, y = map(np.concatenate, zip(*self._held, strict=True)) if self._held else ([], [])
            return {"p": np.asarray(p, dtype=np.float64), "y": np.asarray(y, dtype=bool)}
        cells = self._counted()
        sums = limbs([cells.squares, cells.logs])
        return {"count": cells.all.count, "offset": cells.all.offset, "won": cells.won, "sums": sums}

    @classmethod
    def of_state(cls, state: Mapping[str, NDArray[Any]], exact: int = EXACT) -> RunningQuality:
        """Take up what `state` returned."""
        made = cls(exact)
        if "p" in state:
            made._hold(state["p"], state["y"])
            return made
        made._cells = cells = _Cells()
        cells.all.count, cells.all.offset, cells.won = (
            state[name].astype(np.int64) for name in ("count", "offset", "won")
        )
        cells.squares, cells.logs = of_limbs(state["sums"])
        return made

    def _hold(self, p: NDArray[np.float64], y: NDArray[np.bool_]) -> None:
        if not len(p):
            return
        self._held.append((p, y))
        self._holding += len(p)
        if self._holding > (self._exact if self._cells is None else CELLS):
            self._counted()

    def _counted(self) -> _Cells:
        """Count what is held, from now on in cells."""
        self._cells = self._cells or _Cells()
        for p, y in self._batches():
            self._cells.add(p, y)
        self._held, self._holding = [], 0
        return self._cells

    def _batches(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
        if self._held:
            p, y = map(np.concatenate, zip(*self._held, strict=True))
            for start in range(0, len(p), CELLS):
                yield p[start : start + CELLS], y[start : start + CELLS]


class _Cells:
    """Predictions and outcomes, counted by the cell that the prediction falls into."""

    def __init__(self) -> None:
        self.all = Cells()
        self.won = np.zeros(CELLS, dtype=np.int64)
        self.squares = self.logs = 0  # as `whole_sum` counts

    def add(self, p: NDArray[np.float64], y: NDArray[np.bool_]) -> None:
        cell = self.all.add(p)
        self.won += np.bincount(cell[y], minlength=CELLS)
        self.squares += whole_sum((p - y) ** 2)
        self.logs += whole_sum(_log_given(p, y))

    def merge(self, other: _Cells) -> None:
        self.all.merge(other.all)
        self.won += other.won
        self.squares += other.squares
        self.logs += other.logs

    def quality(self) -> Quality:
        count, won = int(self.all.count.sum()), int(self.won.sum())
        total = self.all.total
        bins = self._reliability(count, total)
        return Quality(
            count=count,
            mean_prediction=float(total.sum()) / count,
            success_rate=won / count,
            brier=self.squares / WHOLE / count,
            log_loss=-self.logs / WHOLE / count,
            ece=_calibration_error(bins),
            auc=self._auc(won, count - won),
            bins=bins,
        )

    def _auc(self, won: int, lost: int) -> float | None:
        if not won or not lost:
            return None
        lost_here = self.all.count - self.won
        below = np.cumsum(lost_here) - lost_here / 2
        return float(np.sum(below / lost * (self.won / won)))

    def _reliability(self, count: int, total: NDArray[np.float64]) -> list[Bin]:
        full = self.all.count > 0
        counts = self.all.count[full]
        middle = np.cumsum(counts) - counts / 2
        chosen = (middle * BINS / count).astype(np.intp)
        return _bins(chosen, counts, total[full], self.won[full])


def _bins(chosen: NDArray[np.intp], count: ArrayLike, total: ArrayLike, won: ArrayLike) -> list[Bin]:
    """Put together what was chosen for the same bin: how many kicks, sum of predictions, successes."""
    sums = (np.bincount(chosen, np.broadcast_to(each, chosen.shape)) for each in (count, total, won))
    return [
        Bin(count=int(count), mean_prediction=float(total / count), success_rate=float(won / count))
        for count, total, won in zip(*sums, strict=True)
        if count
    ]


def _log_given(p: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms of the probabilities that were given to what happened."""
    given = np.where(y == 1, p, 1 - p)
    result: NDArray[np.float64] = np.log(np.clip(given, _SUREST, 1 - _SUREST))
    return result


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
