"""Estimates how far kickers differ in ability, from kicks that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.documents import mean_shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACES: Final = np.linspace(-4, 4, 61)  # of ability, in its standard deviations
_MOST: Final = 2.0  # log-odds; the published spread is 0.29
_CLOSE: Final = 0.005
_GOLDEN: Final = (5**0.5 - 1) / 2


def ability_spread(
    log_odds: NDArray[np.float64], success: NDArray[np.bool_], kicker: NDArray[np.intp]
) -> float:
    """Estimate the standard deviation of ability by maximum likelihood, as that of a random intercept.

    The likelihood of a kicker's kicks is a mean over a normal distribution of ability, taken on 61 places
    (marginal likelihood of a generalised linear mixed model; McCulloch & Searle 2001, chapter 8). The one
    number is looked for by golden sections.

    Args:
        log_odds: shape (n,), of success over kickers of all abilities, from kicks other than these.
        success: shape (n,), what came of each.
        kicker: shape (n,), numbers from 0.

    Returns:
        Log-odds, 0 to 2; 0 where nothing speaks for a difference.
    """
    low, high = 0.0, _MOST
    while high - low > _CLOSE:
        step = _GOLDEN * (high - low)
        left, right = high - step, low + step
        if _likelihood(left, log_odds, success, kicker) >= _likelihood(right, log_odds, success, kicker):
            high = right
        else:
            low = left
    middle = (low + high) / 2
    return 0.0 if middle <= 2 * _CLOSE else middle


def _likelihood(
    spread: float, log_odds: NDArray[np.float64], success: NDArray[np.bool_], kicker: NDArray[np.intp]
) -> float:
    middling, sign = log_odds * mean_shrink(spread), np.where(success, -1.0, 1.0)
    # A row a place, a column a kicker: what the kicks of this kicker would be worth with that ability.
    logs = np.array(
        [
            -np.bincount(kicker, np.logaddexp(0, sign * (middling + spread * place)))
            for place in _PLACES.tolist()
        ]
    )
    weights = np.exp(-(_PLACES**2) / 2)
    most = logs.max(axis=0)
    means = np.log((weights / weights.sum()) @ np.exp(logs - most)) + most
    return float(means.sum())
