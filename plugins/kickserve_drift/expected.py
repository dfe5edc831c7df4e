"""Expected quality of predictions, before their outcomes are known.

If a probability p is right, its score is known but for chance: a kick adds p(1 - p) to the Brier score on
average, and the entropy of p to the log loss. So kicks that are harder to predict, such as those from far
away, show in these figures long before their outcomes are known. A model that has become wrong does not: it
shows where outcomes are known and the measured quality lies outside what chance allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve_scores.quality import CELLS, CENTRES, SUREST, cell_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPREAD: Final = 1.96  # standard deviations that hold 95 % of a normal distribution
_MIN_EXPECTED: Final = 5  # kicks of either outcome, from which on there is an AUC


class Estimate(Struct, kw_only=True, frozen=True):
    """An expected figure, and the range in which it will lie in 95 of 100 cases.

    Attributes:
        value: the expectation.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float


class Expected(Struct, kw_only=True, frozen=True):
    """Expected quality of predictions, if their probabilities are right.

    The intervals are those of chance in the outcomes of just these kicks.

    Attributes:
        count: number of predictions, from 1.
        success_rate: share of successful kicks.
        brier: as of `kickserve_scores.quality.assess`.
        log_loss: as of `kickserve_scores.quality.assess`.
        auc: as of `kickserve_scores.quality.assess`; null where hardly any kick of one outcome is expected.
    """

    count: int
    success_rate: Estimate
    brier: Estimate
    log_loss: Estimate
    auc: Estimate | None


class Expectation:
    """Adds up predictions part by part, in memory that does not grow with their number.

    Each kick succeeds with its own probability, so sums over kicks have the moments of a Poisson-binomial
    distribution: exact mean and variance, nearly normal from some dozens on.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(CELLS, dtype=np.int64)  # for the AUC: within a cell, the order is left open
        # Of success, Brier score and log loss: the means, and the variances.
        self._means, self._variances = np.zeros(3), np.zeros(3)

    def add(self, prediction: NDArray[np.float64]) -> None:
        """Add predictions, shape (n,), each a probability."""
        self._counts += np.bincount(cell_of(prediction), minlength=CELLS)
        variance = prediction * (1 - prediction)
        sure = np.clip(prediction, SUREST, 1 - SUREST)
        log_odds = np.log(sure) - np.log1p(-sure)
        entropy = -prediction * np.log(sure) - (1 - prediction) * np.log1p(-sure)
        self._means += [each.sum() for each in (prediction, variance, entropy)]
        # Of two values a and b with probabilities p and 1 - p, the variance is p(1 - p)(a - b)².
        spreads = variance, variance * (1 - 2 * prediction) ** 2, variance * log_odds**2
        self._variances += [each.sum() for each in spreads]

    def merge(self, other: Expectation) -> None:
        """Add the predictions of another one."""
        self._counts += other._counts
        self._means += other._means
        self._variances += other._variances

    def result(self) -> Expected | None:
        """Return the expected quality of all predictions; None without any."""
        count = int(self._counts.sum())
        if not count:
            return None
        success_rate, brier, log_loss = (
            _estimate(mean / count, variance / count**2, most)
            for mean, variance, most in zip(
                self._means.tolist(), self._variances.tolist(), (1.0, np.inf, np.inf), strict=True
            )
        )
        return Expected(
            count=count, success_rate=success_rate, brier=brier, log_loss=log_loss, auc=self._auc()
        )

    def _auc(self) -> Estimate | None:
        """Weigh each pair of kicks with the probability that the first succeeds and the second does not.

        The variance is that of the linear part of the figure in the outcomes (the delta method): of kick i,
        p(1 - p) times the square of the change that its success instead of its failure makes.
        """
        won_here = self._counts * CENTRES
        lost_here, variance = self._counts - won_here, won_here * (1 - CENTRES)
        won, lost = float(won_here.sum()), float(lost_here.sum())
        if min(won, lost) < _MIN_EXPECTED:
            return None
        below = np.cumsum(lost_here) - lost_here / 2  # expected failures with less probability
        above = won - np.cumsum(won_here) + won_here / 2  # expected successes with more
        # A kick makes no pair with itself; in the sums over cells it does.
        with_itself = float(variance.sum())
        pairs = won * lost - with_itself
        right = float(won_here @ below) - with_itself / 2
        figure = right / pairs
        change = (below - above - figure * (lost - won)) / pairs
        return _estimate(figure, float(variance @ change**2), 1.0)


def _estimate(value: float, variance: float, most: float) -> Estimate:
    reach = _SPREAD * float(np.sqrt(variance))
    return Estimate(value=value, low=max(value - reach, 0.0), high=float(min(value + reach, most)))
