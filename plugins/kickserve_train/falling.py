"""Keeps a fit from rising with distance or angle: a small quadratic program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import BY_NAME, INDEX
from kickserve.plugins import POSTS_APART, TYPICAL, expand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_LEAST_FALL: Final = 1e-4  # log-odds from a kick of the grid to the next
_TINY: Final = 1e-12
_MOST_STEPS: Final = 1_000  # usually a dozen do


def rises(terms: Sequence[str]) -> NDArray[np.float64]:
    """Return by how much terms differ between neighbours on a grid, one further away or further aside.

    Closer than half of the posts' distance, the posts open further to a ball further aside: such neighbours
    are left out.

    Args:
        terms: k names.

    Returns:
        Shape (m, k); the product with coefficients whose log-odds never rise has no number above 0.
    """
    distance, angle, wind = INDEX["distance"], INDEX["angle"], INDEX["wind_speed"]
    far = np.r_[BY_NAME["distance"].low : 20 : 0.5, 20:40, 40:101:2]
    aside = np.r_[0:80, 80:90.5:0.5]  # close to the goal line the posts shut quickly
    steps = [
        np.diff(expand(_kicks({distance: far, angle: at, wind: speed}), terms), axis=0)
        for at in np.r_[0:91:5, 88]
        for speed in (BY_NAME["wind_speed"].low, BY_NAME["wind_speed"].high)
    ]
    steps += [
        np.diff(expand(_kicks({angle: aside, distance: at, INDEX["is_left_side"]: side}), terms), axis=0)
        for at in (*far[far > POSTS_APART / 2][::3], 100)
        for side in (0, 1)
    ]
    return np.concatenate(steps)


def _kicks(values: Mapping[int, Any]) -> NDArray[np.float64]:
    """Return usual kicks but for some features, each a number or of shape (n,)."""
    count = max(np.size(value) for value in values.values())
    matrix = np.repeat(TYPICAL, count, axis=0)
    for at, value in values.items():
        matrix[:, at] = value
    return matrix


def nearest_falling(
    target: NDArray[np.float64], information: NDArray[np.float64], rises: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the coefficients nearest to others among those whose log-odds never rise.

    The dual method of Goldfarb & Idnani 1983, "A numerically stable dual method for solving strictly convex
    quadratic programs": it adds the steepest rise to the active constraints, and drops a constraint that no
    longer holds anything back.

    Args:
        target: shape (k,).
        information: shape (k, k), the metric: positive definite.
        rises: shape (m, k), as `rises` makes it.
    """
    inverse: Any = np.linalg.inv(information)
    found = target
    active: list[int] = []
    forces: NDArray[np.float64] = np.empty(0)
    for _ in range(_MOST_STEPS):
        over = rises @ found + _LEAST_FALL
        worst = int(over.argmax())
        if over[worst] <= _TINY or worst in active:
            break
        row, force = rises[worst], 0.0
        while True:
            pull, shares = _directions(inverse, rises[active], row)
            curve = float(pull @ row)
            full = float(row @ found + _LEAST_FALL) / curve if curve > _TINY else np.inf
            ends = np.where(shares > _TINY, forces / np.where(shares > _TINY, shares, 1), np.inf)
            step = min(full, ends.min(initial=np.inf))
            if np.isinf(step):
                return found
            if curve > _TINY:
                found = found - step * pull
            forces, force = forces - step * shares, force + step
            if step == full:
                active, forces = [*active, worst], np.append(forces, force)
                break
            drop = int(ends.argmin())
            del active[drop]
            forces = np.delete(forces, drop)
    return found


def _directions(
    inverse: NDArray[np.float64], held: NDArray[np.float64], row: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how coefficients give way to a new constraint, shape (k,), and how the old ones share in it."""
    pull: NDArray[np.float64] = inverse @ row
    if not len(held):
        return pull, np.empty(0)
    spans = inverse @ held.T
    shares: Any = np.linalg.solve(held @ spans, held @ pull)
    return pull - spans @ shares, shares
