"""The terms of the linear model: named formulas over the eleven features of a kick.

The values that a model adds up are the eleven features, the results of `FORMULAS`, and the splines that
it names, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from kickserve.features import BY_NAME, COUNT, INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kickserve.features import Feature

Column = NDArray[np.float64]
Formula = Callable[[Column], Column]

POSTS_APART: Final = 5.6
"""Metres between the posts, as the laws of the game have it."""
_HALF_SQUARED: Final = (POSTS_APART / 2) ** 2
_NARROWEST: Final = 0.05  # degrees; keeps the logarithm finite on the goal line
_LONG: Final = 60.0

_SPLINE: Final = "spline"
_PARTS: Final = 4  # of its name: spline, feature, number, knots
_MOST_KNOTS: Final = 12
_NARROWEST_PIECE: Final = 1e-3  # between knots, so that no quotient gets out of hand

_DISTANCE: Final = INDEX["distance"]
_ANGLE: Final = INDEX["angle"]
_WIND: Final = INDEX["wind_speed"]
_LEFT_FOOTED: Final = INDEX["is_left_footed"]
_LEFT_SIDE: Final = INDEX["is_left_side"]


def theta(distance: Column, angle: Column) -> Column:
    """Return the angle that the posts open to the kicker.

    Seen from the ball, tan θ = w·d·cos a / (d² - w²/4) with w the distance between the posts: the formula for
    the tangent of a difference, applied to the directions of the two posts.

    Args:
        distance: metres from the ball to the middle of the posts, any shape.
        angle: degrees off the perpendicular to the goal line, same shape.

    Returns:
        Degrees, same shape, 0.05 to 180.
    """
    across = POSTS_APART * distance * np.cos(np.radians(angle))
    opening = np.degrees(np.arctan2(across, distance * distance - _HALF_SQUARED))
    result: Column = np.maximum(opening, _NARROWEST)
    return result


def _intercept(kicks: Column) -> Column:
    return np.ones_like(kicks[_DISTANCE])


def _ln_theta(kicks: Column) -> Column:
    """Logarithm of `theta`."""
    result: Column = np.log(theta(kicks[_DISTANCE], kicks[_ANGLE]))
    return result


def _beyond_60(kicks: Column) -> Column:
    """Metres beyond 60, else 0."""
    result: Column = np.maximum(kicks[_DISTANCE] - _LONG, 0.0)
    return result


def _foot_side(kicks: Column) -> Column:
    """Angle in units of 30°, positive where foot and side differ (the ball turns in), else negative."""
    turn = 2.0 * abs(kicks[_LEFT_SIDE] - kicks[_LEFT_FOOTED]) - 1.0
    result: Column = turn * kicks[_ANGLE] / 30.0
    return result


def _wind_distance(kicks: Column) -> Column:
    """Wind in units of 10 km/h times distance in units of 30 m."""
    result: Column = kicks[_WIND] / 10.0 * (kicks[_DISTANCE] / 30.0)
    return result


FORMULAS: Final[Mapping[str, Formula]] = {
    "intercept": _intercept,
    "ln_theta": _ln_theta,
    "beyond_60": _beyond_60,
    "foot_side": _foot_side,
    "wind_distance": _wind_distance,
}
"""The terms that are no feature, each from the features of n kicks, shape (11, n), to shape (n,)."""


def values_of(row: Sequence[float]) -> list[float]:
    """Return the features of one kick and the results of `FORMULAS`, the same but for the last bit.

    Args:
        row: eleven numbers; flags may be booleans.
    """
    distance, angle = row[_DISTANCE], row[_ANGLE]
    across = POSTS_APART * distance * math.cos(math.radians(angle))
    opening = math.degrees(math.atan2(across, distance * distance - _HALF_SQUARED))
    return [
        *row,
        1.0,
        math.log(opening if opening > _NARROWEST else _NARROWEST),  # noqa: FURB136  quicker than max()
        distance - _LONG if distance > _LONG else 0.0,
        (2.0 * abs(row[_LEFT_SIDE] - row[_LEFT_FOOTED]) - 1.0) * angle / 30.0,
        row[_WIND] / 10.0 * (distance / 30.0),
    ]


_PLACES: Final[Mapping[str, int]] = {name: at for at, name in enumerate(FORMULAS, COUNT)}
TERMS: Final[Mapping[str, int]] = {
    "intercept": _PLACES["intercept"],
    "distance": _DISTANCE,
    "ln_theta": _PLACES["ln_theta"],
    "beyond_60": _PLACES["beyond_60"],
    "foot_side": _PLACES["foot_side"],
    "left_footed": _LEFT_FOOTED,
    "away": INDEX["game_away"],
    "endgame": INDEX["is_endgame"],
    "start": INDEX["is_start"],
    "time_norm": INDEX["time_norm"],
    "previous": INDEX["has_previous_attempts"],
    "wind_distance": _PLACES["wind_distance"],
    "precipitation": INDEX["precipitation_probability"],
    "angle": _ANGLE,
}
"""Every term that a model file may name, but for splines, which have their knots in their names; the place of
each among the values of a kick."""


@dataclass(frozen=True, slots=True)
class Spline:
    """A piece of a natural cubic spline of one feature.

    With d_k(x) = ((x - t_k)₊³ - (x - t_K)₊³)/(t_K - t_k), piece k is d_k(x) - d_{K-1}(x): linear beyond the
    outer knots (Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", equations 5.4
    and 5.5). Divided by (t_K - t_1)² it has the unit of the feature.

    Attributes:
        feature: its place among the eleven.
        knot: t_k.
        knots: t_1 to t_K.
    """

    feature: int
    knot: float
    knots: list[float]

    def __call__(self, kicks: Any) -> Any:
        """Return the piece for the eleven numbers of one kick, or for the features of many, shape (11, n)."""
        first, before, last = self.knots[0], self.knots[-2], self.knots[-1]
        x = kicks[self.feature]
        end = _cubed(x, last)
        piece = (_cubed(x, self.knot) - end) / (last - self.knot)
        return (piece - (_cubed(x, before) - end) / (last - before)) / (last - first) ** 2


def _cubed(x: Any, knot: float) -> Any:
    beyond = x - knot
    beyond = (beyond + abs(beyond)) / 2.0  # the larger of it and 0, for a number and for a column
    return beyond * beyond * beyond


def spline_names(feature: str, knots: Sequence[float]) -> list[str]:
    """Name the terms that, beside the feature itself, make a natural cubic spline of it.

    Args:
        feature: name of a feature.
        knots: K of them, 3 to 12, rising, within the range of the feature.

    Returns:
        K - 2 names, such as `spline:distance:1:8,20,35,50`.
    """
    places = ",".join(f"{knot:.12g}" for knot in knots)
    return [f"{_SPLINE}:{feature}:{number}:{places}" for number in range(1, len(knots) - 1)]


def spline_of(name: str) -> Spline:
    """Return the piece of a spline that a name describes, as `spline_names` makes them.

    Raises:
        KeyError: the name describes none.
    """
    parts = name.split(":")
    if len(parts) != _PARTS or parts[0] != _SPLINE or parts[1] not in BY_NAME:
        raise KeyError(name)
    knots = _knots(parts[3])
    if parts[2] not in map(str, range(1, len(knots) - 1)) or not _within(knots, BY_NAME[parts[1]]):
        raise KeyError(name)
    return Spline(INDEX[parts[1]], knots[int(parts[2]) - 1], knots)


def _knots(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",", _MOST_KNOTS - 1)]  # more are in one piece: no number
    except ValueError:
        return []


def _within(knots: list[float], feature: Feature) -> bool:
    rising = all(left + _NARROWEST_PIECE <= right for left, right in pairwise(knots))
    return rising and feature.low <= knots[0] and knots[-1] <= feature.high


def is_term(name: str) -> bool:
    """Return whether a term has this name: one of `TERMS`, or a piece of a spline."""
    try:
        places_of([name])
    except KeyError:
        return False
    return True


def places_of(names: Iterable[str]) -> tuple[list[int], list[Spline]]:
    """Return the place of each term among the values of a kick, and the splines among the terms.

    The values are the eleven features, the results of `FORMULAS`, and the splines.

    Raises:
        KeyError: a name is no term.
    """
    places, splines = [], []
    for name in names:
        if name not in TERMS:
            splines.append(spline_of(name))
        places.append(TERMS.get(name, COUNT + len(FORMULAS) + len(splines) - 1))
    return places, splines


def formulas_with(splines: Iterable[Formula]) -> list[Formula]:
    """Return the formulas of the values behind the eleven features: those of `FORMULAS`, and the splines."""
    return [*FORMULAS.values(), *splines]


def expand(matrix: NDArray[np.float64], terms: Iterable[str]) -> NDArray[np.float64]:
    """Turn features into terms.

    Args:
        matrix: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`.
        terms: k names that `is_term` knows.

    Returns:
        Shape (n, k), one column a term.

    Raises:
        KeyError: a name is no term.
    """
    places, splines = places_of(terms)
    formulas = formulas_with(splines)
    result = np.empty((len(matrix), len(places)))
    for at, place in enumerate(places):
        result[:, at] = matrix[:, place] if place < COUNT else formulas[place - COUNT](matrix.T)
    return result
