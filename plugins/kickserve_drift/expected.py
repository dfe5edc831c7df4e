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

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPREAD: Final = 1.96  # standard deviations that hold 95 % of a normal distribution
_MIN_EXPECTED: Final = 5  # kicks of either outcome, from which on there is an AUC
_SUREST: Final = 1e-15  # distance of a probability from 0 and 1 before its logarithm is taken


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

    The intervals are those of chance in the outcomes of just these kicks. The measures are those of
    `kickserve_scores.quality.assess`.

    Attributes:
        count: number of predictions, from 1.
        success_rate: share of successful kicks.
        brier: Brier score.
        log_loss: log loss.
        auc: null where hardly any kick of one outcome is expected.
    """

    count: int
    success_rate: Estimate
    brier: Estimate
    log_loss: Estimate
    auc: Estimate | None


def expected(count: NDArray[np.float64], p: NDArray[np.float64]) -> Expected | None:
    """Return the expected quality of predictions that are grouped by probability; None without any.

    Each kick succeeds with its own probability, so sums over kicks have the moments of a Poisson-binomial
    distribution: exact mean and variance, nearly normal from some dozens on.

    Args:
        count: kicks in each group, shape (g,).
        p: their probability, rising, shape (g,).
    """
    number = float(count.sum())
    if not number:
        return None
    variance = p * (1 - p)
    sure = np.clip(p, _SUREST, 1 - _SUREST)
    log_odds = np.log(sure) - np.log1p(-sure)
    entropy = -p * np.log(sure) - (1 - p) * np.log1p(-sure)

    def estimate(mean: NDArray[np.float64], spread: NDArray[np.float64], most: float = np.inf) -> Estimate:
        return _estimate(float(count @ mean) / number, float(count @ spread) / number**2, most)

    # Of two values a and b with probabilities p and 1 - p, the variance is p(1 - p)(a - b)².
    return Expected(
        count=int(number),
        success_rate=estimate(p, variance, 1.0),
        brier=estimate(variance, variance * (1 - 2 * p) ** 2),
        log_loss=estimate(entropy, variance * log_odds**2),
        auc=_auc(count, p),
    )


def _auc(count: NDArray[np.float64], p: NDArray[np.float64]) -> Estimate | None:
    """Weigh each pair of kicks with the probability that the first succeeds and the second does not.

    The variance is that of the linear part of the figure in the outcomes (the delta method): of kick i,
    p(1 - p) times the square of the change that its success instead of its failure makes.
    """
    won_here = count * p
    lost_here, variance = count - won_here, won_here * (1 - p)
    won, lost = float(won_here.sum()), float(lost_here.sum())
    if min(won, lost) < _MIN_EXPECTED:
        return None
    below = np.cumsum(lost_here) - lost_here / 2  # expected failures with less probability
    above = won - np.cumsum(won_here) + won_here / 2  # expected successes with more
    # A kick makes no pair with itself; in the sums over groups it does.
    with_itself = float(variance.sum())
    pairs = won * lost - with_itself
    right = float(won_here @ below) - with_itself / 2
    figure = right / pairs
    change = (below - above - figure * (lost - won)) / pairs
    return _estimate(figure, float(variance @ change**2), 1.0)


def _estimate(value: float, variance: float, most: float) -> Estimate:
    reach = _SPREAD * float(np.sqrt(variance))
    return Estimate(value=value, low=max(value - reach, 0.0), high=min(value + reach, most))
