"""Looks at kicks before a model is trained on them: what they are, and what is odd about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.errors import DataError
from kickserve.features import FEATURES, INDEX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kickserve_data.kicks import RefusedRow
    from kickserve_train.data import Known

FEWEST: Final = 200
"""Kicks that training needs."""
FEWEST_OF_EACH: Final = 50
"""Successes that it needs, and as many misses."""
FEWEST_DIFFERENT: Final = 50
"""Kicks that differ in some feature: the others are kept together, and say nothing new."""
FEWEST_KICKERS: Final = 10

_FEW: Final = 1_000
_CALM: Final = 6.0  # mean wind, km/h, below which it is more likely m/s ...
_STORM: Final = 25.0  # ... if no kick had more than this
_HEAPED: Final = 0.2  # share of kicks with one value of what should take many
_TOUCH: Final = 36.0  # metres to the side; a pitch is at most 70 m wide
_RADIANS: Final = 1.6  # 90° and a little more
_MANY_TWINS: Final = 0.01


class Column(Struct, kw_only=True, frozen=True):
    """What a feature looks like in the data.

    Attributes:
        low: smallest value.
        mean: of all; of a flag the share of kicks where it is set.
        high: largest value.
    """

    low: float
    mean: float
    high: float


class Findings(Struct, kw_only=True, frozen=True):
    """What was found in the data.

    Attributes:
        kicks: that can be used.
        successes: of them.
        kickers: how many there are, or null where the data name none.
        refused: lines that hold no kick that can be used.
        missing: of them, how many lacked a value, by column.
        duplicates: kicks that are the same as an earlier one in all that is known.
        columns: of each feature, smallest, mean and largest value.
        warnings: what is odd, in words.
    """

    kicks: int
    successes: int
    kickers: int | None
    refused: int
    missing: dict[str, int]
    duplicates: int
    columns: dict[str, Column]
    warnings: list[str]


def check(known: Known, refusals: Sequence[RefusedRow]) -> Findings:
    """Look at the data.

    Raises:
        DataError: it is too little; the message says how much is needed.
    """
    _enough(known)
    duplicates = _duplicates(known)
    return Findings(
        kicks=len(known),
        successes=int(known.success.sum()),
        kickers=known.kickers,
        refused=len(refusals),
        missing=_missing(refusals),
        duplicates=duplicates,
        columns={
            feature.name: Column(low=float(column.min()), mean=float(column.mean()), high=float(column.max()))
            for feature, column in zip(FEATURES, known.matrix.T, strict=True)
        },
        warnings=[
            *_constant(known.matrix),
            *_heaps(known.matrix),
            *(warning for look in _LOOKS if (warning := look(known.matrix))),
            *_about_number(known, duplicates),
        ],
    )


def _enough(known: Known) -> None:
    successes = int(known.success.sum())
    if len(known) < FEWEST:
        raise DataError(f"there are {len(known):,} kicks that can be used, and training needs {FEWEST}")
    for word, count in (("successes", successes), ("misses", len(known) - successes)):
        if count < FEWEST_OF_EACH:
            raise DataError(
                f"there are {count} {word} among {len(known):,} kicks, and training needs {FEWEST_OF_EACH}"
            )
    different = len(np.unique(known.matrix, axis=0))
    if different < FEWEST_DIFFERENT:
        raise DataError(
            f"there are {different} different kicks among {len(known):,}, and training needs"
            f" {FEWEST_DIFFERENT}: is a column always the same that should not be?"
        )
    if known.kickers is not None and known.kickers < FEWEST_KICKERS:
        raise DataError(
            f"there are {known.kickers} kickers, and learning how they differ needs {FEWEST_KICKERS}:"
            " leave --kicker out"
        )


def _missing(refusals: Sequence[RefusedRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for refusal in refusals:
        name, found, _ = refusal.reason.partition(" is missing")
        if found:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _duplicates(known: Known) -> int:
    parts = [known.matrix, known.success, *([] if known.kicker is None else [known.kicker])]
    return len(known) - len(np.unique(np.column_stack(parts), axis=0))


def _constant(matrix: NDArray[np.float64]) -> list[str]:
    return [
        f"{feature.name} is always {column[0]:g}: a model of these kicks can't know its effect"
        for feature, column in zip(FEATURES, matrix.T, strict=True)
        if column.min() == column.max()
    ]


def _heaps(matrix: NDArray[np.float64]) -> list[str]:
    """Find values that stand there too often; 0 and 1 of the rain are natural."""
    found = []
    for name in ("time_norm", "distance", "angle", "wind_speed"):
        values, counts = np.unique(matrix[:, INDEX[name]], return_counts=True)
        most, share = values[counts.argmax()], counts.max() / len(matrix)
        if len(values) > 1 and share > _HEAPED:
            found.append(f"{name} is {most:g} in {share:.0%} of the kicks: is that a stand-in?")
    return found


def _wind(matrix: NDArray[np.float64]) -> str:
    wind = matrix[:, INDEX["wind_speed"]]
    if 0 < wind.max() < _STORM and wind.mean() < _CALM:
        return (
            f"wind_speed looks like m/s, not km/h (mean {wind.mean():.1f}, largest {wind.max():.1f}):"
            " if so, convert it with --wind-in-ms"
        )
    return ""


def _angle(matrix: NDArray[np.float64]) -> str:
    angle = matrix[:, INDEX["angle"]]
    return f"angle looks like radians (largest {angle.max():.2f})" if 0 < angle.max() < _RADIANS else ""


def _aside(matrix: NDArray[np.float64]) -> str:
    aside = matrix[:, INDEX["distance"]] * np.sin(np.radians(matrix[:, INDEX["angle"]]))
    count = int((aside > _TOUCH).sum())
    return f"{count:,} kicks lie beyond the touchline, more than {_TOUCH:g} m to the side" if count else ""


_LOOKS: Final[tuple[Callable[[NDArray[np.float64]], str], ...]] = (_wind, _angle, _aside)


def _about_number(known: Known, duplicates: int) -> list[str]:
    found = []
    if duplicates > _MANY_TWINS * len(known):
        found.append(f"{duplicates:,} kicks are the same as an earlier one: are they in the file twice?")
    if len(known) < _FEW:
        found.append(f"{len(known)} kicks are few: expect wide intervals")
    return found
