"""References that kicks are compared with: the profile of the model, or a file of kicks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct, to_builtins

from kickserve.features import COUNT, FLAGS, NAMES
from kickserve.plugins import HasProfile, predict, printable, profile_of
from kickserve_drift.kicks import Sample, predicted_rows
from kickserve_drift.psi import MIN_KICKS, PREDICTION, Column, Reference, TooFewKicks
from kickserve_scores.quality import RunningQuality

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import Model, Profile

PLOTTED: Final = 20_000
"""Kicks that Evidently plots at most; the figures are of all."""

_BINNED: Final = 200_000  # kicks of a file that its bins are made of at most
_SIMULATED: Final = 5_000  # kicks for the predictions of a model without a profile
_SEED: Final = 7
_MEASURES: Final = ("brier", "log_loss", "ece", "auc", "success_rate")
_REDRAWN: Final = (
    "For the plots, values are drawn from the quantiles and shares in the model file: each column looks as it"
    " did in training, what columns have to do with each other is lost, and outcomes are drawn from the"
    " probabilities. The figures need none of it: they are counted in the bins of the profile."
)


class ReferenceInfo(Struct, kw_only=True, frozen=True):
    """A reference in words and numbers.

    Attributes:
        kind: `profile` of the model, or `file`.
        name: of the model, or of the file.
        kicks: number of kicks it describes.
        note: what to know of it.
        quality: Brier score, log loss, ECE, AUC and success rate of the model there, as far as known.
    """

    kind: str
    name: str
    kicks: int
    note: str
    quality: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A reference, and kicks to plot.

    Attributes:
        reference: its bins.
        rows: shape (m, 13), kicks to plot: features, prediction, outcome; NaN where unknown.
        info: the reference in words and numbers.
    """

    reference: Reference
    rows: NDArray[np.float64]
    info: ReferenceInfo


def reference_of(model: Model) -> Reference:
    """Return the reference from the profile of a model.

    For a model without a profile, the features are those of the packaged model, and the predictions its own.

    Raises:
        ModelUnusable: the profile contradicts itself.
        PredictionFailed: the model has no profile, and raised.
    """
    name = model.card.name
    reference = Reference.of_profile(profile_of(model), name)
    if _has_profile(model):
        return reference
    from kickserve_data.simulate import simulate  # few models need it

    predictions = Column.of_values(PREDICTION, predict(model, simulate(_SIMULATED, _SEED).matrix).probability)
    note = (
        f"the model {name} has no profile of its training data: the features are compared with the"
        " profile of the packaged model"
    )
    return replace(reference, columns=(*reference.columns[:-1], predictions), note=note)


def baseline_of_model(model: Model, seed: int) -> Baseline:
    """Make a baseline from the profile of a model; `seed` is that of the plotted kicks.

    Raises:
        ModelUnusable: the profile contradicts itself.
        PredictionFailed: the model has no profile, and raised.
    """
    from kickserve_data.simulate import simulate

    reference, profile = reference_of(model), profile_of(model)
    notes = [reference.note]
    if _has_profile(model):
        kicks = redraw(profile, PLOTTED, seed)
        notes.append(_REDRAWN)
    else:
        matrix = simulate(PLOTTED, seed).matrix
        kicks = np.column_stack([matrix, predict(model, matrix).probability])
    outcomes = np.random.default_rng(seed).random(len(kicks)) < kicks[:, COUNT]
    info = ReferenceInfo(
        kind="profile",
        name=reference.model,
        kicks=profile.count,
        note=" ".join(filter(None, notes)),
        quality=_measures(model.card.metrics),
    )
    return Baseline(reference, np.column_stack([kicks, outcomes]), info)


def baseline_of_file(path: Path, model: Model, seed: int) -> Baseline:
    """Make a baseline from a file of kicks, and the predictions of the model for them.

    Raises:
        TooFewKicks: it holds hardly any.
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    from kickserve_data.reader import read_blocks  # the service reads no file

    sample, quality = Sample(_BINNED, seed), RunningQuality()
    for block in read_blocks(path):
        rows = predicted_rows(block, model)
        sample.add(rows)
        quality.add(*rows[:, COUNT:].T)
    if sample.seen < MIN_KICKS:
        raise TooFewKicks(
            f"{path} holds {sample.seen} kicks: as a reference it must hold {MIN_KICKS} or more"
        )
    measured = quality.result()
    sampled = f"Its bins are made of {_BINNED:,} of its kicks, drawn with seed {seed}."
    info = ReferenceInfo(
        kind="file",
        name=printable(path),
        kicks=sample.seen,
        note="" if sample.whole else sampled,
        quality={} if measured is None else _measures(to_builtins(measured)),
    )
    step = -(-len(sample.rows) // PLOTTED)
    return Baseline(Reference.of_kicks(sample.rows, model.card.name), sample.rows[::step], info)


def redraw(profile: Profile, count: int, seed: int) -> NDArray[np.float64]:
    """Draw kicks and predictions whose columns, each by itself, look as in the profile of a model.

    A profile holds quantiles and shares, no kicks: between two quantiles values are spread evenly, and what
    columns have to do with each other is lost. So such rows are for plots of single columns only.

    Args:
        profile: of a model.
        count: rows, from 1.
        seed: of the draw.

    Returns:
        Shape (count, 12): the features in the order of `kickserve.features.NAMES`, and the prediction.
    """
    rng = np.random.default_rng(seed)
    # One level in the middle of each of `count` equal steps: so the shares are exactly those of the profile.
    levels = (np.arange(count) + 0.5) / count
    columns = [
        levels < profile.shares[name]
        if name in FLAGS
        else np.interp(levels, profile.levels, profile.quantiles[name])
        for name in NAMES
    ]
    columns.append(np.interp(levels, profile.levels, profile.prediction))
    return np.column_stack([rng.permutation(column) for column in columns]).astype(np.float64)


def _has_profile(model: Model) -> bool:
    return isinstance(model, HasProfile) and model.profile is not None


def _measures(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in _MEASURES if metrics.get(name) is not None}
