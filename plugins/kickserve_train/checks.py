"""Looks at kicks before a model is trained on them: whether there are enough, and whether they look odd."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from kickserve.features import FEATURES, INDEX
from kickserve.plugins import load_default
from kickserve_data import DataError
from kickserve_scores.explain import log_odds
from kickserve_scores.quality import assess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve_data.kicks import RefusedRow
    from kickserve_train.dataset import Dataset

_FEWEST: Final = 30  # kicks, for level and slope of a model
_FEWEST_ANEW: Final = 200  # kicks, for a model from scratch
_FEWEST_OF_EACH: Final = 50  # successes, and as many misses
_FEWEST_DIFFERENT: Final = 50  # kicks that differ in some feature
_FEWEST_KICKERS: Final = 10

_FEW: Final = 1_000
_CALM: Final = 6.0  # mean wind, km/h, below which it is more likely m/s ...
_STORM: Final = 25.0  # ... if no kick had more than this
_HEAPED: Final = 0.2  # share of kicks with one value of a feature that should take many
_TOUCH: Final = 36.0  # metres to the side; a pitch is at most 70 m wide
_RADIANS: Final = 1.6  # 90° and a little more
_MANY_DUPLICATES: Final = 0.01
_TELLING: Final = 0.2  # more than AUC 0.5 that no feature but the place of the ball has
_SURE: Final = 4.0  # standard errors
_PLACE: Final = {"distance", "angle"}
_LEAST_RANGE: Final = 1e-9
_LIKELIER: Final = 6.0  # natural logarithm of a likelihood ratio: 400 to 1
_PAIRS: Final = 5.0  # expected pairs of equal kicks with different outcomes, from which they count


class ColumnSummary(Struct, kw_only=True, frozen=True):
    """A feature in the data.

    Attributes:
        low: smallest value.
        mean: of all; of a flag the share of kicks where it is set.
        high: largest value.
    """

    low: float
    mean: float
    high: float


class DataSummary(Struct, kw_only=True, frozen=True):
    """The kicks that a model is trained on.

    Attributes:
        kicks: that can be used.
        successes: of them.
        kickers: how many there are, or null where the data name none.
        refused: rows that hold no kick that can be used.
        missing: of them, how many lacked a value, by column.
        duplicates: rows that are equal to an earlier one in all columns.
        counted_once: whether these rows were left out.
        columns: of each feature, smallest, mean and largest value.
        warnings: of odd values, in words.
    """

    kicks: int
    successes: int
    kickers: int | None
    refused: int
    missing: dict[str, int]
    duplicates: int
    counted_once: bool
    columns: dict[str, ColumnSummary]
    warnings: list[str]


def check(
    dataset: Dataset, refusals: Sequence[RefusedRow], *, force: bool = False
) -> tuple[Dataset, DataSummary]:
    """Look at the data, and count each kick once.

    Args:
        dataset: the kicks.
        refusals: rows that hold none.
        force: only warn where a feature tells the outcome, or outcomes look swapped.

    Returns:
        The kicks without copies, and what was found.

    Raises:
        DataError: there are too few kicks, or their outcomes can't be right.
    """
    copies = _copies(dataset)
    duplicates, once = int(copies.sum()), not _equal_by_chance(dataset)
    if once and duplicates:
        dataset = dataset.take(~copies)
    _check_count(dataset)
    doubts = _swapped(dataset) or _leaks(dataset)
    if doubts and not force:
        raise DataError(f"{doubts[0]} If the data are right all the same, --force trains on them")
    matrix = dataset.matrix
    missing = (each.reason.partition(" is missing") for each in refusals)
    return dataset, DataSummary(
        kicks=len(dataset),
        successes=int(dataset.success.sum()),
        kickers=dataset.kickers,
        refused=len(refusals),
        missing=dict(Counter(name for name, found, _ in missing if found)),
        duplicates=duplicates,
        counted_once=once,
        columns={
            feature.name: ColumnSummary(
                low=float(column.min()), mean=float(column.mean()), high=float(column.max())
            )
            for feature, column in zip(FEATURES, matrix.T, strict=True)
        },
        warnings=[
            *doubts,
            *_constants(matrix),
            *_heaps(matrix),
            *_units(matrix[:, INDEX["wind_speed"]], matrix[:, INDEX["angle"]]),
            *_beyond_touch(matrix),
            *_counts(len(dataset), duplicates, once=once),
        ],
    )


def _check_count(dataset: Dataset) -> None:
    if len(dataset) < _FEWEST:
        raise DataError(
            f"the data have {len(dataset):,} valid kicks, and training needs {_FEWEST}, or {_FEWEST_ANEW} for"
            " a model from scratch"
        )
    if dataset.success.all() or not dataset.success.any():
        raise DataError(f"all {len(dataset):,} kicks have the same outcome, and training needs both outcomes")
    if dataset.kickers == 1:
        raise DataError("all kicks are of one kicker, and kickers can't be compared: leave --kicker out")


def too_few(dataset: Dataset) -> str:
    """Return why the kicks are too few for a model from scratch, as a clause; empty where they are not."""
    count, successes = len(dataset), int(dataset.success.sum())
    if count < _FEWEST_ANEW:
        return f"the data have {count:,} valid kicks, and a model from scratch needs {_FEWEST_ANEW}"
    for word, some in (("successes", successes), ("misses", count - successes)):
        if some < _FEWEST_OF_EACH:
            return (
                f"there are {some} {word} among {count:,} kicks, and a model from scratch needs"
                f" {_FEWEST_OF_EACH}"
            )
    different = len(np.unique(dataset.matrix, axis=0))
    if different < _FEWEST_DIFFERENT:
        return (
            f"there are {different} different kicks among {count:,}, and a model from scratch needs"
            f" {_FEWEST_DIFFERENT}: is a column always the same that should not be?"
        )
    if dataset.kickers is not None and dataset.kickers < _FEWEST_KICKERS:
        return (
            f"there are {dataset.kickers} kickers, and learning how they differ needs {_FEWEST_KICKERS}:"
            " leave --kicker out"
        )
    return ""


def _copies(dataset: Dataset) -> NDArray[np.bool_]:
    """Return which kicks are equal to an earlier one in all columns, shape (n,)."""
    first = np.unique(_rows(dataset, dataset.success), axis=0, return_index=True)[1]
    copies = np.ones(len(dataset), dtype=bool)
    copies[first] = False
    return copies


def _equal_by_chance(dataset: Dataset) -> bool:
    """Return whether equal kicks differ in their outcomes nearly as often as chance has it.

    Kicks of a file with few columns, or whole metres, are equal without being the same kick; copies of a kick
    have its outcome. Chance gives two kicks that are equal different outcomes with the probability
    2·p·(1 - p).
    """
    groups = np.unique(_rows(dataset), axis=0, return_inverse=True)[1].ravel()
    size = np.bincount(groups)
    successes = np.bincount(groups, dataset.success)
    chance = np.bincount(groups, _packaged(dataset)) / size
    expected = float(np.sum(size * (size - 1) * chance * (1 - chance)))
    return expected > _PAIRS and float(np.sum(successes * (size - successes))) > expected / 2


def _rows(dataset: Dataset, *more: NDArray[Any]) -> NDArray[np.float64]:
    kicker = [] if dataset.kicker is None else [dataset.kicker]
    return np.column_stack([dataset.matrix, *kicker, *more])


def _packaged(dataset: Dataset) -> NDArray[np.float64]:
    """Return the probabilities that the packaged model gives, which no column of a file can mislead."""
    return load_default().predict(dataset.matrix).probability


def _leaks(dataset: Dataset) -> list[str]:
    """Find features that tell the outcome better than any can, such as a copy of it."""
    success = dataset.success
    # Of the AUC of a feature that tells nothing.
    error = math.sqrt((1 / success.sum() + 1 / (~success).sum()) / 12)
    found = []
    for feature, column in zip(FEATURES, dataset.matrix.T, strict=True):
        scaled = (column - column.min()) / max(float(np.ptp(column)), _LEAST_RANGE)
        auc = assess(scaled, success).auc or 0.5
        # A kick from further away, or further aside, may well be told to miss; not to succeed.
        telling = auc if feature.name in _PLACE else max(auc, 1 - auc)
        if telling - 0.5 > max(_TELLING, _SURE * error):
            found.append(
                f"{feature.name} tells the outcome as no feature of a kick can (AUC {telling:.4f}): is that"
                " column the outcome, or made from it?"
            )
    return found


def _swapped(dataset: Dataset) -> list[str]:
    """Find outcomes that are far likelier with 1 and 0 swapped."""
    z = log_odds(_packaged(dataset))
    ratio = float(np.sum(np.where(dataset.success, -z, z)))
    if ratio <= _LIKELIER:
        return []
    return [
        (
            "the outcomes are far likelier the other way round (the packaged model expects"
            f" {_packaged(dataset).mean():.0%} to succeed, and {dataset.success.mean():.0%} did): are 1 and 0"
            " swapped?"
        )
    ]


def _constants(matrix: NDArray[np.float64]) -> list[str]:
    return [
        f"{feature.name} is always {column[0]:g}: a model of these kicks can't know its effect"
        for feature, column in zip(FEATURES, matrix.T, strict=True)
        if column.min() == column.max()
    ]


def _heaps(matrix: NDArray[np.float64]) -> list[str]:
    """Find values that occur too often; 0 and 1 of the rain are natural."""
    found = []
    for name in ("time_norm", "distance", "angle", "wind_speed"):
        values, counts = np.unique(matrix[:, INDEX[name]], return_counts=True)
        most, share = values[counts.argmax()], counts.max() / len(matrix)
        if len(values) > 1 and share > _HEAPED:
            found.append(f"{name} is {most:g} in {share:.0%} of the kicks: is the value a placeholder?")
    return found


def _units(wind: NDArray[np.float64], angle: NDArray[np.float64]) -> list[str]:
    found = []
    if 0 < wind.max() < _STORM and wind.mean() < _CALM:
        found.append(
            f"wind_speed looks like m/s, not km/h (mean {wind.mean():.1f}, largest {wind.max():.1f}):"
            " if so, convert it with --wind-in-ms"
        )
    if 0 < angle.max() < _RADIANS:
        found.append(f"angle looks like radians (largest {angle.max():.2f})")
    return found


def _beyond_touch(matrix: NDArray[np.float64]) -> list[str]:
    aside = matrix[:, INDEX["distance"]] * np.sin(np.radians(matrix[:, INDEX["angle"]]))
    count = int((aside > _TOUCH).sum())
    return [f"{count:,} kicks lie beyond the touchline, more than {_TOUCH:g} m to the side"] if count else []


def _counts(kicks: int, duplicates: int, *, once: bool) -> list[str]:
    found = []
    if duplicates > _MANY_DUPLICATES * kicks:
        how = (
            "they count once" if once else "they count, as equal kicks differ in their outcomes as by chance"
        )
        found.append(f"{duplicates:,} kicks are the same as an earlier one: {how}")
    if kicks < _FEW:
        found.append(f"{kicks} kicks are few: expect wide intervals")
    return found
