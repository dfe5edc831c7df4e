"""How good predictions should turn out, before anything is known of the outcomes.

If a probability p is right, what it will score is known but for chance: a kick adds p(1 - p) to the Brier
score on average, and the entropy of p to the log loss. So kicks that are harder to foretell, such as those
from far away, show in these figures long before outcomes come in. What they can't show is a model that has
become wrong: that shows where outcomes are known and what is measured lies outside what chance allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from kickserve_scores.cells import CELLS, WHOLE, Cells, whole_sum
from kickserve_scores.packing import limbs, of_limbs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_STEPS: Final = 1 << 30  # in which the chance of a kick is counted
_SUREST: Final = 1e-15  # as in `kickserve_scores.quality`
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
        brier: as `kickserve_scores.quality.brier`.
        log_loss: as `kickserve_scores.quality.log_loss`.
        auc: as `kickserve_scores.quality.auc`; null where hardly any kick of one outcome is expected.
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
    All is counted in whole numbers, so that it is the same in whatever parts the predictions come.
    """

    def __init__(self) -> None:
        self._cells = Cells()  # for the AUC: within one, the order is left open
        self._chance = np.zeros(CELLS, dtype=np.int64)  # of p(1 - p), the variance of the successes
        self._sums = [0] * 4  # means of Brier and logarithmic score, and their variances

    def add(self, prediction: NDArray[np.float64]) -> None:
        """Add predictions, shape (n,), n at most 80,000, each a probability."""
        chance = prediction * (1 - prediction)
        cell = self._cells.add(prediction)
        steps = np.bincount(cell, np.rint(chance * _STEPS), minlength=CELLS)
        self._chance += steps.astype(np.int64)
        sure = np.clip(prediction, _SUREST, 1 - _SUREST)
        log_odds = np.log(sure) - np.log1p(-sure)
        entropy = -prediction * np.log(sure) - (1 - prediction) * np.log1p(-sure)
        # Of two values a and b with probabilities p and 1 - p, the variance is p(1 - p)(a - b)².
        spread = chance * (1 - 2 * prediction) ** 2, chance * log_odds**2
        sums = map(whole_sum, (chance, entropy, *spread))
        self._sums = [before + more for before, more in zip(self._sums, sums, strict=True)]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that it holds as arrays, for another process."""
        cells = self._cells
        return {
            "count": cells.count,
            "offset": cells.offset,
            "chance": self._chance,
            "sums": limbs(self._sums),
        }

    def merge(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Add what another one's `state` returned."""
        self._cells.count += state["count"]
        self._cells.offset += state["offset"]
        self._chance += state["chance"]
        self._sums = [a + b for a, b in zip(self._sums, of_limbs(state["sums"]), strict=True)]

    def result(self) -> Expected | None:
        """Return what to expect of all that were added; None where that is nothing."""
        count = int(self._cells.count.sum())
        if not count:
            return None
        won = float(self._cells.total.sum())
        sums = [each / WHOLE for each in self._sums]
        brier, log_loss = (
            _estimate(mean / count, variance / count**2)
            for mean, variance in zip(sums[:2], sums[2:], strict=True)
        )
        return Expected(
            count=count,
            success_rate=_estimate(won / count, float(self._chance.sum() / _STEPS) / count**2, most=1.0),
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
        won_here, chance = self._cells.total, self._chance / _STEPS
        lost_here = self._cells.count - won_here
        below = np.cumsum(lost_here) - lost_here / 2  # expected failures with less probability
        above = won - np.cumsum(won_here) + won_here / 2  # expected successes with more
        # A kick makes no pair with itself; in the sums over cells it does.
        with_itself = float(chance.sum())
        pairs = won * lost - with_itself
        right = float(won_here @ below) - with_itself / 2
        figure = right / pairs
        change = (below - above - figure * (lost - won)) / pairs
        return _estimate(figure, float(chance @ change**2), most=1.0)


def _estimate(value: float, variance: float, most: float = np.inf) -> Estimate:
    reach = _SPREAD * float(np.sqrt(variance))
    return Estimate(value=value, low=max(value - reach, 0.0), high=float(min(value + reach, most)))
