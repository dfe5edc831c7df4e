"""Fits logistic regressions: to as many kicks as there are, in memory that does not grow with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.documents import expit
from kickserve.errors import DataError
from kickserve.terms import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Batch = tuple[NDArray[np.float64], NDArray[np.bool_]]
    Batches = Callable[[], Iterable[Batch]]

_STEPS: Final = 25  # Newton's method takes about seven
_ENOUGH: Final = 1e-6  # a step this small, in standard errors: after it the error is that squared
_TOGETHER: Final = 1e-10  # smallest eigenvalue of the standardised information; smaller is noise


class Fit(NamedTuple):
    """A logistic regression.

    Attributes:
        coefficients: shape (k,), log-odds.
        covariance: shape (k, k), of the coefficients: the inverse of Fisher's information.
        kicks: how many it was fitted to.
    """

    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    kicks: int


def fit(
    batches: Batches,
    terms: Sequence[str],
    *,
    start: NDArray[np.float64] | None = None,
    precision: NDArray[np.float64] | None = None,
) -> Fit:
    """Fit a logistic regression by maximum likelihood, or at the mode of what is likely with a prior.

    Newton's method, which for this likelihood is iteratively reweighted least squares (McCullagh & Nelder
    1989, section 2.5). It reads the kicks anew in each step and keeps only sums of them, so that memory
    does not grow with their number.

    Args:
        batches: gives all kicks each time that it is called, the same in the same order: pairs of features,
            shape (n, 11), and success, shape (n,).
        terms: k names that `kickserve.terms.is_term` knows.
        start: where to begin, shape (k,); by default at 0.
        precision: shape (k,), of a normal prior around 0 of each coefficient: 1 over its variance, 0 for
            none. The covariance is then that of the normal approximation to the posterior.

    Raises:
        DataError: the kicks don't determine the coefficients.
    """
    coefficients = np.zeros(len(terms)) if start is None else start
    prior = np.zeros(len(terms)) if precision is None else precision
    for _ in range(_STEPS):
        gradient, information, count = _add_up(batches, terms, coefficients)
        covariance = _inverse(information + np.diag(prior), terms)
        change = covariance @ (gradient - prior * coefficients)
        coefficients = coefficients + change
        if np.abs(change / np.sqrt(np.diag(covariance))).max() < _ENOUGH:
            return Fit(coefficients, covariance, count)
    raise DataError(
        "the fit does not settle, most likely because some term tells success from failure without error:"
        " give more kicks, of both outcomes"
    )


def _add_up(
    batches: Batches, terms: Sequence[str], coefficients: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Gradient of the log-likelihood, shape (k,), Fisher's information, shape (k, k), and the count of kicks.

    `einsum` adds in one order, where a matrix product splits the work over threads: the sums, and with them
    the bytes of the model file, must not depend on the machine's number of cores.
    """
    gradient = np.zeros(len(terms))
    information = np.zeros((len(terms), len(terms)))
    count = 0
    for matrix, success in batches():
        x = expand(matrix, terms)
        p = expit(np.einsum("ij,j->i", x, coefficients))
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
    if np.linalg.eigvalsh(standard)[0] < _TOGETHER:
        raise DataError(
            f"the kicks can't tell the terms {', '.join(terms)} apart: give more kicks, or fewer terms"
        )
    inverse = np.linalg.inv(standard) / np.outer(scale, scale)
    result: NDArray[np.float64] = (inverse + inverse.T) / 2  # rounding leaves it not quite symmetric
    return result
