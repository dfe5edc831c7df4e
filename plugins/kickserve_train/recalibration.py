"""Moves level and slope of a model to the kicks of a user, so carefully that it can hardly do harm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from kickserve.plugins import SURFACE, LinearModel, expit, mean_shrink, predict
from kickserve_data.simulate import ABILITY_SD
from kickserve_scores.explain import log_odds
from kickserve_train.families import RECALIBRATED, LogisticFit, designs, fit, misfit_covariance
from kickserve_trees.model import TreesModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kickserve.plugins import LinearDocument
    from kickserve_train.dataset import Dataset

LEVEL_SD: Final = 0.3
"""Standard deviation in log-odds of how far the level is off, before any outcome is known."""
SLOPE_SD: Final = 0.15
"""The same of the factor of the log-odds, around 1."""

_SLOPE_FROM: Final = 300  # kicks; fewer say too little about a slope
_FIXED: Final = 1e-6
_JITTER: Final = 1e-9  # a covariance may have coefficients that hang together
_HARM: Final = 0.0012  # log loss
_SURE: Final = 4.0  # standard errors: of two numbers, 1 in 3,000 is beyond them


class RecalibratedFit(NamedTuple):
    """A model whose log-odds z became slope·z + offset."""

    start: LinearModel | TreesModel
    slope: float
    offset: float

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of n kicks, shape (n,)."""
        return self.slope * log_odds(predict(self.start, matrix).probability) + self.offset


class Recalibrated:
    """The family of a model with its level moved, and from 300 kicks on its slope.

    The move is the mode of a posterior, then shortened until it does no harm: with s the shift of each kick's
    log-odds, y - p what its outcome was beyond the model's p, and h = p·(1 - p), a move by the part t of s
    lowers the sum of log losses by t·Σs·(y - p) - t²·Σh·s²/2, to second order. The first sum errs by
    √(Σh·s²). So t is the largest, up to 1, with which the mean log loss rises by at most 0.0012 even if the
    sum was too large by 4 of its errors. By 30 kicks the model hardly moves, unless they leave no doubt.

    Args:
        start: the model.
    """

    kind = RECALIBRATED

    def __init__(self, start: LinearModel | TreesModel) -> None:
        self._start = start

    def fit(self, dataset: Dataset, seed: int = 0) -> RecalibratedFit:  # noqa: ARG002  nothing is drawn
        """Fit it.

        Raises:
            PredictionFailed: the model could not predict.
        """
        z = log_odds(predict(self._start, dataset.matrix).probability)
        x = np.column_stack([z, np.ones(len(z))])
        slope_sd = SLOPE_SD if len(z) >= _SLOPE_FROM else _FIXED
        # The level is that at the mean of the log-odds, where it does not depend on the slope.
        axes = np.array([[1 / slope_sd, 0], [z.mean() / LEVEL_SD, 1 / LEVEL_SD]])
        same = np.array([1.0, 0.0])
        found = fit(lambda: [(x, dataset.success)], ("slope", "offset"), precision=axes.T @ axes, center=same)
        move = found.coefficients - same
        move *= _part(x @ move, z, dataset)
        slope, offset = (same + move).tolist()
        return RecalibratedFit(self._start, slope, offset)


def posterior_of(fitted: RecalibratedFit, document: LinearDocument, dataset: Dataset) -> LogisticFit:
    """Return the terms of a recalibrated linear model, with the errors that are left.

    What is known before is the model with its own covariance, the level and slope with theirs, and a surface
    of misfit, if the model has none. What the kicks add gives a posterior, and the covariance is that of the
    truth around the recalibrated model: the posterior's, and the square of how far its middle is away.

    Args:
        fitted: level and slope.
        document: of the model that they belong to.
        dataset: the kicks that they were fitted to.

    Returns:
        Coefficients and covariance for the mean over kickers.
    """
    known = len(document.terms)
    more = [] if SURFACE[0] in document.terms else list(SURFACE)
    terms, shrink = [*document.terms, *more], mean_shrink(document.ability_sd)
    start = np.zeros(len(terms))
    start[:known] = np.array(document.coefficients) / shrink
    level = (np.array(terms) == "intercept").astype(np.float64)
    prior = LEVEL_SD**2 * np.outer(level, level) + SLOPE_SD**2 * np.outer(start, start)
    prior[:known, :known] += np.array(document.covariance) / shrink**2
    if more:
        prior[known:, known:] = misfit_covariance()
    precision: Any = np.linalg.inv(prior + _JITTER * np.eye(len(terms)))
    found = fit(
        lambda: designs([(dataset.matrix, dataset.success)], terms),
        terms,
        precision=precision,
        center=start,
    )
    moved = fitted.slope * start + fitted.offset * level
    away = moved - found.coefficients
    return LogisticFit(terms, moved, found.covariance + np.outer(away, away), len(dataset))


def _part(shift: NDArray[np.float64], z: NDArray[np.float64], dataset: Dataset) -> float:
    """Return the part of a shift of log-odds z, both of shape (n,), that can be made without harm."""
    p = expit(z)
    weighted = p * (1 - p) * shift
    curve = float(weighted @ shift)
    variance = curve
    if dataset.kicker is not None:  # kicks of one kicker err together
        variance += ABILITY_SD**2 * float(np.sum(np.bincount(dataset.kicker, weighted) ** 2))
    gain = float(shift @ (dataset.success - p)) - _SURE * math.sqrt(variance)
    if curve == 0:
        return 0.0
    return min(1.0, (gain + math.sqrt(gain**2 + 2 * curve * len(z) * _HARM)) / curve)
