"""Families of models that training fits from scratch, but for the trees: logistic regressions on terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.plugins import SURFACE, SURFACE_ANGLES, SURFACE_DISTANCES, expand, expit
from kickserve_data import DataError
from kickserve_data.simulate import COEFFICIENTS
from kickserve_train.falling import nearest_falling, rises

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kickserve_train.dataset import Dataset

    Batch = tuple[NDArray[np.float64], NDArray[np.bool_]]

CONSTANT: Final = "constant"
RECALIBRATED: Final = "recalibrated"
LOGISTIC: Final = "logistic"
SPLINES: Final = "splines"
BOOSTED: Final = "boosted"
KINDS: Final = (RECALIBRATED, LOGISTIC, SPLINES, BOOSTED)
"""The families to choose from, from simple to rich; the constant is only compared with."""

MISFIT: Final = (1.5, 1.1, 0.6, 0.45, 0.45, 0.45)
"""By how much a formula may be off, in log-odds, at each distance of the surface's grid: one standard
deviation. Of easy kicks next to all succeed, so that the public figures say least about their log-odds."""
NEAR_MISFIT: Final = (1.5, 1.1, 0.3, 0.0, 0.0, 0.0)
"""The same of a formula that holds but for easy kicks."""

_STEPS: Final = 25  # Newton's method takes about seven
_SMALL_STEP: Final = 1e-6  # in standard errors: after it the error is that squared
_SINGULAR: Final = 1e-10  # smallest eigenvalue of the standardised information; smaller is noise
_BATCH: Final = 65_536
_PRIOR_SD: Final = 2.5
_LEVEL: Final = 1e-4  # precision of the level: all of some kicks may have succeeded
_REACH: Final = 1.2  # steps of the grid over which a misfit stays much the same
_JITTER: Final = 1e-5  # keeps the prior's covariance invertible

_ALWAYS: Final = {"intercept", *SURFACE}  # terms with a prior of their own, or none


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

    def with_misfit(self, rich: LogisticFit) -> LogisticFit:
        """Return this fit with the errors that a richer one, which has its terms and more, sees in it.

        Its covariance is the richer one's, plus the square of how far the two are apart.
        """
        coefficients = np.zeros(len(rich.terms))
        coefficients[[rich.terms.index(name) for name in self.terms]] = self.coefficients
        away = coefficients - rich.coefficients
        return LogisticFit(rich.terms, coefficients, rich.covariance + np.outer(away, away), self.kicks)


class Logistic:
    """Logistic regression on terms.

    A weak prior keeps coefficients finite where a term separates success from failure without error, and
    apart where terms are collinear: normal around 0, its standard deviation 2.5 for the spread of the term
    (after Gelman et al. 2008, who scale theirs so too). Against hundreds of kicks it weighs next to nothing.
    The spread is the standard deviation, or a quarter of the range where that is more, as of a term that is
    0 but for a few kicks.

    Args:
        kind: name of the family.
        terms: k names; a term that never differs in the data is left out, unless the surface has it.
        dataset: the kicks that the terms' spread is taken from; their outcomes are not looked at.
        falls: whether the probability must not rise with the distance, nor with the angle.
    """

    def __init__(self, kind: str, terms: Sequence[str], dataset: Dataset, *, falls: bool = False) -> None:
        spread = dict(zip(terms, _spreads(dataset.matrix, terms), strict=True))
        self.kind = kind
        self.terms = [name for name in terms if name in _ALWAYS or spread[name] > 0]
        self._prior = np.diag(
            [_LEVEL if name in _ALWAYS else (spread[name] / _PRIOR_SD) ** 2 for name in self.terms]
        )
        if SURFACE[0] in self.terms:
            at = self.terms.index(SURFACE[0])
            piece = slice(at, at + len(SURFACE))
            self._prior[piece, piece] = np.linalg.inv(misfit_covariance(MISFIT))
        self._rises = rises(self.terms) if falls else None

    def fit(self, dataset: Dataset, seed: int = 0) -> LogisticFit:  # noqa: ARG002  nothing is drawn
        """Fit it.

        Raises:
            DataError: the kicks don't determine the coefficients.
        """
        return fit(
            lambda: designs(batches(dataset), self.terms),
            self.terms,
            precision=self._prior,
            falling=self._rises,
        )


def constant(dataset: Dataset) -> Logistic:
    """Make the family that always predicts the share of successes."""
    return Logistic(CONSTANT, ["intercept"], dataset)


def logistic(dataset: Dataset) -> Logistic:
    """Make the family that has the terms of the default model."""
    return Logistic(LOGISTIC, list(COEFFICIENTS), dataset)


def splines(dataset: Dataset) -> Logistic:
    """Make the family that also has a surface of B-splines over distance and angle.

    The surface is what the formula may be wrong by: a Gaussian process on the grid (Rasmussen & Williams
    2006, section 2.7, "Incorporating explicit basis functions"), as smooth and as large as the misfit of one
    plausible formula to another. So the posterior's covariance knows of misfit, and the intervals hold where
    the formula is wrong. As of boosted trees, the probability never rises with distance or angle.
    """
    return Logistic(SPLINES, [*COEFFICIENTS, "angle", *SURFACE], dataset, falls=True)


def misfit_covariance(sizes: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the prior covariance of the surface's coefficients, shape (24, 24), in their order.

    Args:
        sizes: their standard deviation at each distance of the grid, in log-odds.
    """
    down, across = (axis.ravel() for axis in np.indices((len(SURFACE_DISTANCES), len(SURFACE_ANGLES))))
    squared = np.subtract.outer(down, down) ** 2 + np.subtract.outer(across, across) ** 2
    size = np.array(sizes)[down]
    result: NDArray[np.float64] = np.exp(-squared / (2 * _REACH**2)) * np.outer(size, size)
    return result + _JITTER * np.eye(len(SURFACE))


