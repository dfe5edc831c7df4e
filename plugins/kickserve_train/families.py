"""Families of models that training compares, but for the trees: logistic regressions on terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.features import INDEX
from kickserve.plugins import TERMS, expand, expit, spline_names
from kickserve_data import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve_train.dataset import Dataset

    Batch = tuple[NDArray[np.float64], NDArray[np.bool_]]

CONSTANT: Final = "constant"
LOGISTIC: Final = "logistic"
SPLINES: Final = "splines"
BOOSTED: Final = "boosted"
KINDS: Final = (LOGISTIC, SPLINES, BOOSTED)
"""The families to choose from, from simple to rich; the constant is only compared with."""

_STEPS: Final = 25  # Newton's method takes about seven
_SMALL_STEP: Final = 1e-6  # in standard errors: after it the error is that squared
_SINGULAR: Final = 1e-10  # smallest eigenvalue of the standardised information; smaller is noise
_BATCH: Final = 65_536
_PRIOR_SD: Final = 2.5
_KNOTS: Final = (0.05, 0.275, 0.5, 0.725, 0.95)  # quantiles (Harrell 2015, table 2.3)
_SPLINED: Final = ("distance", "angle")
_FEWEST_KNOTS: Final = 3


class LogisticFit(NamedTuple):
    """A fitted logistic regression.

    Attributes:
        terms: k names.
        coefficients: shape (k,), log-odds.
        covariance: shape (k, k), of the coefficients: the inverse of Fisher's information.
        kicks: how many it was fitted to.
    """

    terms: Sequence[str]
    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    kicks: int

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of n kicks, shape (n,)."""
        return _product(expand(matrix, self.terms), self.coefficients)


class Logistic:
    """Logistic regression on terms.

    A weak prior keeps coefficients finite where a term separates success from failure without error, and
    apart where terms are collinear: normal around 0, its standard deviation 2.5 for the spread of the term
    (after Gelman et al. 2008, who scale theirs so too). Against hundreds of kicks it weighs next to nothing.
    The spread is the standard deviation, or a quarter of the range where that is more, as of a term that is
    0 but for a few kicks.

    Args:
        kind: name of the family.
        terms: k names; a term that never differs in the data is left out.
        dataset: the kicks that the terms' spread is taken from; their outcomes are not looked at.
    """

    def __init__(self, kind: str, terms: list[str], dataset: Dataset) -> None:
        spread = _spreads(dataset.matrix, terms)
        kept = [at for at, name in enumerate(terms) if name == "intercept" or spread[at] > 0]
        self.kind = kind
        self.terms = [terms[at] for at in kept]
        precision = (spread[kept] / _PRIOR_SD) ** 2
        self._precision = np.where(np.array(self.terms) == "intercept", 0, precision)

    def fit(self, dataset: Dataset, seed: int = 0) -> LogisticFit:  # noqa: ARG002  nothing is drawn
        """Fit it.

        Raises:
            DataError: the kicks don't determine the coefficients.
        """
        return fit(lambda: designs(_batches(dataset), self.terms), self.terms, precision=self._precision)


def constant(dataset: Dataset) -> Logistic:
    """Make the family that always predicts the share of successes."""
    return Logistic(CONSTANT, ["intercept"], dataset)


def logistic(dataset: Dataset) -> Logistic:
    """Make the family that has the terms of the default model."""
    return Logistic(LOGISTIC, [name for name in TERMS if name != "angle"], dataset)


def splines(dataset: Dataset) -> Logistic:
    """Make the family that has natural cubic splines of distance and angle as well.

    The knots are quantiles of the data; where these are too few for a spline, it is a straight line.
    """
    # A spline of the distance bends by itself beyond 60 m.
    terms = [name for name in TERMS if name != "beyond_60"]
    for feature in _SPLINED:
        knots = np.unique(np.quantile(dataset.matrix[:, INDEX[feature]], _KNOTS).round(2))
        if len(knots) >= _FEWEST_KNOTS:
            terms += spline_names(feature, knots.tolist())
    return Logistic(SPLINES, terms, dataset)


