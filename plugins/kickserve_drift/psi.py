"""The population stability index (PSI) of kicks against a reference, and the rule for what has drifted.

PSI is Σ (a - e)·ln(a / e) over the bins of a column, with a the share of the current kicks in a bin and e
that of the reference. Its size means the same for each column and unit. Without drift PSI is not 0, but
scatters as (1/n + 1/m) times a χ² variable with one degree of freedom less than there are bins, n and m
being the numbers of kicks (Yurdakul 2018, "Statistical Properties of Population Stability Index", Western
Michigan University): 50 kicks show 0.3 by chance alone. So a column has drifted where its PSI reaches
`Limits.psi`, or for few kicks the PSI that chance exceeds once in a thousand times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from msgspec import structs

from kickserve.features import FLAGS, NAMES
from kickserve.plugins import KickserveError, ModelUnusable
from kickserve.schemas import Drifted, DriftSummary
from kickserve_data import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from kickserve.plugins import Profile
    from kickserve.schemas import Calibration

MIN_KICKS: Final = 50
"""Kicks from which drift is computed: of fewer, a bin holds less than five."""

PREDICTION: Final = "prediction"
COLUMNS: Final = (*NAMES, PREDICTION)
MAX_BINS: Final = 20  # nine deciles, each perhaps a value that many kicks share
COUNTS: Final = (len(COLUMNS), 1 + MAX_BINS)
"""Shape of the counts of kicks: of each column the sum of the values, then the kicks in each bin."""

_TENTHS: Final = np.arange(1, 10) / 10
_MIN_SHARE: Final = 0.02  # of the reference in a bin: the noise of a smaller one is large
_FREQUENT: Final = 0.05  # share of the kicks from which a single value has a bin of its own
_FLAG_EDGES: Final = np.array([0.5])
_EASE: Final = 0.8
_SMOOTHING: Final = 0.5  # added to each count: otherwise one empty bin makes PSI infinite


class TooFewKicks(KickserveError):
    """There are fewer kicks than drift can be computed from."""

    status = 409
    title = "Too few kicks"
    exit_code = 5


class Limits(NamedTuple):
    """Limits from which on something has drifted.

    Attributes:
        psi: of one column, from 0. By convention 0.1 is a change to look at, and 0.25 a large one.
        share: of drifted features by all, 0 to 1.
        false_alarms: probability that a column without drift passes for drifted, 0 to 1.
    """

    psi: float = 0.1
    share: float = 0.5
    false_alarms: float = 0.001

    def eased(self) -> Limits:
        """Return limits a fifth lower: drift has ended for sure only below these."""
        return Limits(self.psi * _EASE, self.share * _EASE, self.false_alarms * 10)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The bins of one column of the reference.

    Attributes:
        name: one of `COLUMNS`.
        edges: shape (k - 1,), rising; bin j holds the values x with edges[j - 1] < x <= edges[j].
        expected: shape (k,), kicks of the reference in each bin.
        mean: of the reference.
    """

    name: str
    edges: NDArray[np.float64]
    expected: NDArray[np.float64]
    mean: float

    @classmethod
    def of_values(cls, name: str, values: NDArray[np.float64]) -> Column:
        """Make the bins of values, shape (m,), NaN where missing.

        Raises:
            DataError: all are missing.
        """
        values = values[np.isfinite(values)]
        if not len(values):
            raise DataError(f"the reference has no values of {name}: nothing can be compared with it")
        edges = _FLAG_EDGES if name in FLAGS else _edges(values)
        return cls(name, edges, _histogram(values, edges), float(values.mean()))

    @classmethod
    def of_quantiles(
        cls, name: str, levels: Sequence[float], quantiles: Sequence[float], count: int
    ) -> Column:
        """Make the bins from quantiles of the reference, about one for each tenth.

        A value at several levels is one that many kicks share; the quantiles don't give their number. So no
        bin ends there, and the count of every bin is exact. Where all values are such, there is one bin.

        Args:
            name: one of `COLUMNS`.
            levels: levels of the quantiles, rising from 0 to 1.
            quantiles: at these levels.
            count: kicks of the reference.
        """
        known = np.array(quantiles)
        # The mean is the integral of the quantiles over their levels, here by trapezia.
        mean = float(np.sum(np.diff(levels) * (known[1:] + known[:-1]) / 2))
        if known[0] == known[-1]:
            return cls(name, _around(known[0]), np.array([0.0, count, 0.0]), mean)
        alone = np.array(
            [
                level
                for level, value in zip(levels, known, strict=True)
                if _TENTHS[0] <= level <= _TENTHS[-1] and np.sum(known == value) == 1
            ]
        )
        inner = sorted({float(alone[np.abs(alone - tenth).argmin()]) for tenth in _TENTHS if len(alone)})
        expected = np.diff([0.0, *inner, 1.0]) * count
        return cls(name, known[np.isin(levels, inner)], expected, mean)

    def count(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count values, shape (n,), but for NaN; return a row of `COUNTS`."""
        row = np.zeros(COUNTS[1])
        row[0] = np.nansum(values)
        row[1 : 1 + len(self.expected)] = _histogram(values, self.edges)
        return row

    def compare(self, counts: NDArray[np.float64], limits: Limits) -> Drifted:
        """Return how far the column has drifted, given its row of `COUNTS`.

        A column with one bin has not drifted, as all values are in it; nor has one without any value.
        """
        counted = counts[1 : 1 + len(self.expected)]
        n, m = float(counted.sum()), float(self.expected.sum())
        comparable = n > 0 and len(counted) > 1
        figure = psi(self.expected, counted) if comparable else 0.0
        by_chance = _chi_square(len(counted) - 1, limits.false_alarms) * (1 / n + 1 / m) if comparable else 0
        limit = max(limits.psi, by_chance)
        return Drifted(
            name=self.name,
            psi=figure,
            limit=limit,
            drifted=comparable and figure >= limit,
            mean=float(counts[0] / n) if n else 0.0,
            reference_mean=self.mean,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The kicks that a model knows.

    Attributes:
        model: name of the model, or of the file of kicks.
        columns: in the order of `COLUMNS`.
        note: what to know of its origin; empty where there is nothing.
    """

    model: str
    columns: tuple[Column, ...]
    note: str = ""

    @classmethod
    def of_profile(cls, profile: Profile, model: str) -> Reference:
        """Make the bins from the profile of the model of this name.

        Raises:
            ModelUnusable: the profile contradicts itself.
        """
        try:
            return cls(model, tuple(_columns_of(profile)))
        except (KeyError, ValueError) as error:
            raise ModelUnusable(
                f"the profile of the model {model} can't be read ({error}): train the model again"
            ) from error

    @classmethod
    def of_kicks(cls, rows: NDArray[np.float64], name: str) -> Reference:
        """Make the bins from kicks.

        Args:
            rows: shape (m, 12 or more), in the order of `COLUMNS`; NaN where missing.
            name: of the reference.

        Raises:
            DataError: a column has no values at all.
        """
        return cls(name, tuple(Column.of_values(*each) for each in zip(COLUMNS, rows.T, strict=False)))

    def count(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count kicks, about 50 ns each: rows as for `of_kicks`, result of shape `COUNTS`."""
        return np.array([column.count(each) for column, each in zip(self.columns, rows.T, strict=False)])


def psi(expected: NDArray[np.float64], counted: NDArray[np.float64]) -> float:
    """Return the population stability index of the counts of k bins, shape (k,) each: 0 for equal shares."""
    e, a = expected + _SMOOTHING, counted + _SMOOTHING
    e, a = e / e.sum(), a / a.sum()
    return float(np.sum((a - e) * np.log(a / e)))


def kicks_in(counts: NDArray[np.float64]) -> int:
    """Return the number of kicks in counts: of the column with the fewest missing values."""
    return int(counts[:, 1:].sum(axis=1).max())


def summarize(
    reference: Reference,
    counts: NDArray[np.float64],
    limits: Limits,
    *,
    at: datetime,
    since: datetime,
    report: str | None = None,
) -> DriftSummary:
    """Compare counts of kicks with the reference.

    Args:
        reference: counted by.
        counts: shape `COUNTS`.
        limits: from which on something has drifted.
        at: now, UTC.
        since: when the oldest kick was predicted, UTC.
        report: path of a full report.
    """
    columns = zip(reference.columns, counts, strict=True)
    *features, prediction = [column.compare(row, limits) for column, row in columns]
    share = sum(each.drifted for each in features) / len(features)
    return DriftSummary(
        at=at,
        model=reference.model,
        kicks=kicks_in(counts),
        since=since,
        drifted=share >= limits.share or prediction.drifted,
        share=share,
        limit=limits.share,
        features=features,
        prediction=prediction,
        note=reference.note,
        report=report,
    )


def with_outcomes(summary: DriftSummary, calibration: Calibration | None) -> DriftSummary:
    """Add the test by outcomes: a present alarm on the answers is a drift."""
    drifted = summary.drifted or (calibration is not None and calibration.change is not None)
    return structs.replace(summary, calibration=calibration, drifted=drifted)


def _chi_square(freedom: int, beyond: float) -> float:
    """Return the value that a χ² variable exceeds with this probability, to 1.5 % (3 % for one degree).

    By the cube root, which is nearly normal (Wilson and Hilferty 1931, "The distribution of chi-square").
    """
    variance = 2 / (9 * freedom)
    return freedom * (1 - variance + NormalDist().inv_cdf(1 - beyond) * math.sqrt(variance)) ** 3


def _columns_of(profile: Profile) -> Iterator[Column]:
    for name in NAMES:
        if name in FLAGS:
            share = profile.shares[name]
            yield Column(name, _FLAG_EDGES, np.array([1 - share, share]) * profile.count, share)
        else:
            yield Column.of_quantiles(name, profile.levels, profile.quantiles[name], profile.count)
    yield Column.of_quantiles(PREDICTION, profile.levels, profile.prediction, profile.count)


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count values, shape (n,), by bin, shape (k,), but for NaN."""
    # To compare with each edge in turn is several times as fast as to search the bin of each value.
    values = np.ascontiguousarray(values)
    known = len(values) - np.count_nonzero(np.isnan(values))
    above = [known, *(np.count_nonzero(values > edge) for edge in edges), 0]
    return -np.diff(np.array(above, dtype=np.float64))


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of bins that hold about a tenth of the values each, or one frequent value."""
    deciles = np.unique(np.quantile(values, _TENTHS))
    frequent = [value for value in deciles if np.mean(values == value) >= _FREQUENT]
    candidates = np.unique([*deciles, *(np.nextafter(value, -np.inf) for value in frequent)])
    edges: list[float] = []
    reached, least = 0.0, _MIN_SHARE * len(values)
    for edge, below in zip(candidates, np.cumsum(_histogram(values, candidates)), strict=False):
        if below - reached >= least and len(values) - below >= least:
            edges.append(edge)
            reached = below
    return np.array(edges) if edges else _around(float(np.median(values)))


def _around(value: float) -> NDArray[np.float64]:
    """Return the edges of a bin for this value alone, of a column that is constant."""
    return np.array([np.nextafter(value, -np.inf), value])
