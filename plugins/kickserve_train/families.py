"""The families of models that training compares, from simple to rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from kickserve.features import INDEX
from kickserve.terms import TERMS, expand, spline_names
from kickserve_train.logistic import Fit, fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kickserve_train.data import Known
    from kickserve_train.logistic import Batch

CONSTANT: Final = "constant"
LOGISTIC: Final = "logistic"
SPLINES: Final = "splines"
BOOSTED: Final = "boosted"
KINDS: Final = (LOGISTIC, SPLINES, BOOSTED)
"""What may be chosen, from simple to rich; the constant is there to be compared with."""

_BATCH: Final = 65_536
_PRIOR_SD: Final = 2.5
_KNOTS: Final = (0.05, 0.275, 0.5, 0.725, 0.95)  # quantiles (Harrell 2015, table 2.3)
_SPLINED: Final = ("distance", "angle")
_FEWEST_KNOTS: Final = 3


class Fitted(Protocol):
    """A model fitted to kicks."""

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of success of n kicks, shape (n, 11), over kickers of all abilities; (n,)."""
        ...


class Family(Protocol):
    """A way to fit a model."""

    @property
    def kind(self) -> str:
        """Its name."""
        ...

    def fit(self, known: Known, seed: int) -> Fitted:
        """Fit a model; the same for the same kicks and seed."""
        ...


class Constant:
    """Always says the share of successes."""

    kind = CONSTANT

    def fit(self, known: Known, seed: int) -> Fitted:  # noqa: ARG002  nothing is drawn
        """Fit it."""
        share = (known.success.sum() + 0.5) / (len(known) + 1)
        return _ConstantFitted(float(np.log(share / (1 - share))))


class _ConstantFitted(NamedTuple):
    z: float

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(matrix), self.z)


class Logistic:
    """Logistic regression on terms.

    A weak prior keeps coefficients finite where a term tells success from failure without error, and apart
    where terms hang together: normal around 0, its standard deviation 2.5 for the spread of the term (after
    Gelman et al. 2008, who scale theirs so too). Against hundreds of kicks it weighs next to nothing. The
    spread is the standard deviation, or a quarter of the range where that is more, as of a term that is 0 but
    for a few kicks.

    Args:
        kind: name of the family.
        terms: k names; those that never differ in the data are left out.
        known: the kicks that the terms' spread is taken from; their outcomes are not looked at.
    """

    def __init__(self, kind: str, terms: list[str], known: Known) -> None:
        spread = _spreads(known.matrix, terms)
        kept = [at for at, name in enumerate(terms) if name == "intercept" or spread[at] > 0]
        self.kind = kind
        self.terms = [terms[at] for at in kept]
        precision = (spread[kept] / _PRIOR_SD) ** 2
        self._precision = np.where(np.array(self.terms) == "intercept", 0, precision)

    def fit(self, known: Known, seed: int = 0) -> LogisticFitted:  # noqa: ARG002  nothing is drawn
        """Fit it.

        Raises:
            DataError: the kicks don't determine the coefficients.
        """
        found = fit(lambda: _batches(known), self.terms, precision=self._precision)
        return LogisticFitted(self.terms, found)


class LogisticFitted(NamedTuple):
    """A fitted logistic regression."""

    terms: list[str]
    found: Fit

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of n kicks, shape (n,)."""
        parts = range(0, len(matrix), _BATCH)
        return np.concatenate(
            [
                np.einsum("ij,j->i", expand(matrix[at : at + _BATCH], self.terms), self.found.coefficients)
                for at in parts
            ]
            or [np.empty(0)]
        )


def logistic(known: Known) -> Logistic:
    """Make the family that has the terms of the default model."""
    return Logistic(LOGISTIC, [name for name in TERMS if name != "angle"], known)


def splines(known: Known) -> Logistic:
    """Make the family that has natural cubic splines of distance and angle as well.

    The knots stand at quantiles of the data; where these are too few for a spline, it is a straight line.
    """
    # A spline of the distance bends by itself beyond 60 m.
    terms = [name for name in TERMS if name != "beyond_60"]
    for feature in _SPLINED:
        knots = np.unique(np.quantile(known.matrix[:, INDEX[feature]], _KNOTS).round(2))
        if len(knots) >= _FEWEST_KNOTS:
            terms += spline_names(feature, knots.tolist())
    return Logistic(SPLINES, terms, known)


def _batches(known: Known) -> Iterator[Batch]:
    for at in range(0, len(known), _BATCH):
        part = slice(at, at + _BATCH)
        yield known.matrix[part], known.success[part]


def _spreads(matrix: NDArray[np.float64], terms: list[str]) -> NDArray[np.float64]:
    """Return the spread of each term, exactly 0 where it never differs."""
    values = expand(matrix[:: max(len(matrix) // _BATCH, 1)], terms)
    ranges = np.ptp(values, axis=0)
    result: NDArray[np.float64] = np.where(ranges > 0, np.maximum(values.std(axis=0), ranges / 4), 0)
    return result