def designs(batches: Iterable[Batch], terms: Sequence[str]) -> Iterator[Batch]:
    """Turn batches of features, shape (n, 11), and success into those of terms, shape (n, k), and success."""
    return ((expand(matrix, terms), success) for matrix, success in batches)


def fit(
    batches: Callable[[], Iterable[Batch]],
    terms: Sequence[str],
    *,
    start: NDArray[np.float64] | None = None,
    precision: NDArray[np.float64] | None = None,
) -> LogisticFit:
    """Fit a logistic regression by maximum likelihood, or at the mode of the posterior with a prior.

    Newton's method, which for this likelihood is iteratively reweighted least squares (McCullagh & Nelder
    1989, section 2.5). It reads the kicks anew in each step and keeps only sums of them, so that memory
    does not grow with their number.

    Args:
        batches: gives all kicks at each call, the same in the same order: pairs of a design matrix, shape
            (n, k), and success, shape (n,).
        terms: names of the k columns.
        start: where to begin, shape (k,); by default at 0.
        precision: shape (k,), of a normal prior around 0 of each coefficient: 1 over its variance, 0 for
            none. The covariance is then that of the normal approximation to the posterior.

    Raises:
        DataError: the kicks don't determine the coefficients.
    """
    coefficients = np.zeros(len(terms)) if start is None else start
    prior = np.zeros(len(terms)) if precision is None else precision
    for _ in range(_STEPS):
        gradient, information, count = _add_up(batches(), coefficients)
        covariance = _inverse(information + np.diag(prior), terms)
        change = covariance @ (gradient - prior * coefficients)
        coefficients = coefficients + change
        if np.abs(change / np.sqrt(np.diag(covariance))).max() < _SMALL_STEP:
            return LogisticFit(terms, coefficients, covariance, count)
    raise DataError(
        "the fit does not converge, most likely because a term separates success from failure"
        " perfectly: give more kicks, of both outcomes"
    )


def _product(x: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply in one order: a matrix product splits the work over threads.

    The sums, and with them the bytes of the model file, must not depend on the machine's number of cores.
    """
    result: NDArray[np.float64] = np.einsum("ij,j->i", x, coefficients)
    return result


def _add_up(
    batches: Iterable[Batch], coefficients: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Gradient of the log-likelihood, shape (k,), Fisher's information, shape (k, k), count of kicks."""
    gradient = np.zeros(len(coefficients))
    information = np.zeros((len(coefficients), len(coefficients)))
    count = 0
    for x, success in batches:
        p = expit(_product(x, coefficients))
        gradient += np.einsum("ij,i->j", x, success - p)
        information += np.einsum("ij,ik->jk", x * (p * (1 - p))[:, np.newaxis], x)
        count += len(x)
    return gradient, information, count


def _inverse(information: NDArray[np.float64], terms: Sequence[str]) -> NDArray[np.float64]:
    diagonal = np.diag(information)
    if diagonal.min() <= 0:
        raise DataError(
            f"the kicks say nothing about {terms[int(diagonal.argmin())]}: give more kicks, where it differs"
        )
    # To the same scale first: a term in metres and one of shares differ by thousands.
    scale = np.sqrt(diagonal)
    standard = information / np.outer(scale, scale)
    if np.linalg.eigvalsh(standard)[0] < _SINGULAR:
        raise DataError(
            f"the kicks can't separate the terms {', '.join(terms)}: give more kicks, or fewer terms"
        )
    inverse = np.linalg.inv(standard) / np.outer(scale, scale)
    result: NDArray[np.float64] = (inverse + inverse.T) / 2  # rounding leaves it not quite symmetric
    return result


def _batches(dataset: Dataset) -> Iterator[Batch]:
    for at in range(0, len(dataset), _BATCH):
        part = slice(at, at + _BATCH)
        yield dataset.matrix[part], dataset.success[part]


def _spreads(matrix: NDArray[np.float64], terms: list[str]) -> NDArray[np.float64]:
    """Return the spread of each term, exactly 0 where it never differs."""
    values = expand(matrix[:: max(len(matrix) // _BATCH, 1)], terms)
    ranges = np.ptp(values, axis=0)
    result: NDArray[np.float64] = np.where(ranges > 0, np.maximum(values.std(axis=0), ranges / 4), 0)
    return result
