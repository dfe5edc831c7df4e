"""What the logistic model adds up: named terms, each a formula over the eleven features of a kick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from kickserve.features import BY_NAME, COUNT, INDEX, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kickserve.features import Feature

Column = NDArray[np.float64]
# The numbers of one kick, or the columns of many: most formulas are the same for both.
Value = TypeVar("Value", float, Column)

POSTS_APART: Final = 5.6
"""Metres between the posts, as the laws of the game have it."""
_HALF_SQUARED: Final = (POSTS_APART / 2) ** 2
_NARROWEST: Final = 0.05  # degrees; keeps the logarithm finite on the goal line
_LONG: Final = 60.0
_PIECE: Final = 1_024  # for larger products BLAS wakes threads, which then spin on cores that others need
_STEP: Final = 32  # columns that any kernel of BLAS takes at once

_SPLINE: Final = "spline"
_PARTS: Final = 4  # of its name: spline, feature, number, knots
_MOST_KNOTS: Final = 12
_NARROWEST_PIECE: Final = 1e-3  # between knots, so that no quotient gets out of hand

_TIME: Final = INDEX["time_norm"]
_DISTANCE: Final = INDEX["distance"]
_ANGLE: Final = INDEX["angle"]
_WIND: Final = INDEX["wind_speed"]
_RAIN: Final = INDEX["precipitation_probability"]
_LEFT_FOOTED: Final = INDEX["is_left_footed"]
_AWAY: Final = INDEX["game_away"]
_ENDGAME: Final = INDEX["is_endgame"]
_START: Final = INDEX["is_start"]
_LEFT_SIDE: Final = INDEX["is_left_side"]
_PREVIOUS: Final = INDEX["has_previous_attempts"]


def theta(distance: Column, angle: Column) -> Column:
    """Angle that the posts open to the kicker.

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


def _theta_of_one(distance: float, angle: float) -> float:
    across = POSTS_APART * distance * math.cos(math.radians(angle))
    return max(math.degrees(math.atan2(across, distance * distance - _HALF_SQUARED)), _NARROWEST)


def _intercept(kick: Sequence[Value]) -> Value:
    return 0.0 * kick[_DISTANCE] + 1.0


def _ln_theta(kick: Sequence[Column]) -> Column:
    result: Column = np.log(theta(kick[_DISTANCE], kick[_ANGLE]))
    return result


def _ln_theta_of_one(kick: Sequence[float]) -> float:
    return math.log(_theta_of_one(kick[_DISTANCE], kick[_ANGLE]))


def _beyond_60(kick: Sequence[Value]) -> Value:
    beyond = kick[_DISTANCE] - _LONG
    return (beyond + abs(beyond)) / 2.0  # the larger of it and 0, for a number and for a column


def _foot_side(kick: Sequence[Value]) -> Value:
    """Angle in units of 30°, positive where foot and side differ (the ball turns in), else negative."""
    turn = 2.0 * abs(kick[_LEFT_SIDE] - kick[_LEFT_FOOTED]) - 1.0
    return turn * kick[_ANGLE] / 30.0


def _wind_distance(kick: Sequence[Value]) -> Value:
    """Wind in units of 10 km/h times distance in units of 30 m."""
    return kick[_WIND] / 10.0 * (kick[_DISTANCE] / 30.0)


@dataclass(frozen=True, slots=True)
class Term:
    """One term: its formula over the columns of many kicks, and over the numbers of one.

    Attributes:
        name: as model files spell it.
        of_columns: eleven arrays of shape (n,) in, one out.
        of_row: eleven numbers in, one out; the same but for the last bit.
        feature: where the feature stands that the term is, unchanged; None where it is none.
    """

    name: str
    of_columns: Callable[[Sequence[Column]], Column]
    of_row: Callable[[Sequence[float]], float]
    feature: int | None = None


def _feature(name: str, at: int) -> Term:
    return Term(name, lambda columns: columns[at], lambda row: row[at], at)


TERMS: Final[Mapping[str, Term]] = {
    term.name: term
    for term in (
        Term("intercept", _intercept, _intercept),
        _feature("distance", _DISTANCE),
        Term("ln_theta", _ln_theta, _ln_theta_of_one),
        Term("beyond_60", _beyond_60, _beyond_60),
        Term("foot_side", _foot_side, _foot_side),
        _feature("left_footed", _LEFT_FOOTED),
        _feature("away", _AWAY),
        _feature("endgame", _ENDGAME),
        _feature("start", _START),
        _feature("time_norm", _TIME),
        _feature("previous", _PREVIOUS),
        Term("wind_distance", _wind_distance, _wind_distance),
        _feature("precipitation", _RAIN),
        _feature("angle", _ANGLE),
    )
}
"""Every term that a model file may name, but for splines, which have their knots in their names."""


