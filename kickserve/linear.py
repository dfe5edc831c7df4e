"""The linear model: logistic regression in a few kilobytes of JSON, with an honest interval."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from msgspec import Struct

from kickserve.documents import Header, OwnModel, Profile, read, revision_of
from kickserve.features import COUNT
from kickserve.log_odds import NORMAL_975, answer_in_place, answer_one, mean_shrink
from kickserve.model import Answer
from kickserve.origin import Origin
from kickserve.terms import TERMS, find_term, is_term, over_features, product

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.terms import Column

FORMAT: Final = "kickserve/linear"
VERSION: Final = 1
DEFAULT: Final = "default.json"

_CHUNK: Final = 8_192  # kicks at a time, so that all that is worked out about them stays in the cache
_BIGGEST: Final = 1e9  # no log-odds need more; products of larger numbers could overflow
_NEGATIVE: Final = -1e-6  # what rounding may do to the smallest eigenvalue, as a part of the largest
_SYMMETRIC: Final = 1e-6


class LinearDocument(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A linear model as its file has it.

    Attributes:
        format: `kickserve/linear`.
        version: of the format.
        name: name of the model.
        revision: what `fingerprint` gives; may be left out of a file written by hand.
        description: one paragraph on what it is.
        features: the eleven features, in order.
        terms: k names that `kickserve.terms.find_term` knows.
        coefficients: k log-odds for a kicker of middling ability.
        covariance: of the coefficients, k by k.
        ability_sd: spread of the kickers' ability in log-odds; 0 where the model knows none.
        domain: ranges of features outside which it warns.
        interval: what the interval covers, in words.
        trained_on: provenance.
        metrics: how good it is, and on what that was measured.
        reference: what its training data looked like, or null.
    """

    format: str = FORMAT
    version: int = VERSION
    name: str
    revision: str = ""
    description: str
    features: list[str]
    terms: list[str]
    coefficients: list[float]
    covariance: list[list[float]]
    ability_sd: float
    domain: dict[str, tuple[float, float]]
    interval: str
    trained_on: dict[str, Any]
    metrics: dict[str, Any]
    reference: Profile | None = None


def fingerprint(document: LinearDocument) -> str:
    """Return 12 hexadecimal digits (SHA-256) that change with whatever changes an answer of the model."""
    return revision_of(document, document.terms, document.coefficients, document.covariance)


class LinearModel(OwnModel[LinearDocument]):
    """A linear model that is ready to answer; it fills `kickserve.model.Model`.

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
            looks=(_wrong_terms, _wrong_numbers, _wrong_covariance),
        )
        terms = [find_term(name) for name in document.terms]
        self._formulas_of_one = [term.of_row for term in terms if term.feature is None]
        # One matrix product gives the log-odds and, as the length of a vector, the standard error:
        # with Σ = R Rᵀ, xᵀΣx = |Rᵀx|².
        root = _root(np.array(document.covariance))
        columns = np.vstack([np.array(document.coefficients), root.T])
        self._formulas, self._weights = over_features(document.terms, columns)
        self._ability = document.ability_sd
        self._shrink = mean_shrink(document.ability_sd)

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Answer n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.

        Returns:
            Probability, low and high, each of shape (n,), with low <= probability <= high.
        """
        result = np.empty((3, len(matrix)))
        for start in range(0, len(matrix), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._answer(matrix[part], result[:, part])
        return Answer(*result)

    def _answer(self, matrix: NDArray[np.float64], result: NDArray[np.float64]) -> None:
        """Fill in probability, low and high, shape (3, n), of kicks, shape (n, 11)."""
        # A row a feature or term, not a kick: each then lies in one piece of memory.
        rows = np.empty((COUNT + len(self._formulas), len(matrix)))
        rows[:COUNT] = matrix.T
        for at, formula in enumerate(self._formulas, COUNT):
            rows[at] = formula(cast("Sequence[Column]", rows))
        products = product(self._weights, rows)
        z, error = products[0], products[1:]
        error *= error
        half = NORMAL_975 * np.sqrt(np.add.reduce(error) + self._ability**2)
        np.divide(z, self._shrink, out=result[0])
        np.subtract(z, half, out=result[1])
        np.add(z, half, out=result[2])
        answer_in_place(result)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Answer one kick, without the cost of arrays of one row.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`, flags as 0 and 1.

        Returns:
            Probability, low and high: the same as `predict` gives, but for the last bits.
        """
        values = [*row, *[formula(row) for formula in self._formulas_of_one]]
        z, *error = self._weights.dot(values).tolist()
        half = NORMAL_975 * math.hypot(self._ability, *error)
        return answer_one(z / self._shrink, z - half, z + half)


def load_linear(data: bytes, origin: Origin) -> LinearModel:
    """Make a model of the bytes of its JSON file.

    Args:
        data: the file.
        origin: where it came from.

    Raises:
        ModelUnusable: it can't be read or used; the message says what is wrong where.
    """
    expected = Header(format=FORMAT, version=VERSION)
    return LinearModel(read(data, origin, LinearDocument, expected), origin)


def load_default() -> LinearModel:
    """Load the model that ships with kickserve, trained on simulated kicks."""
    file = files("kickserve").joinpath(DEFAULT)
    return load_linear(file.read_bytes(), Origin(f"kickserve/models/{DEFAULT}, in the package", "default"))


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with R·Rᵀ = covariance; unlike Cholesky's it exists where coefficients hang together."""
    values, vectors = np.linalg.eigh(covariance)
    result: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0))
    return result


def _wrong_terms(document: LinearDocument) -> str:
    unknown = [name for name in document.terms if not is_term(name)]
    if unknown:
        return f"this kickserve knows no term {unknown[0]!r}, only {', '.join(TERMS)} and splines"
    if len(set(document.terms)) != len(document.terms) or not document.terms:
        return "its terms must be one or more, and each only once"
    return ""


def _wrong_numbers(document: LinearDocument) -> str:
    count = len(document.terms)
    if len(document.coefficients) != count:
        return f"it has {count} terms, but {len(document.coefficients)} coefficients"
    if [len(row) for row in document.covariance] != [count] * count:
        return f"its covariance must have {count} rows of {count} numbers, one for each term"
    numbers = np.array([document.coefficients, *document.covariance])
    if not (np.abs(numbers) <= _BIGGEST).all():
        return f"a coefficient or covariance is not finite, or beyond {_BIGGEST:g}"
    if not 0 <= document.ability_sd <= _BIGGEST:
        return f"its ability_sd is {document.ability_sd:g}, and must be 0 or more, and finite"
    return ""


def _wrong_covariance(document: LinearDocument) -> str:
    covariance = np.array(document.covariance)
    if np.abs(covariance - covariance.T).max() > _SYMMETRIC * np.abs(covariance).max():
        return "its covariance is not symmetric"
    values = np.linalg.eigvalsh(covariance)
    if values[0] < _NEGATIVE * np.abs(values).max():
        return f"its covariance is not positive semidefinite (it has the eigenvalue {values[0]:g})"
    return ""
