"""Looks at kicks before a model is trained on them: whether there are enough, and whether values look odd."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.features import FEATURES, INDEX
from kickserve_data import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve_data.kicks import RefusedRow
    from kickserve_train.dataset import Dataset

_FEWEST: Final = 200  # kicks
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
        duplicates: kicks that are equal to an earlier one in all columns.
        columns: of each feature, smallest, mean and largest value.
        warnings: of odd values, in words.
    """

    kicks: int
    successes: int
    kickers: int | None
    refused: int
    missing: dict[str, int]
    duplicates: int
    columns: dict[str, ColumnSummary]
    warnings: list[str]


def check(dataset: Dataset, refusals: Sequence[RefusedRow]) -> DataSummary:
    """Look at the data.

    Raises:
        DataError: there are too few kicks; the message says how many are needed.
    """
    _check_count(dataset)
    matrix, duplicates = dataset.matrix, _duplicates(dataset)
    missing = (each.reason.partition(" is missing") for each in refusals)
    return DataSummary(
        kicks=len(dataset),
        successes=int(dataset.success.sum()),
        kickers=dataset.kickers,
        refused=len(refusals),
        missing=dict(Counter(name for name, found, _ in missing if found)),
        duplicates=duplicates,
        columns={
            feature.name: ColumnSummary(
                low=float(column.min()), mean=float(column.mean()), high=float(column.max())
            )
            for feature, column in zip(FEATURES, matrix.T, strict=True)
        },
        warnings=[
            *_constants(matrix),
            *_heaps(matrix),
            *_units(matrix[:, INDEX["wind_speed"]], matrix[:, INDEX["angle"]]),
            *_beyond_touch(matrix),
            *_counts(len(dataset), duplicates),
        ],
    )


def _check_count(dataset: Dataset) -> None:
    count, successes = len(dataset), int(dataset.success.sum())
    if count < _FEWEST:
        raise DataError(f"the data have {count:,} valid kicks, and training needs {_FEWEST}")
    for word, some in (("successes", successes), ("misses", count - successes)):
        if some < _FEWEST_OF_EACH:
            raise DataError(
                f"there are {some} {word} among {count:,} kicks, and training needs {_FEWEST_OF_EACH}"
            )
    different = len(np.unique(dataset.matrix, axis=0))
    if different < _FEWEST_DIFFERENT:
        raise DataError(
            f"there are {different} different kicks among {count:,}, and training needs"
            f" {_FEWEST_DIFFERENT}: is a column always the same that should not be?"
        )
    if dataset.kickers is not None and dataset.kickers < _FEWEST_KICKERS:
        raise DataError(
            f"there are {dataset.kickers} kickers, and learning how they differ needs {_FEWEST_KICKERS}:"
            " leave --kicker out"
        )


def _duplicates(dataset: Dataset) -> int:
    parts = [dataset.matrix, dataset.success, *([] if dataset.kicker is None else [dataset.kicker])]
    return len(dataset) - len(np.unique(np.column_stack(parts), axis=0))


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


def _counts(kicks: int, duplicates: int) -> list[str]:
    found = []
    if duplicates > _MANY_DUPLICATES * kicks:
        found.append(f"{duplicates:,} kicks are the same as an earlier one: are they in the file twice?")
    if kicks < _FEW:
        found.append(f"{kicks} kicks are few: expect wide intervals")
    return found
