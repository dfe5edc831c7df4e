"""Counts kicks in bins of a reference: what drift is measured from. Counts merge by addition, in any order.

A reference has twelve columns: the eleven features, and what the model says of them. Each column that is a
number has about ten bins that hold about as many kicks of the reference each (its deciles); a flag has two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.errors import DataError, ModelUnusable
from kickserve.features import FLAGS, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kickserve.model import Profile

PREDICTION: Final = "prediction"
COLUMNS: Final = (*NAMES, PREDICTION)
"""Names of the columns, in order."""

MOST: Final = 20  # bins of a column at most: nine deciles, each perhaps a value that many kicks share
WIDTH: Final = 1 + MOST  # the sum of the values, and how many are in each bin

_TENTHS: Final = np.arange(1, 10) / 10
_LEAST: Final = 0.02  # share of the reference in a bin: with less, a bin tells little and its noise is large
_HEAVY: Final = 0.05  # share of the kicks from which a single value has a bin of its own
_CHUNK: Final = 16_384  # values at a time, so that they stay in the cache while they are compared
_BETWEEN: Final = np.array([0.5])  # the edge between the two values of a flag


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The bins of one column.

    Attributes:
        name: one of `COLUMNS`.
        edges: shape (k - 1,), rising; bin j holds the values x with edges[j - 1] < x <= edges[j].
        expected: shape (k,), how many kicks of the reference are in each bin.
        mean: of the reference.
    """

    name: str
    edges: NDArray[np.float64]
    expected: NDArray[np.float64]
    mean: float

    @classmethod
    def of_values(cls, name: str, values: NDArray[np.float64]) -> Column:
        """Make the bins of values, shape (m,); NaN stands for a missing one.

        Raises:
            DataError: all are missing.
        """
        values = values[np.isfinite(values)]
        if not len(values):
            raise DataError(f"the reference has no values of {name}: nothing can be compared with it")
        edges = _BETWEEN if name in FLAGS else _edges(values)
        return cls(name, edges, _histogram(values, edges), float(values.mean()))

    @classmethod
    def of_quantiles(
        cls, name: str, levels: Sequence[float], quantiles: Sequence[float], count: int
    ) -> Column:
        """Make the bins that quantiles of a reference tell of.

        A value at several levels is one that many kicks share. How many of them, the quantiles do not say;
        so no bin ends there, and the count of every bin is exact. Where all values are such, one bin is all.

        Args:
            name: one of `COLUMNS`.
            levels: levels of the quantiles, rising from 0 to 1.
            quantiles: at these levels.
            count: kicks of the reference.
        """
        known = np.array(quantiles)
        alone = [level for level, value in zip(levels, known, strict=True) if np.sum(known == value) == 1]
        between = np.array([level for level in alone if _TENTHS[0] <= level <= _TENTHS[-1]])
        # A bin a tenth, however many levels there are.
        inner = sorted(
            {float(between[np.abs(between - tenth).argmin()]) for tenth in _TENTHS if len(between)}
        )
        # The mean is the integral of the quantiles over their levels, here by trapezia.
        mean = float(np.sum(np.diff(levels) * (known[1:] + known[:-1]) / 2))
        if known[0] == known[-1]:
            return cls(name, _around(known[0]), np.array([0.0, count, 0.0]), mean)
        expected = np.diff([0.0, *inner, 1.0]) * count
        return cls(name, known[np.isin(levels, inner)], expected, mean)

    @classmethod
    def of_share(cls, name: str, share: float, count: int) -> Column:
        """Make the two bins of a flag that is set in this share of the reference's kicks."""
        return cls(name, _BETWEEN, np.array([1 - share, share]) * count, share)

    def count(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count values, shape (n,), NaN not among them; return a row of `Counts.cells`."""
        row = np.zeros(WIDTH)
        row[1 : 1 + len(self.expected)] = _histogram(values, self.edges)
        row[0] = np.nansum(values)
        return row


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many kicks were in which bin of which column: a fixed size, whatever the number of kicks.

    Attributes:
        cells: shape (12, 21): by column the sum of its values, and how many were in each bin.
    """

    cells: NDArray[np.float64]

    @classmethod
    def none(cls) -> Counts:
        """Return those of no kicks."""
        return cls(np.zeros((len(COLUMNS), WIDTH)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.cells + other.cells)

    @property
    def kicks(self) -> int:
        """How many kicks were counted: those of the column where the fewest are missing."""
        return int(self.cells[:, 1:].sum(axis=1).max())


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the kicks that a model knows look like.

    Attributes:
        model: name of the model, or of what else the reference is taken from.
        columns: in the order of `COLUMNS`.
        note: what to know of where it comes from; empty where there is nothing.
    """

    model: str
    columns: tuple[Column, ...]
    note: str = ""

    @classmethod
    def of_profile(cls, profile: Profile, model: str) -> Reference:
        """Make the bins that a model's own profile tells of.

        Args:
            profile: of the model.
            model: its name.

        Raises:
            ModelUnusable: the profile contradicts itself.
        """
        try:
            return cls(model, tuple(_of_profile(profile)))
        except (KeyError, ValueError) as error:
            raise ModelUnusable(
                f"the profile of the model {model} can't be read ({error}): train the model again"
            ) from error

    @classmethod
    def of_kicks(cls, matrix: NDArray[np.float64], prediction: NDArray[np.float64], name: str) -> Reference:
        """Make the bins of kicks.

        Args:
            matrix: shape (m, 11), in the order of `kickserve.features.NAMES`; NaN stands for a missing value.
            prediction: what the model says of them, shape (m,).
            name: what to call the reference.

        Raises:
            DataError: a column has no values at all.
        """
        values = zip(COLUMNS, [*matrix.T, prediction], strict=True)
        return cls(name, tuple(Column.of_values(*each) for each in values))

    def count(self, matrix: NDArray[np.float64], prediction: NDArray[np.float64]) -> Counts:
        """Count kicks: about 50 ns each.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`; NaN stands for a missing value.
            prediction: what the model says of them, shape (n,).
        """
        values = zip(self.columns, [*matrix.T, prediction], strict=True)
        return Counts(np.array([column.count(each) for column, each in values]))


def _of_profile(profile: Profile) -> Iterator[Column]:
    for name in NAMES:
        if name in FLAGS:
            yield Column.of_share(name, profile.shares[name], profile.count)
        else:
            yield Column.of_quantiles(name, profile.levels, profile.quantiles[name], profile.count)
    yield Column.of_quantiles(PREDICTION, profile.levels, profile.prediction, profile.count)


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count values, shape (n,), by bin, shape (k,); NaN is in none."""
    beyond = np.zeros(len(edges) + 1)  # edge by edge, how many lie beyond; at first all that are no NaN
    for start in range(0, len(values), _CHUNK):
        # Comparing with each edge in turn is several times as fast as to look for the bin of each value.
        part = np.ascontiguousarray(values[start : start + _CHUNK])
        beyond[0] += np.count_nonzero(part == part)  # noqa: PLR0124  the quick way to leave out NaN
        for at, edge in enumerate(edges, 1):
            beyond[at] += np.count_nonzero(part > edge)
    beyond[:-1] -= beyond[1:]
    return beyond


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ends of bins that hold about a tenth of the values each, or one value that is frequent."""
    deciles = np.unique(np.quantile(values, _TENTHS))
    heavy = [value for value in deciles if np.mean(values == value) >= _HEAVY]
    candidates = np.unique([*deciles, *(np.nextafter(value, -np.inf) for value in heavy)])
    edges: list[float] = []
    reached, least = 0.0, _LEAST * len(values)
    for edge, below in zip(candidates, np.cumsum(_histogram(values, candidates)), strict=False):
        if below - reached >= least and len(values) - below >= least:
            edges.append(edge)
            reached = below
    return np.array(edges) if edges else _around(float(np.median(values)))


def _around(value: float) -> NDArray[np.float64]:
    """Return the edges that have a bin between them for this value alone: of a column that is constant."""
    return np.array([np.nextafter(value, -np.inf), value])