def designs(batches: Iterable[Batch], terms: Sequence[str]) -> Iterator[Batch]:
    """Turn batches of features, shape (n, 11), and success into those of terms, shape (n, k), and success."""
    return ((expand(matrix, terms), success) for matrix, success in batches)


def fit(
    batches: Callable[[], Iterable[Batch]],
    terms: Sequence[str],
    *,
    start: NDArray[np.float64] | None = None,
    precision: NDArray[np.float64] | None = None,
    center: NDArray[np.float64] | None = None,
    falling: NDArray[np.float64] | None = None,
) -> LogisticFit:
    """Fit a logistic regression by maximum likelihood, or at the mode of the posterior with a prior.

    Newton's method, which for this likelihood is iteratively reweighted least squares (McCullagh & Nelder
    1989, section 2.5). It reads the kicks anew in each step and keeps only sums of them, so that memory
    does not grow with their number.

    Args:
        batches: gives all kicks at each call, the same in the same order: pairs of a design matrix, shape
            (n, k), and success, shape (n,).
        terms: names of the k columns.
        start: where to begin, shape (k,); by default at 0, from where each step helps.
        precision: shape (k, k), of a normal prior of the coefficients: the inverse of its covariance, 0 where
            there is none. The covariance is then that of the normal approximation to the posterior.
        center: of the prior, shape (k,); by default 0.
        falling: shape (m, k), differences of terms by which the log-odds must not rise.

    Raises:
        DataError: the kicks don't determine the coefficients.
    """
    middle = np.zeros(len(terms)) if center is None else center
    coefficients = np.zeros(len(terms)) if start is None else start
    prior = np.zeros((len(terms), len(terms))) if precision is None else precision
    for _ in range(_STEPS):
        gradient, information, count = _add_up(batches(), coefficients)
        covariance = _inverse(information + prior, terms)
        change = covariance @ (gradient - prior @ (coefficients - middle))
        if falling is not None:
            change = nearest_falling(coefficients + change, information + prior, falling) - coefficients
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


def batches(dataset: Dataset) -> Iterator[Batch]:
    """Go through kicks in pieces, so that their terms need little memory."""
    for at in range(0, len(dataset), _BATCH):
        part = slice(at, at + _BATCH)
        yield dataset.matrix[part], dataset.success[part]


def _spreads(matrix: NDArray[np.float64], terms: Sequence[str]) -> NDArray[np.float64]:
    """Return the spread of each term, exactly 0 where it never differs."""
    values = expand(matrix[:: max(len(matrix) // _BATCH, 1)], terms)
    ranges = np.ptp(values, axis=0)
    result: NDArray[np.float64] = np.where(ranges > 0, np.maximum(values.std(axis=0), ranges / 4), 0)
    return result
