"""Learns from predictions of kicks that the model had not seen: calibration, and the spread of ability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.plugins import mean_shrink
from kickserve_data import DataError
from kickserve_data.simulate import ABILITY_SD
from kickserve_train.evaluation import Measure
from kickserve_train.families import fit

if TYPE_CHECKING:
    from kickserve_train.evaluation import Evaluator

_WEAK: Final = 1e-6  # precision of a prior that keeps the equations solvable where all log-odds are the same
_NODES: Final = np.linspace(-4, 4, 61)  # of ability, in its standard deviations
_MOST: Final = 2.0  # log-odds; the published spread is 0.29
_ABILITY_ERROR: Final = 0.1  # log-odds, by which others' kickers may spread otherwise
_TOLERANCE: Final = 0.005
_GOLDEN: Final = (5**0.5 - 1) / 2


class Line(NamedTuple):
    """A calibration (Platt 1999): log-odds z become slope·z + offset; the default changes nothing."""

    slope: float = 1.0
    offset: float = 0.0

    def apply(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate log-odds of any shape."""
        return self.slope * log_odds + self.offset


class Calibration(NamedTuple):
    """The outcome of calibrating.

    Attributes:
        line: to apply; the one that changes nothing where calibration does not help.
        log_odds: shape (n,), of the kicks that it was tried on, each calibrated by the line of other folds.
        gain: by how much calibration lowers the log loss, whether it is kept or not.
        kept: whether calibration is kept.
    """

    line: Line
    log_odds: NDArray[np.float64]
    gain: Measure
    kept: bool


def calibrate(
    log_odds: NDArray[np.float64],
    success: NDArray[np.bool_],
    folds: NDArray[np.intp],
    evaluator: Evaluator,
) -> Calibration:
    """Calibrate cross-validated log-odds, and keep that if it lowers the log loss by more than its error.

    Args:
        log_odds: shape (n,), of kicks that the model which gave them had not seen.
        success: shape (n,), the outcome of each.
        folds: shape (n,), the fold of each: the gain is measured on folds that the line was not fitted to.
        evaluator: of these kicks.
    """
    apart = np.empty(len(log_odds))
    for fold in np.unique(folds):
        here = folds == fold
        apart[here] = fit_line(log_odds[~here], success[~here]).apply(log_odds[here])
    gain = evaluator.loss_difference(log_odds, apart)
    if gain.value <= gain.se:
        return Calibration(Line(), log_odds, gain, kept=False)
    return Calibration(fit_line(log_odds, success), apart, gain, kept=True)


def fit_line(log_odds: NDArray[np.float64], success: NDArray[np.bool_]) -> Line:
    """Fit the line by maximum likelihood; it changes nothing where there is none, or it runs downwards."""
    x = np.column_stack([log_odds, np.ones(len(log_odds))])
    try:
        found = fit(
            lambda: [(x, success)],
            ("slope", "offset"),
            start=np.array([1.0, 0.0]),
            precision=_WEAK * np.eye(2),
        )
    except DataError:
        return Line()
    slope, offset = found.coefficients.tolist()
    return Line(slope, offset) if slope > 0 else Line()


def ability_spread(
    log_odds: NDArray[np.float64], success: NDArray[np.bool_], kicker: NDArray[np.intp]
) -> float:
    """Estimate the standard deviation of ability by maximum likelihood, as that of a random intercept.

    The likelihood of a kicker's kicks is a mean over a normal distribution of ability, taken at 61 nodes
    (marginal likelihood of a generalised linear mixed model; McCulloch & Searle 2001, chapter 8). A prior
    decides where kickers are few: normal around the published spread of 0.29, its standard deviation 0.1,
    times √s. The factor moves the mode m of a posterior of variance v to about √(m² + v), the spread of an
    ability whose spread is itself uncertain, and away from 0. Golden-section search finds the mode.

    Args:
        log_odds: shape (n,), of success over kickers of all abilities, from kicks other than these.
        success: shape (n,), the outcome of each.
        kicker: shape (n,), numbers from 0.

    Returns:
        Log-odds, above 0, to 2.
    """
    low, high = 0.0, _MOST
    while high - low > _TOLERANCE:
        step = _GOLDEN * (high - low)
        left, right = high - step, low + step
        if _posterior(left, log_odds, success, kicker) >= _posterior(right, log_odds, success, kicker):
            high = right
        else:
            low = left
    return (low + high) / 2


def _posterior(
    spread: float, log_odds: NDArray[np.float64], success: NDArray[np.bool_], kicker: NDArray[np.intp]
) -> float:
    middling, sign = log_odds * mean_shrink(spread), np.where(success, -1.0, 1.0)
    # A row a node, a column a kicker: log-likelihood of the kicker's kicks at that ability.
    logs = np.array(
        [-np.bincount(kicker, np.logaddexp(0, sign * (middling + spread * node))) for node in _NODES.tolist()]
    )
    weights = np.exp(-(_NODES**2) / 2)
    most = logs.max(axis=0)
    means = np.log((weights / weights.sum()) @ np.exp(logs - most)) + most
    return float(means.sum()) + math.log(spread) / 2 - ((spread - ABILITY_SD) / _ABILITY_ERROR) ** 2 / 2
