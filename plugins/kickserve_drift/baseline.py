"""What kicks are held against: the model's own profile, or a file of kicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct, to_builtins

from kickserve.errors import TooFewKicks
from kickserve.features import COUNT
from kickserve.loading import profile_of
from kickserve.model import HasProfile, predict
from kickserve_data.simulate import simulate
from kickserve_drift.drift import LEAST, reference_of
from kickserve_drift.drift_bins import Reference
from kickserve_drift.findings import SHOWN, WIDTH
from kickserve_drift.kicks import of_file
from kickserve_drift.sampling import Sample, drawn_back, outcomes_of
from kickserve_scores.quality import RunningQuality

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.model import Model

_COUNTED: Final = 200_000  # kicks of a file that its bins are made of at most
_MEASURES: Final = ("brier", "log_loss", "ece", "auc", "success_rate")
_DRAWN_BACK: Final = (
    "For the pictures, values are drawn back from the quantiles and shares that the model file holds: each"
    " column looks as it did in training, what columns have to do with each other is lost, and outcomes are"
    " drawn from the probabilities. The figures need none of it: they are counted in the bins of the profile."
)


class About(Struct, kw_only=True, frozen=True):
    """What the kicks are held against, in words and numbers.

    Attributes:
        kind: `profile` of the model, or `file`.
        name: of the model, or of the file.
        kicks: how many it describes.
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
    """What kicks are held against.

    Attributes:
        reference: its bins.
        rows: shape (m, 13), kicks for the pictures: features, prediction, outcome, NaN where unknown.
        about: what it is.
    """

    reference: Reference
    rows: NDArray[np.float64]
    about: About


def of_model(model: Model, seed: int) -> Baseline:
    """Take what the model was trained on, as its profile tells.

    Raises:
        PredictionFailed: a model without a profile can't be asked.
    """
    reference, profile = reference_of(model), profile_of(model)
    if isinstance(model, HasProfile) and model.profile is not None:
        kicks = drawn_back(profile, SHOWN, seed)
        notes = [reference.note, _DRAWN_BACK]
    else:
        matrix = simulate(SHOWN, seed).matrix
        kicks = np.column_stack([matrix, predict(model, matrix).probability])
        notes = [reference.note]
    metrics = model.card.metrics
    about = About(
        kind="profile",
        name=reference.model,
        kicks=profile.count,
        note=" ".join(filter(None, notes)),
        quality={name: metrics[name] for name in _MEASURES if name in metrics},
    )
    return Baseline(reference, np.column_stack([kicks, outcomes_of(kicks[:, COUNT], seed)]), about)


def of_kicks(path: Path, model: Model, seed: int) -> Baseline:
    """Take a file of kicks, and what the model says of them.

    Raises:
        TooFewKicks: there are hardly any in it.
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    sample, quality = Sample(_COUNTED, WIDTH, seed), RunningQuality()
    for part in of_file(path, model):
        sample.add(part.rows)
        told = ~np.isnan(part.outcome)
        quality.add(part.prediction[told], part.outcome[told])
    if sample.seen < LEAST:
        raise TooFewKicks(f"{path} holds {sample.seen} kicks: as a reference it must hold {LEAST} or more")
    rows, measured = sample.rows(), quality.result()
    values = {} if measured is None else to_builtins(measured)
    about = About(
        kind="file",
        name=str(path),
        kicks=sample.seen,
        note=""
        if sample.whole
        else f"Its bins are made of {_COUNTED:,} of its kicks, drawn with seed {seed}.",
        quality={name: values[name] for name in _MEASURES if values.get(name) is not None},
    )
    reference = Reference.of_kicks(rows[:, :COUNT], rows[:, COUNT], model.card.name)
    return Baseline(reference, rows[:: -(-len(rows) // SHOWN)], about)
