"""Between log-odds and probabilities: what the models compute alike, for many kicks and for one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.model import Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

NORMAL_975: Final = 1.96
"""Quantile of the normal distribution for a two-sided 95 %."""


def expit(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn log-odds, of any shape, into probabilities: by way of tanh, which can't overflow."""
    return _expit_into(np.array(z, dtype=np.float64))


def _expit_into(z: NDArray[np.float64]) -> NDArray[np.float64]:
    z *= 0.5
    np.tanh(z, out=z)
    z *= 0.5
    z += 0.5
    return z


def mean_shrink(ability_sd: float) -> float:
    """Return what log-odds are divided by so that they stand for the mean over ability, 1 or more.

    √(1 + π·s²/8): the probit approximation to the mean of a logistic function over a normal distribution
    (MacKay 1992, "The evidence framework applied to classification networks").

    Args:
        ability_sd: spread s of ability in log-odds, 0 or more.
    """
    return math.sqrt(1 + math.pi * ability_sd**2 / 8)


def answer_in_place(rows: NDArray[np.float64]) -> Answer:
    """Turn log-odds into probabilities where they stand.

    Args:
        rows: shape (3, n), the log-odds of the probability and of the interval's ends, low before high.
            Far out, the mean over ability can lie beyond the interval of a middling kicker: then it is taken
            in.
    """
    probability, low, high = _expit_into(rows)
    np.minimum(low, probability, out=low)
    np.maximum(high, probability, out=high)
    return Answer(probability, low, high)


def answer_one(z: float, low: float, high: float) -> tuple[float, float, float]:
    """Turn the log-odds of one kick into its probability, low and high; see `answer_in_place`."""
    probability = 0.5 + 0.5 * math.tanh(0.5 * z)
    low = 0.5 + 0.5 * math.tanh(0.5 * low)
    high = 0.5 + 0.5 * math.tanh(0.5 * high)
    return probability, min(low, probability), max(high, probability)
