"""The linear model: logistic regression in a few kilobytes of JSON, with an honest interval.

Its terms are named formulas over the eleven features of a kick. The values that a model adds up are the
features, the results of `FORMULAS`, the pieces of the surface, if it names some, and the splines that it
names, in this order.
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
    answer_one,
    mean_shrink,
    read,
    revision_of,
)
from kickserve.features import BY_NAME, COUNT, INDEX
from kickserve.model import Answer, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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

SURFACE_DISTANCES: Final = tuple(7.0 * 1.55**number for number in range(6))
"""Metres: the rows of the grid that the surface hangs on, 7 to 62.6."""
SURFACE_ANGLES: Final = (0.0, 20.0, 40.0, 60.0)
"""Degrees: its columns."""
SURFACE: Final = tuple(
    f"surface:{distance:.3g}:{angle:g}" for distance in SURFACE_DISTANCES for angle in SURFACE_ANGLES
)
"""The names of the pieces of the surface: the products of a quadratic B-spline of the logarithm of the
distance and one of the angle (de Boor 2001, "A practical guide to splines", chapter 17). Beyond the grid they
keep their values at its edge."""
_ROWS: Final = len(SURFACE_DISTANCES)
_COLUMNS: Final = len(SURFACE_ANGLES)
_ROW_STEP: Final = math.log(1.55)
_COLUMN_STEP: Final = 20.0

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


FORMULAS: Final = ("intercept", "ln_theta", "beyond_60", "foot_side", "wind_distance", "ln_theta_squared")
"""The terms that are no feature, in the order of `values_of`."""


def values_of(row: Sequence[float]) -> list[float]:
    """Return the features of one kick and the results of `FORMULAS`.

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
        distance - _LONG if distance > _LONG else 0.0,  # metres
        # The angle in units of 30°, positive where foot and side differ (the ball turns in), else negative.
        (2.0 * abs(row[_LEFT_SIDE] - row[_LEFT_FOOTED]) - 1.0) * angle / 30.0,
        # Wind in units of 10 km/h times distance in units of 30 m.
        row[_WIND] / 10.0 * (distance / 30.0),
        # ln θ times its own size: below 1°, where the square would rise again, it goes on falling.
        ln_theta * abs(ln_theta),
    ]


def _fill_in(values: NDArray[np.float64]) -> None:
    """Fill in the results of `FORMULAS` behind the features of kicks, as `values_of`, but for the last bit.

    Args:
        values: shape (k, n), a row a value.
    """
    distance, angle = values[_DISTANCE], values[_ANGLE]
    one, ln_theta, beyond, foot_side, wind, squared = values[COUNT : COUNT + len(FORMULAS)]
    one.fill(1.0)
    np.log(theta(distance, angle), out=ln_theta)
    np.maximum(distance - _LONG, 0.0, out=beyond)
    np.abs(values[_LEFT_SIDE] - values[_LEFT_FOOTED], out=foot_side)
    foot_side *= 2.0
    foot_side -= 1.0
    foot_side *= angle
    foot_side /= 30.0
    np.multiply(values[_WIND] / 10.0, distance / 30.0, out=wind)
    np.multiply(ln_theta, np.abs(ln_theta), out=squared)


def surface_of(row: Sequence[float]) -> list[float]:
    """Return the pieces of the surface at one kick, in the order of `SURFACE`.

    Args:
        row: its eleven numbers.
    """
    down = _b_splines(math.log(row[_DISTANCE] / SURFACE_DISTANCES[0]) / _ROW_STEP, _ROWS)
    across = _b_splines(row[_ANGLE] / _COLUMN_STEP, _COLUMNS)
    return [first * second for first in down for second in across]


def _b_splines(x: float, count: int) -> list[float]:
    x = min(max(x, 0.0), count - 1.0)
    pieces = [_b_spline(abs(x - at)) for at in range(count)]
    total = sum(pieces)  # less than 1 at the edge, where a piece beyond it is missing
    return [piece / total for piece in pieces]


def _b_spline(far: float) -> float:
    """Return the quadratic B-spline at a distance from its middle, in steps of the grid."""
    if far < 0.5:  # noqa: PLR2004
        return 0.75 - far * far
    return 0.5 * (1.5 - far) ** 2 if far < 1.5 else 0.0  # noqa: PLR2004


