"""How good predictions are, and how sure that is: measures with standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve_scores.quality import Bin, assess
from kickserve_train.folds import folds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Statistic = Callable[[NDArray[np.bool_]], NDArray[np.float64]]

BLOCKS: Final = 40
NAMES: Final = ("brier", "log_loss", "ece", "auc")


class Value(Struct, kw_only=True, frozen=True):
    """A number and its standard error."""

    value: float
    se: float


class Measured(Struct, kw_only=True, frozen=True):
    """How good predictions were; each is explained in `kickserve_scores.quality`."""

    brier: Value
    log_loss: Value
    ece: Value
    auc: Value


class Judge:
    """Measures predictions of the same kicks.

    Standard errors are those of a jackknife that leaves out one of 40 blocks at a time (Kott 2001, "The
    delete-a-group jackknife"); a block holds whole groups, so that the kicks of one kicker, which are alike,
    don't count as independent.

    Args:
        success: shape (n,), what came of each kick; both outcomes are among them.
        groups: shape (n,), what belongs together, as of `kickserve_train.folds.groups_of`.
        seed: of how groups are put into blocks.
    """

    def __init__(self, success: NDArray[np.bool_], groups: NDArray[np.intp], seed: int) -> None:
        self._success = success
        blocks = folds_of(groups, BLOCKS, seed)
        # Some are empty where there are few groups, and some may leave one outcome only.
        kept = [blocks != block for block in np.unique(blocks)]
        self._kept = [mask for mask in kept if success[mask].any() and not success[mask].all()]

    def measure(self, prediction: NDArray[np.float64]) -> Measured:
        """Measure probabilities, shape (n,)."""
        return self._with_errors(lambda mask: _measures(prediction[mask], self._success[mask]))

    def difference(self, mine: NDArray[np.float64], other: NDArray[np.float64]) -> Measured:
        """Measure how much more each measure is of some probabilities than of others, both of shape (n,)."""

        def statistic(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
            success = self._success[mask]
            return _measures(mine[mask], success) - _measures(other[mask], success)

        return self._with_errors(statistic)

    def loss_difference(self, mine: NDArray[np.float64], other: NDArray[np.float64]) -> Value:
        """Say how much more log loss some log-odds have than others; shape (n,) each."""
        more = losses(mine, self._success) - losses(other, self._success)
        without = np.array([[more[mask].mean()] for mask in self._kept])
        return Value(value=float(more.mean()), se=float(_jackknife(without)[0]))

    def _with_errors(self, statistic: Statistic) -> Measured:
        values = statistic(np.ones(len(self._success), dtype=bool))
        errors = _jackknife(np.array([statistic(mask) for mask in self._kept]))
        pairs = zip(NAMES, values.tolist(), errors.tolist(), strict=True)
        return Measured(**{name: Value(value=value, se=error) for name, value, error in pairs})


def losses(log_odds: NDArray[np.float64], success: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the log loss of each kick, all of shape (n,)."""
    result: NDArray[np.float64] = np.logaddexp(0, np.where(success, -log_odds, log_odds))
    return result


def bins_of(prediction: NDArray[np.float64], success: NDArray[np.bool_]) -> list[Bin]:
    """Return the reliability diagram; see `kickserve_scores.quality.reliability`."""
    return assess(prediction, success).bins


def _measures(prediction: NDArray[np.float64], success: NDArray[np.bool_]) -> NDArray[np.float64]:
    quality = assess(prediction, success)
    return np.array([getattr(quality, name) for name in NAMES], dtype=np.float64)


def _jackknife(without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard errors, shape (m,), of m statistics, each worked out without each block: (b, m)."""
    count = len(without)
    result: NDArray[np.float64] = np.sqrt((count - 1) / count * np.sum((without - without.mean(0)) ** 2, 0))
    return result
