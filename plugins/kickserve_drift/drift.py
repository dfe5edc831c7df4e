"""Decides what has drifted: one figure, one limit and one rule, whatever the number of kicks.

The figure is the population stability index (PSI) over bins of the reference, Σ (a - e)·ln(a / e) with a the
share of the current kicks in a bin and e that of the reference's. Its size means the same whatever the column
and its unit. Where nothing has changed it is not 0, but scatters as (1/n + 1/m) times a χ² variable with one
degree of freedom less than there are bins, n and m being the numbers of kicks (Yurdakul 2018, "Statistical
Properties of Population Stability Index", Western Michigan University): 50 kicks show 0.3 by chance alone.
So the limit is what is set, and for few kicks what chance exceeds once in a thousand times.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve.features import NAMES
from kickserve.model import HasProfile, Model, predict
from kickserve.schemas import Drifted, DriftSummary
from kickserve_drift.drift_bins import COLUMNS, PREDICTION, Column, Counts, Reference

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

LEAST: Final = 50
"""Kicks from which anything is said: with fewer, a tenth of them are too few for the figure to hold."""

_EASE: Final = 0.8
_OFTEN: Final = 10
_SMOOTHING: Final = 0.5  # added to each count: without it one empty bin would make the figure infinite
_ASKED: Final = 5_000  # simulated kicks that a model without a profile is asked, to know what it says of them
_SEED: Final = 7


class Limits(NamedTuple):
    """From where on something has drifted.

    Attributes:
        psi: of one column, from 0. By convention 0.1 is a change to look at, and 0.25 a large one.
        share: of drifted features by all, 0 to 1.
        false_alarms: how often a column that has not changed may be taken for drifted, 0 to 1.
    """

    psi: float = 0.1
    share: float = 0.5
    false_alarms: float = 0.001


def eased(limits: Limits) -> Limits:
    """Return limits a fifth lower: who is above these still has not come back for sure."""
    return Limits(limits.psi * _EASE, limits.share * _EASE, limits.false_alarms * _OFTEN)


def reference_of(model: Model) -> Reference:
    """Return what kicks the model knows, from its own profile.

    A model that brings none is held against the kicks of the model that ships with kickserve, and against
    what it says itself of kicks like those.

    Raises:
        ModelUnusable: its profile contradicts itself.
        PredictionFailed: it has no profile, and can't be asked.
    """
    from kickserve.loading import profile_of

    reference = Reference.of_profile(profile_of(model), model.card.name)
    known = isinstance(model, HasProfile) and model.profile is not None
    return reference if known else _borrowed(reference, model)


def _borrowed(reference: Reference, model: Model) -> Reference:
    from kickserve_data.simulate import simulate

    answers = Column.of_values(PREDICTION, predict(model, simulate(_ASKED, _SEED).matrix).probability)
    note = (
        f"the model {model.card.name} does not say what kicks it was trained on: the features are held"
        " against those of the model that ships with kickserve"
    )
    return replace(reference, columns=(*reference.columns[:-1], answers), note=note)


def psi(expected: NDArray[np.float64], counted: NDArray[np.float64]) -> float:
    """Return the population stability index, from 0: 0 where the shares are the same.

    Args:
        expected: how many of the reference are in each of k bins, shape (k,).
        counted: how many of the current ones are, shape (k,).
    """
    e, a = _shares(expected), _shares(counted)
    return float(np.sum((a - e) * np.log(a / e)))


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    smooth = counts + _SMOOTHING
    shares: NDArray[np.float64] = smooth / smooth.sum()
    return shares


def chance(bins: int, expected: float, counted: float, false_alarms: float) -> float:
    """Return the index that is exceeded by chance alone in this share of cases; see the module.

    Args:
        bins: of the column, from 2.
        expected: kicks of the reference.
        counted: current kicks.
        false_alarms: above 0, below 1.
    """
    return chi_square(bins - 1, false_alarms) * (1 / expected + 1 / counted)


def chi_square(freedom: int, beyond: float) -> float:
    """Return what a χ² variable exceeds in this share of cases, to 1.5 %; 3 % too high for one degree.

    By the cube root, which is nearly normal (Wilson and Hilferty 1931, "The distribution of chi-square").

    Args:
        freedom: degrees of freedom, from 1.
        beyond: above 0, below 1.
    """
    variance = 2 / (9 * freedom)
    return freedom * (1 - variance + NormalDist().inv_cdf(1 - beyond) * math.sqrt(variance)) ** 3


def summarize(
    reference: Reference,
    counts: Counts,
    limits: Limits,
    *,
    at: datetime,
    since: datetime,
    report: str | None = None,
) -> DriftSummary:
    """Say what has drifted.

    Args:
        reference: what is held against the kicks.
        counts: of the kicks, by the same reference.
        limits: from where on something has drifted.
        at: now, UTC.
        since: when the oldest of the kicks was predicted, UTC.
        report: path of the newest full report.
    """
    columns = [judge(*each, limits) for each in zip(reference.columns, counts.cells, strict=True)]
    features, prediction = columns[: len(NAMES)], columns[COLUMNS.index(PREDICTION)]
    share = sum(each.drifted for each in features) / len(features)
    return DriftSummary(
        at=at,
        model=reference.model,
        kicks=counts.kicks,
        since=since,
        drifted=share >= limits.share or prediction.drifted,
        share=share,
        limit=limits.share,
        features=features,
        prediction=prediction,
        note=reference.note,
        report=report,
    )


def judge(column: Column, cells: NDArray[np.float64], limits: Limits) -> Drifted:
    """Say how far one column has drifted.

    Args:
        column: its bins. Where there is but one, it has not drifted: all values are in it.
        cells: its row of `Counts.cells`. Without any value it has not drifted: it is missing.
        limits: from where on it has.
    """
    counted = cells[1 : 1 + len(column.expected)]
    n, m = float(counted.sum()), float(column.expected.sum())
    comparable = n > 0 and len(counted) > 1
    figure = psi(column.expected, counted) if comparable else 0.0
    by_chance = chance(len(counted), m, n, limits.false_alarms) if comparable else 0.0
    limit = max(limits.psi, by_chance)
    return Drifted(
        name=column.name,
        psi=figure,
        limit=limit,
        drifted=comparable and figure >= limit,
        mean=float(cells[0] / n) if n else 0.0,
        reference_mean=column.mean,
    )
