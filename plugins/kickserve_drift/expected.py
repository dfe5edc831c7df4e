"""How good predictions should turn out, before anything is known of the outcomes.

If a probability p is right, what it will score is known but for chance: a kick adds p(1 - p) to the Brier
score on average, and the entropy of p to the log loss. So kicks that are harder to foretell, such as those
from far away, show in these figures long before outcomes come in. What they can't show is a model that has
become wrong: that shows where outcomes are known and what is measured lies outside what chance allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CELLS: Final = 1 << 16  # of the probability, for the AUC: within one, the order is left open
_SUREST: Final = 1e-15  # as in `kickserve.quality`
_SPREAD: Final = 1.96  # standard deviations that hold 95 % of a normal distribution
_FEWEST: Final = 5  # expected kicks of either outcome, from which on an AUC is said


class Estimate(Struct, kw_only=True, frozen=True):
    """A figure that is expected, and the range in which it will lie in 95 of 100 cases.

    Attributes:
        value: the expectation.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def __contains__(self, figure: float) -> bool:
        return self.low <= figure <= self.high


class Expected(Struct, kw_only=True, frozen=True):
    """How good predictions should turn out, if their probabilities are right.

    The intervals hold what chance does to the outcomes of just these kicks, and nothing else.

    Attributes:
        count: how many predictions, from 1.
        success_rate: the share of kicks that should succeed.
        brier: as `kickserve.quality.brier`.
        log_loss: as `kickserve.quality.log_loss`.
        auc: as `kickserve.quality.auc`; null where hardly any kick of one outcome is expected.
    """

    count: int
    success_rate: Estimate
    brier: Estimate
    log_loss: Estimate
    auc: Estimate | None


class Expectation:
    """Adds up predictions, part by part, in memory that does not grow with their number.

    Whether each kick succeeds is a draw of its own with its own probability, so a sum over kicks has the
    moments of a Poisson-binomial distribution: exact mean and variance, nearly normal from some dozens on.
    """

    def __init__(self) -> None:
        self._count = np.zeros(_CELLS)
        self._won = np.zeros(_CELLS)  # expected successes
        self._chance = np.zeros(_CELLS)  # the sum of p(1 - p), the variance of the successes
        self._means = np.zeros(2)  # of the sums of Brier and logarithmic score
        self._variances = np.zeros(2)

    def add(self, prediction: NDArray[np.float64]) -> None:
        """Add predictions, shape (n,), each a probability."""
        chance = prediction * (1 - prediction)
        cell = np.minimum(prediction * _CELLS, _CELLS - 1).astype(np.intp)
        self._count += np.bincount(cell, minlength=_CELLS)
        self._won += np.bincount(cell, prediction, minlength=_CELLS)
        self._chance += np.bincount(cell, chance, minlength=_CELLS)
        sure = np.clip(prediction, _SUREST, 1 - _SUREST)
        log_odds = np.log(sure) - np.log1p(-sure)
        entropy = -prediction * np.log(sure) - (1 - prediction) * np.log1p(-sure)
        # Of two values a and b with probabilities p and 1 - p, the variance is p(1 - p)(a - b)².
        self._means += chance.sum(), entropy.sum()
        self._variances += np.sum(chance * (1 - 2 * prediction) ** 2), np.sum(chance * log_odds**2)

    def result(self) -> Expected | None:
        """Return what to expect of all that were added; None where that is nothing."""
        count = int(self._count.sum())
        if not count:
            return None
        won = float(self._won.sum())
        brier, log_loss = (
            _estimate(mean / count, variance / count**2)
            for mean, variance in zip(self._means.tolist(), self._variances.tolist(), strict=True)
        )
        return Expected(
            count=count,
            success_rate=_estimate(won / count, float(self._chance.sum()) / count**2, most=1.0),
            brier=brier,
            log_loss=log_loss,
            auc=self._auc(won, count - won),
        )

    def _auc(self, won: float, lost: float) -> Estimate | None:
        """Weigh each pair of kicks with the probability that the first succeeds and the second does not.

        The variance is that of the linear part of the figure in the outcomes (the delta method): of kick i
        it is p(1 - p) times the square of what its success instead of its failure changes.
        """
        if min(won, lost) < _FEWEST:
            return None
        lost_here = self._count - self._won
        below = np.cumsum(lost_here) - lost_here / 2  # expected failures with less probability
        above = won - np.cumsum(self._won) + self._won / 2  # expected successes with more
        # A kick makes no pair with itself; in the sums over cells it does.
        with_itself = float(self._chance.sum())
        pairs = won * lost - with_itself
        right = float(self._won @ below) - with_itself / 2
        figure = right / pairs
        change = (below - above - figure * (lost - won)) / pairs
        return _estimate(figure, float(self._chance @ change**2), most=1.0)


def _estimate(value: float, variance: float, most: float = np.inf) -> Estimate:
    reach = _SPREAD * float(np.sqrt(variance))
    return Estimate(value=value, low=max(value - reach, 0.0), high=float(min(value + reach, most)))