def find_term(name: str) -> Term:
    """Return the term of this name: one of `TERMS`, or a piece of a spline as `spline_names` names them.

    Raises:
        KeyError: no term has this name.
    """
    return TERMS[name] if name in TERMS else _spline(name)


def is_term(name: str) -> bool:
    """Say whether a term has this name."""
    try:
        find_term(name)
    except KeyError:
        return False
    return True


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


def _spline(name: str) -> Term:
    """Read a piece of a natural cubic spline out of its name.

    With d_k(x) = ((x - t_k)₊³ - (x - t_K)₊³)/(t_K - t_k), piece k is d_k(x) - d_{K-1}(x): linear beyond the
    outer knots (Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", equations 5.4
    and 5.5). Divided by (t_K - t_1)² it has the unit of the feature.
    """
    parts = name.split(":")
    if len(parts) != _PARTS or parts[0] != _SPLINE or parts[1] not in BY_NAME:
        raise KeyError(name)
    at, knots = INDEX[parts[1]], _knots(parts[3])
    if parts[2] not in map(str, range(1, len(knots) - 1)) or not _within(knots, BY_NAME[parts[1]]):
        raise KeyError(name)
    piece, last, scale = knots[int(parts[2]) - 1], knots[-1], (knots[-1] - knots[0]) ** 2

    def formula(kick: Sequence[Value]) -> Value:
        x = kick[at]
        end = _cubed(x, last)
        here = (_cubed(x, piece) - end) / (last - piece)
        return (here - (_cubed(x, knots[-2]) - end) / (last - knots[-2])) / scale

    return Term(name, formula, formula)


def _knots(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",", _MOST_KNOTS - 1)]  # more are in one piece: no number
    except ValueError:
        return []


def _within(knots: list[float], feature: Feature) -> bool:
    rising = all(left + _NARROWEST_PIECE <= right for left, right in pairwise(knots))
    return rising and feature.low <= knots[0] and knots[-1] <= feature.high


def _cubed(x: Value, knot: float) -> Value:
    beyond = x - knot
    beyond = (beyond + abs(beyond)) / 2.0  # as in `_beyond_60`
    return beyond * beyond * beyond


def expand(matrix: NDArray[np.float64], terms: Iterable[str]) -> NDArray[np.float64]:
    """Turn features into terms.

    Args:
        matrix: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`.
        terms: k names that `find_term` knows.

    Returns:
        Shape (n, k), one column a term.

    Raises:
        KeyError: a name is no term.
    """
    chosen = [find_term(name) for name in terms]
    columns = [matrix[:, at] for at in range(len(NAMES))]
    result = np.empty((len(matrix), len(chosen)))
    for at, term in enumerate(chosen):
        result[:, at] = term.of_columns(columns)
    return result


def over_features(
    names: Sequence[str], columns: NDArray[np.float64]
) -> tuple[list[Callable[[Sequence[Column]], Column]], NDArray[np.float64]]:
    """Write a product with k terms as one with the features and those terms that are none of them.

    Args:
        names: of the k terms.
        columns: shape (m, k), what the terms are multiplied with.

    Returns:
        The formulas of the q terms that are no feature, and what features and formulas are multiplied with,
        shape (m, 11 + q).

    Raises:
        KeyError: a name is no term.
    """
    terms = [find_term(name) for name in names]
    formulas = [term.of_columns for term in terms if term.feature is None]
    weights = np.zeros((len(columns), COUNT + len(formulas)))
    free = iter(range(COUNT, weights.shape[1]))
    for at, term in enumerate(terms):
        weights[:, next(free) if term.feature is None else term.feature] += columns[:, at]
    return formulas, weights


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply matrices of shape (m, k) and (k, n), n being large, on this core alone.

    A column comes out the same to the last bit, whichever columns stand beside it.
    """
    count = right.shape[1]
    result = np.empty((len(left), count))
    even = count - count % _STEP
    for start in range(0, even, _PIECE):
        part = slice(start, min(start + _PIECE, even))
        np.matmul(left, right[:, part], out=result[:, part])
    if even < count:
        # What is left over would go through other kernels, which round otherwise.
        rest = np.zeros((len(right), _STEP))
        rest[:, : count - even] = right[:, even:]
        result[:, even:] = np.matmul(left, rest)[:, : count - even]
    return result
