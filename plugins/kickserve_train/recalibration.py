"""Moves level and slope of a model to the kicks of a user, so carefully that it can hardly do harm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.plugins import SURFACE, LinearModel, expit, mean_shrink, predict
from kickserve_data.simulate import ABILITY_SD
from kickserve_scores.explain import log_odds
from kickserve_train.families import (
    MISFIT,
    NEAR_MISFIT,
    RECALIBRATED,
    LogisticFit,
    batches,
    designs,
    fit,
    misfit_covariance,
)
from kickserve_trees.model import TreesModel

if TYPE_CHECKING:
    from kickserve.plugins import LinearDocument
    from kickserve_train.dataset import Dataset

LEVEL_SD: Final = 0.3
"""Standard deviation in log-odds of how far the level is off, before any outcome is known."""
SLOPE_SD: Final = 0.15
"""The same of the factor of the log-odds, around 1."""

_SLOPE_FROM: Final = 300  # kicks; fewer say too little about a slope
_FIXED: Final = 1e-6
_HOLDS: Final = 0.7  # probability that the model holds, before any outcome is known
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


class _Posterior(NamedTuple):
    """The normal approximation to a posterior, and how well its prior foretold the outcomes."""

    mode: NDArray[np.float64]
    covariance: NDArray[np.float64]
    ln_evidence: float

    def around(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of (β - place)·(β - place)ᵀ."""
        return self.covariance + np.outer(self.mode - place, self.mode - place)


def posterior_of(
    fitted: RecalibratedFit, document: LinearDocument, dataset: Dataset, ability_sd: float
) -> LogisticFit:
    """Return the terms of a recalibrated linear model, with the errors that are left.

    Two hypotheses are averaged (Hoeting et al. 1999, "Bayesian model averaging: a tutorial"). By the first,
    the model holds within its own covariance; by the second, its level, slope and formula are off. The first
    has the probability 0.7 before any outcome is known, and then the kicks decide: the intervals narrow where
    the model does well, and stay wide where it does not. By both, a model without a surface may be wrong
    about easy kicks, of whose log-odds outcomes say next to nothing.

    Args:
        fitted: level and slope.
        document: of the model that they belong to.
        dataset: the kicks that they were fitted to.
        ability_sd: spread of ability in log-odds. The mean ability of the kickers that the data name is not
            that of all kickers, and looks like a level that has moved.

    Returns:
        Coefficients for the mean over kickers, and the mean square of how far the truth is from them.
    """
    known, shrink = len(document.terms), mean_shrink(document.ability_sd)
    surface = [] if SURFACE[0] in document.terms else list(SURFACE)
    terms = [*document.terms, *surface]
    start = np.zeros(len(terms) + 1)  # the last is the mean ability of these kickers
    start[:known] = np.array(document.coefficients) / shrink
    level = (np.array([*terms, ""]) == "intercept").astype(np.float64)
    holds = _JITTER * np.eye(len(start))
    holds[:known, :known] += np.array(document.covariance) / shrink**2
    holds[-1, -1] += ability_sd**2 * dataset.inverse_of_kickers()
    off = holds + LEVEL_SD**2 * np.outer(level, level) + SLOPE_SD**2 * np.outer(start, start)
    if surface:
        holds[known:-1, known:-1] += misfit_covariance(NEAR_MISFIT)
        off[known:-1, known:-1] += misfit_covariance(MISFIT)
    first, second = (_posterior(terms, start, prior, dataset) for prior in (holds, off))
    odds = math.log(_HOLDS / (1 - _HOLDS)) + first.ln_evidence - second.ln_evidence
    sure = float(expit(np.array(odds)))
    moved = fitted.slope * start + fitted.offset * level
    covariance = sure * first.around(moved) + (1 - sure) * second.around(moved)
    return LogisticFit(terms, moved[:-1], covariance[:-1, :-1], len(dataset))


def _posterior(
    terms: list[str], middle: NDArray[np.float64], prior: NDArray[np.float64], dataset: Dataset
) -> _Posterior:
    """Fit terms and a second intercept, with a normal prior of that middle and covariance.

    The evidence is the probability of the outcomes, by the approximation of Laplace (Kass & Raftery 1995,
    "Bayes factors", section 4.1).
    """
    both = [*terms, "intercept"]
    precision: Any = np.linalg.inv(prior)
    found = fit(lambda: designs(batches(dataset), both), both, precision=precision, center=middle)
    away = found.coefficients - middle
    sign = np.where(dataset.success, -1, 1)
    loss = float(np.logaddexp(0, sign * found.log_odds(dataset.matrix)).sum())
    volume = float(np.linalg.slogdet(found.covariance)[1] - np.linalg.slogdet(prior)[1])
    ln_evidence = (volume - away @ precision @ away) / 2 - loss
    return _Posterior(found.coefficients, found.covariance, ln_evidence)


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
