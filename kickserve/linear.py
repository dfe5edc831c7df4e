"""The linear model: logistic regression in a few kilobytes of JSON, with an honest interval.

Its terms are named formulas over the eleven features of a kick. The values that a model adds up are the
features, the results of `FORMULAS`, and the splines that it names, in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from msgspec import Meta

from kickserve.documents import (
    NORMAL_975,
    Document,
    DocumentModel,
    Header,
    answer_in_place,
    mean_shrink,
    read,
    revision_of,
)
from kickserve.features import BY_NAME, COUNT, INDEX
from kickserve.model import Answer, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.features import Feature

    Column = NDArray[np.float64]

FORMAT: Final = "kickserve/linear"
VERSION: Final = 1
DEFAULT: Final = "default.json"

_CHUNK: Final = 8_192  # kicks at a time, so that their values stay in the processor's cache
_PIECE: Final = 1_024  # columns; for larger products BLAS wakes threads, which spin on others' cores
_STEP: Final = 32  # columns that any kernel of BLAS takes at once
_HELD: Final = 1 << 24  # bytes of memory that the process keeps for the next batch
_NEGATIVE: Final = -1e-6  # what rounding may do to the smallest eigenvalue, as a part of the largest
_SYMMETRIC: Final = 1e-6

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


_Number = Annotated[float, Meta(ge=-1e9, le=1e9)]  # log-odds need no more; larger products could overflow

# Until a larger block was freed once, glibc returns the memory of each batch to the system, and the page
# faults of the next cost more than its predictions. This block is never touched, and costs nothing.
np.empty(_HELD, dtype=np.uint8)


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


def _signed_square(x: Any) -> Any:
    return x * abs(x)


FORMULAS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "intercept": lambda kicks: np.ones_like(kicks[_DISTANCE]),
    "ln_theta": lambda kicks: np.log(theta(kicks[_DISTANCE], kicks[_ANGLE])),
    "beyond_60": lambda kicks: np.maximum(kicks[_DISTANCE] - _LONG, 0.0),  # metres
    # The angle in units of 30°, positive where foot and side differ (the ball turns in), else negative.
    "foot_side": lambda kicks: (
        (2.0 * abs(kicks[_LEFT_SIDE] - kicks[_LEFT_FOOTED]) - 1.0) * kicks[_ANGLE] / 30.0
    ),
    # Wind in units of 10 km/h times distance in units of 30 m.
    "wind_distance": lambda kicks: kicks[_WIND] / 10.0 * (kicks[_DISTANCE] / 30.0),
    # ln θ times its own size: below 1°, where the square would rise again, it goes on falling.
    "ln_theta_squared": lambda kicks: _signed_square(np.log(theta(kicks[_DISTANCE], kicks[_ANGLE]))),
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
    ln_theta = math.log(opening if opening > _NARROWEST else _NARROWEST)  # noqa: FURB136  quicker than max()
    return [
        *row,
        1.0,
        ln_theta,
        distance - _LONG if distance > _LONG else 0.0,
        (2.0 * abs(row[_LEFT_SIDE] - row[_LEFT_FOOTED]) - 1.0) * angle / 30.0,
        row[_WIND] / 10.0 * (distance / 30.0),
        _signed_square(ln_theta),
    ]


_PLACES: Final[Mapping[str, int]] = {name: at for at, name in enumerate(FORMULAS, COUNT)}
TERMS: Final[Mapping[str, int]] = {
    "intercept": _PLACES["intercept"],
    "distance": _DISTANCE,
    "ln_theta": _PLACES["ln_theta"],
    "ln_theta_squared": _PLACES["ln_theta_squared"],
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


def _spline_of(name: str) -> Spline:
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


def _places_of(names: Iterable[str]) -> tuple[list[int], list[Spline]]:
    """Return the place of each term among the values of a kick, and the splines among the terms.

    The values are the eleven features, the results of `FORMULAS`, and the splines.

    Raises:
        KeyError: a name is no term.
    """
    places, splines = [], []
    for name in names:
        if name not in TERMS:
            splines.append(_spline_of(name))
        places.append(TERMS.get(name, COUNT + len(FORMULAS) + len(splines) - 1))
    return places, splines


def expand(matrix: NDArray[np.float64], terms: Iterable[str]) -> NDArray[np.float64]:
    """Turn features into terms.

    Args:
        matrix: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`.
        terms: k names.

    Returns:
        Shape (n, k), one column a term.

    Raises:
        KeyError: a name is no term.
    """
    places, splines = _places_of(terms)
    formulas: list[Callable[[Any], Any]] = [*FORMULAS.values(), *splines]
    result = np.empty((len(matrix), len(places)))
    for at, place in enumerate(places):
        result[:, at] = matrix[:, place] if place < COUNT else formulas[place - COUNT](matrix.T)
    return result


class LinearDocument(Document, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A linear model as its file has it: the fields of `kickserve.documents.Document`, and these.

    Attributes:
        format: `kickserve/linear`.
        version: of the format.
        terms: k names: of `TERMS`, or of `spline_names`.
        coefficients: k log-odds for a kicker of middling ability.
        covariance: of the coefficients, k by k.
    """

    format: str = FORMAT
    version: int = VERSION
    terms: list[str]
    coefficients: list[_Number]
    covariance: list[list[_Number]]


def fingerprint(document: LinearDocument) -> str:
    """Return 12 hexadecimal digits (SHA-256) that change with any change of a prediction of the model."""
    return revision_of(document, document.terms, document.coefficients, document.covariance)


class LinearModel(DocumentModel[LinearDocument]):
    """A linear model that is ready to answer; a `kickserve.model.Model`.

    With x the terms of a kick, z = x·β, Σ the covariance of β and s the spread of ability:

    - The probability is the mean of expit(z + u) over u ~ N(0, s²), by the approximation
      expit(z / √(1 + π·s²/8)) (MacKay 1992, "The evidence framework applied to classification networks").
    - The interval is expit(z ∓ 1.96·√(xᵀΣx + s²)): the coefficients' error (the delta method on the
      log-odds) and the ability are independent, so their variances add up.

    Args:
        document: the model.
        origin: where it came from.

    Raises:
        ModelUnusable: the document contradicts itself, or asks for what this version doesn't know.
    """

    def __init__(self, document: LinearDocument, origin: Origin) -> None:
        super().__init__(
            document,
            origin,
            kind="linear",
            revision=fingerprint(document),
            checks=(_wrong_terms, _wrong_covariance),
        )
        places, self._splines = _places_of(document.terms)
        self._formulas: list[Callable[[Any], Any]] = [*FORMULAS.values(), *self._splines]
        # One matrix product gives the log-odds and, as the length of a vector, the standard error:
        # with Σ = R Rᵀ, xᵀΣx = |Rᵀx|². A value of a kick that is no term of this model has the weight 0.
        root = _root(np.array(document.covariance))
        self._weights = np.zeros((1 + len(root), COUNT + len(self._formulas)))
        self._pack = Struct(f"{self._weights.shape[1]}d").pack
        self._weights[:, places] = np.vstack([np.array(document.coefficients), root.T])
        self._ability = document.ability_sd
        self._shrink = mean_shrink(document.ability_sd)

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.

        Returns:
            Probability, low and high, each of shape (n,), with low <= probability <= high.
        """
        result = np.empty((3, len(matrix)))
        for start in range(0, len(matrix), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._predict_into(result[:, part], matrix[part])
        return Answer(*result)

    def _predict_into(self, result: NDArray[np.float64], matrix: NDArray[np.float64]) -> None:
        """Fill in probability, low and high, shape (3, n), of kicks, shape (n, 11)."""
        # A row a feature or formula, not a kick: each then lies in one piece of memory.
        rows = np.empty((COUNT + len(self._formulas), len(matrix)))
        rows[:COUNT] = matrix.T
        for at, formula in enumerate(self._formulas, COUNT):
            rows[at] = formula(rows)
        products = _product(self._weights, rows)
        z, error = products[0], products[1:]
        error *= error
        half = NORMAL_975 * np.sqrt(np.add.reduce(error) + self._ability**2)
        np.divide(z, self._shrink, out=result[0])
        np.subtract(z, half, out=result[1])
        np.add(z, half, out=result[2])
        answer_in_place(result)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick, without the cost of arrays of one row.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`, flags as 0 and 1.

        Returns:
            Probability, low and high: the same as `predict` gives.
        """
        values = values_of(row)
        if self._splines:
            values += [spline(row) for spline in self._splines]
        # numpy reads packed numbers in half of the time of a list.
        z, *error = self._weights.dot(np.frombuffer(self._pack(*values))).tolist()
        half = NORMAL_975 * math.hypot(self._ability, *error)
        return self.answer_one(row, z / self._shrink, z - half, z + half)


def load_linear(data: bytes, origin: Origin) -> LinearModel:
    """Make a model of the bytes of its JSON file.

    Args:
        data: the file.
        origin: where it came from.

    Raises:
        ModelUnusable: it can't be read or used; the message names the fault and its place.
    """
    expected = Header(format=FORMAT, version=VERSION)
    return LinearModel(read(data, origin, LinearDocument, expected), origin)


def load_default() -> LinearModel:
    """Load the model that ships with kickserve, trained on simulated kicks."""
    file = files("kickserve").joinpath(DEFAULT)
    return load_linear(file.read_bytes(), Origin(f"kickserve/{DEFAULT}, in the package", "default"))


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply matrices of shape (m, k) and (k, n), n being large, on this core alone.

    A column of the result is the same to the last bit, whichever other columns `right` has.
    """
    count = right.shape[1]
    result = np.empty((len(left), count))
    even = count - count % _STEP
    for start in range(0, even, _PIECE):
        part = slice(start, min(start + _PIECE, even))
        np.matmul(left, right[:, part], out=result[:, part])
    if even < count:
        # The columns left over would go through other kernels, which round otherwise.
        rest = np.zeros((len(right), _STEP))
        rest[:, : count - even] = right[:, even:]
        result[:, even:] = np.matmul(left, rest)[:, : count - even]
    return result


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with R·Rᵀ = covariance; unlike Cholesky's it exists where coefficients hang together."""
    values, vectors = np.linalg.eigh(covariance)
    result: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0))
    return result


def _wrong_terms(document: LinearDocument) -> str:
    try:
        _places_of(document.terms)
    except KeyError as error:
        return f"this kickserve knows no term {error}, only {', '.join(TERMS)} and splines"
    count = len(document.terms)
    if len(set(document.terms)) != count or not count:
        return "its terms must be one or more, and each only once"
    if len(document.coefficients) != count:
        return f"it has {count} terms, but {len(document.coefficients)} coefficients"
    if [len(row) for row in document.covariance] != [count] * count:
        return f"its covariance must have {count} rows of {count} numbers, one for each term"
    return ""


def _wrong_covariance(document: LinearDocument) -> str:
    covariance = np.array(document.covariance)
    if np.abs(covariance - covariance.T).max() > _SYMMETRIC * np.abs(covariance).max():
        return "its covariance is not symmetric"
    values = np.linalg.eigvalsh(covariance)
    if values[0] < _NEGATIVE * np.abs(values).max():
        return f"its covariance is not positive semidefinite (it has the eigenvalue {values[0]:g})"
    return ""
