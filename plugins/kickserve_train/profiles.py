"""Describes kicks for the model file: what training data looked like, in numbers that machines agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import FEATURES
from kickserve.model import Profile

if TYPE_CHECKING:
    from typing import SupportsFloat

    from numpy.typing import NDArray

LEVELS: Final = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Levels of the quantiles in the reference profile."""

_DIGITS: Final = 10
_RARE: Final = 0.002  # share of the kicks beyond each end of the domain
_NEAR: Final = 0.02  # of the whole range


def profile(matrix: NDArray[np.float64], prediction: NDArray[np.float64]) -> Profile:
    """Describe kicks and their predictions, to notice later that others are unlike them.

    Args:
        matrix: kicks, shape (n, 11), n from 1, in the order of `kickserve.features.NAMES`.
        prediction: probabilities, shape (n,).
    """
    quantiles, shares = {}, {}
    for feature, column in zip(FEATURES, matrix.T, strict=True):
        if feature.kind == "flag":
            shares[feature.name] = round_off(column.mean())
        else:
            quantiles[feature.name] = rounded(np.quantile(column, LEVELS))
    return Profile(
        count=len(matrix),
        levels=list(LEVELS),
        quantiles=quantiles,
        shares=shares,
        prediction=rounded(np.quantile(prediction, LEVELS)),
    )


def domain_of(matrix: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Tell the ranges of numbers within which nearly all kicks, shape (n, 11), lie.

    An end so near to that of what is allowed at all that nothing of note lies between is taken to be it.
    """
    domain = {}
    for feature, column in zip(FEATURES, matrix.T, strict=True):
        low, high = (round_off(end) for end in np.quantile(column, (_RARE, 1 - _RARE)))
        # As floating point, as a file gives them back: the revision must be the same.
        least, most = float(feature.low), float(feature.high)
        near = _NEAR * (most - least)
        low = least if low <= least + near else low
        high = most if high >= most - near else high
        if feature.kind == "number" and (low, high) != (least, most):
            domain[feature.name] = (low, high)
    return domain


def round_off(value: SupportsFloat) -> float:
    """Return a number with ten digits: what differs from machine to machine is cut off."""
    return float(f"{float(value):.{_DIGITS}g}")


def rounded(values: NDArray[np.float64]) -> Any:
    """Nested lists of the values of an array with ten digits; see `round_off`."""
    return [rounded(each) if each.ndim else round_off(each) for each in map(np.asarray, values)]
