"""The linear model: logistic regression in a few kilobytes of JSON, with an honest interval."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import numpy as np

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
from kickserve.features import COUNT
from kickserve.model import Answer, Origin
from kickserve.terms import TERMS, formulas_with, is_term, places_of, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORMAT: Final = "kickserve/linear"
VERSION: Final = 1
DEFAULT: Final = "default.json"

_CHUNK: Final = 8_192  # kicks at a time, so that their values stay in the processor's cache
_PIECE: Final = 1_024  # columns; for larger products BLAS wakes threads, which spin on others' cores
_STEP: Final = 32  # columns that any kernel of BLAS takes at once
_HELD: Final = 1 << 24  # bytes of memory that the process keeps for the next batch
_BIGGEST: Final = 1e9  # no log-odds need more; products of larger numbers could overflow
_NEGATIVE: Final = -1e-6  # what rounding may do to the smallest eigenvalue, as a part of the largest
_SYMMETRIC: Final = 1e-6

# Until a larger block was freed once, glibc returns the memory of each batch to the system, and the page
# faults of the next cost more than its predictions. This block is never touched, and costs nothing.
np.empty(_HELD, dtype=np.uint8)


class LinearDocument(Document, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A linear model as its file has it: the fields of `kickserve.documents.Document`, and these.

    Attributes:
        format: `kickserve/linear`.
        version: of the format.
        terms: k names that `kickserve.terms.is_term` knows.
        coefficients: k log-odds for a kicker of middling ability.
        covariance: of the coefficients, k by k.
    """

    format: str = FORMAT
    version: int = VERSION
    terms: list[str]
    coefficients: list[float]
    covariance: list[list[float]]


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
            checks=(_wrong_terms, _wrong_numbers, _wrong_covariance),
        )
        places, self._splines = places_of(document.terms)
        self._formulas = formulas_with(self._splines)
        # One matrix product gives the log-odds and, as the length of a vector, the standard error:
        # with Σ = R Rᵀ, xᵀΣx = |Rᵀx|². A value of a kick that is no term of this model has the weight 0.
        root = _root(np.array(document.covariance))
        self._weights = np.zeros((1 + len(root), COUNT + len(self._formulas)))
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
            Probability, low and high: the same as `predict` gives, but for the last bits.
        """
        values = values_of(row)
        if self._splines:
            values += [spline(row) for spline in self._splines]
        z, *error = self._weights.dot(values).tolist()
        half = NORMAL_975 * math.hypot(self._ability, *error)
        return answer_one(z / self._shrink, z - half, z + half)


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