def _surface(kicks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pieces of the surface, shape (24, n), at n kicks, whose features have the shape (11, n)."""
    down = _all_b_splines(np.log(kicks[_DISTANCE] / SURFACE_DISTANCES[0]) / _ROW_STEP, _ROWS)
    across = _all_b_splines(kicks[_ANGLE] / _COLUMN_STEP, _COLUMNS)
    return (down[:, np.newaxis] * across).reshape(len(SURFACE), -1)


def _all_b_splines(x: Column, count: int) -> NDArray[np.float64]:
    far = np.abs(np.clip(x, 0, count - 1) - np.arange(count)[:, np.newaxis])
    pieces: NDArray[np.float64] = np.where(far < 0.5, 0.75 - far**2, 0.5 * np.maximum(1.5 - far, 0) ** 2)  # noqa: PLR2004
    pieces /= pieces.sum(axis=0)
    return pieces


_BEHIND: Final = COUNT + len(FORMULAS)
_PIECES: Final[Mapping[str, int]] = {name: at for at, name in enumerate(SURFACE, _BEHIND)}
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
"""Every term that a model file may name, but for the pieces of the surface, and splines, which have their
knots in their names; the place of each among the values of a kick."""


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


class _Layout:
    """The values of a kick that some terms need, and the place of each term among them.

    Args:
        terms: k names.

    Raises:
        KeyError: a name is no term.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        names = list(terms)
        self.surface = not _PIECES.keys().isdisjoint(names)
        self.splines: list[Spline] = []
        self.places: list[int] = []
        behind = _BEHIND + self.surface * len(SURFACE)
        for name in names:
            place = TERMS.get(name, _PIECES.get(name))
            if place is None:
                place = behind + len(self.splines)
                self.splines.append(_spline_of(name))
            self.places.append(place)
        self.width = behind + len(self.splines)

    def of_one(self, row: Sequence[float]) -> list[float]:
        """Return the values of one kick."""
        values = values_of(row)
        if self.surface:
            values += surface_of(row)
        if self.splines:
            values += [spline(row) for spline in self.splines]
        return values

    def of_many(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of kicks of shape (n, 11): a row a value, each in one piece of memory."""
        rows = np.empty((self.width, len(matrix)))
        rows[:COUNT] = matrix.T
        _fill_in(rows)
        if self.surface:
            rows[_BEHIND : _BEHIND + len(SURFACE)] = _surface(rows)
        for at, spline in enumerate(self.splines, self.width - len(self.splines)):
            rows[at] = spline(rows)
        return rows


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
    layout = _Layout(terms)
    return np.ascontiguousarray(layout.of_many(matrix)[layout.places].T)


class LinearDocument(Document, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A linear model as its file has it: the fields of `kickserve.documents.Document`, and these.

    Attributes:
        format: `kickserve/linear`.
        version: of the format.
        terms: k names: of `TERMS`, of `SURFACE`, or of `spline_names`.
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
        self._layout = _Layout(document.terms)
        self._plain = not (self._layout.surface or self._layout.splines)
        # One matrix product gives the log-odds of the mean, those of a middling kicker, and a vector with the
        # length of half the interval: with Σ = R Rᵀ, xᵀΣx = |Rᵀx|². A value that is no term has the weight 0.
        coefficients, places = np.array(document.coefficients), self._layout.places
        self._weights = np.zeros((3 + len(places), self._layout.width))
        self._weights[0, places] = coefficients / mean_shrink(document.ability_sd)
        self._weights[1, places] = coefficients
        self._weights[2, TERMS["intercept"]] = NORMAL_975 * document.ability_sd
        self._weights[3:, places] = NORMAL_975 * _root(np.array(document.covariance)).T
        self._pack = Struct(f"{self._layout.width}d").pack

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
        products = _product(self._weights, self._layout.of_many(matrix))
        error, middle = products[2:], products[1]
        half = np.sqrt(np.add.reduce(np.square(error, out=error)))
        result[0] = products[0]
        np.subtract(middle, half, out=result[1])
        np.add(middle, half, out=result[2])
        answer_in_place(result)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick, without the cost of arrays of one row.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`, flags as 0 and 1.

        Returns:
            Probability, low and high: the same as `predict` gives.
        """
        values = values_of(row) if self._plain else self._layout.of_one(row)
        # numpy reads packed numbers in half of the time of a list.
        mean, middle, *error = self._weights.dot(np.frombuffer(self._pack(*values))).tolist()
        half = math.hypot(*error)
        return answer_one(mean, middle - half, middle + half) or self.predict_among(row)


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
        _Layout(document.terms)
    except KeyError as error:
        return f"this kickserve knows no term {error}, only {', '.join(TERMS)}, the surface and splines"
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
