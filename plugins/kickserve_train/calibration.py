"""Calibrates log-odds on predictions of kicks that the model had not seen, if that helps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.documents import expit
from kickserve_train.measures import Value

if TYPE_CHECKING:
    from kickserve_train.measures import Judge

_STEPS: Final = 25
_ENOUGH: Final = 1e-9
_WEAK: Final = 1e-6  # keeps the equations solvable where all log-odds are the same


class Line(NamedTuple):
    """A calibration (Platt 1999): log-odds z become slope·z + offset; as it stands it changes nothing."""

    slope: float = 1.0
    offset: float = 0.0

    def of(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate log-odds of any shape."""
        return self.slope * log_odds + self.offset


class Calibration(NamedTuple):
    """What calibration came to.

    Attributes:
        line: to apply; the one that changes nothing where calibration does not help.
        log_odds: shape (n,), of the kicks that it was tried on, each calibrated by what other folds teach.
        gain: by how much it lowers the log loss, whether it is kept or not.
        kept: whether it is.
    """

    line: Line
    log_odds: NDArray[np.float64]
    gain: Value
    kept: bool


def calibrate(
    log_odds: NDArray[np.float64], success: NDArray[np.bool_], folds: NDArray[np.intp], judge: Judge
) -> Calibration:
    """Calibrate cross-validated log-odds, and keep that if it lowers the log loss by more than its error.

    Args:
        log_odds: shape (n,), of kicks that the model which gave them had not seen.
        success: shape (n,), what came of each.
        folds: shape (n,), the fold of each: the gain is measured on folds that the line was not fitted to.
        judge: of these kicks.
    """
    apart = np.empty(len(log_odds))
    for fold in np.unique(folds):
        here = folds == fold
        apart[here] = line_through(log_odds[~here], success[~here]).of(log_odds[here])
    gain = judge.loss_difference(log_odds, apart)
    if gain.value <= gain.se:
        return Calibration(Line(), log_odds, gain, kept=False)
    return Calibration(line_through(log_odds, success), apart, gain, kept=True)


def line_through(log_odds: NDArray[np.float64], success: NDArray[np.bool_]) -> Line:
    """Fit the line by maximum likelihood; it changes nothing where the likeliest one runs downwards."""
    x = np.column_stack([log_odds, np.ones(len(log_odds))])
    found = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        p = expit(x @ found)
        information = (x * (p * (1 - p))[:, np.newaxis]).T @ x + _WEAK * np.eye(2)
        change = np.linalg.solve(information, x.T @ (success - p))
        found = found + change
        if np.abs(change).max() < _ENOUGH:
            break
    slope, offset = found.tolist()
    return Line(slope, offset) if 0 < slope < np.inf else Line()
