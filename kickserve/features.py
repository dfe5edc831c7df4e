"""The eleven features of a kick: their order, units and ranges, and how they become numbers.

This table is the one place that says so. The schema of the API, the reader of files, the
simulator and the models all take their order and their limits from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Kind = Literal["number", "flag"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a kick.

    Attributes:
        name: as clients and files spell it.
        low: smallest value taken.
        high: largest value taken.
        unit: what the number counts; empty where it counts nothing.
        meaning: one line for the documentation.
        kind: `number`, or `flag` for true/false and 1/0.
    """

    name: str
    low: float
    high: float
    unit: str
    meaning: str
    kind: Kind = "number"

    @property
    def wanted(self) -> str:
        """What a value must be, in words: `2 to 100 m`."""
        if self.kind == "flag":
            return "true, false, 1 or 0"
        return f"a number from {self.low:g} to {self.high:g}{' ' if self.unit else ''}{self.unit}"

    @property
    def doc(self) -> str:
        """Meaning and range in one line, for the API's documentation and the help of the command line."""
        return f"{self.meaning} ({self.wanted})"


FEATURES: Final = (
    Feature("time_norm", 0, 1, "", "How far the match has gone: 0 at kick-off, 1 at the final whistle"),
    Feature("distance", 2, 100, "m", "Distance from the ball to the middle of the posts"),
    Feature("angle", 0, 90, "°", "Angle off the perpendicular to the goal line: 0 straight in front"),
    Feature("wind_speed", 0, 50, "km/h", "Wind speed"),
    Feature("precipitation_probability", 0, 1, "", "Probability of rain"),
    Feature("is_left_footed", 0, 1, "", "Whether the kicker kicks with the left foot", "flag"),
    Feature("game_away", 0, 1, "", "Whether the kicker's team plays away", "flag"),
    Feature("is_endgame", 0, 1, "", "Whether the match is in its last minutes", "flag"),
    Feature("is_start", 0, 1, "", "Whether the match is in its first minutes", "flag"),
    Feature(
        "is_left_side", 0, 1, "", "Whether the ball lies left of the posts, as the kicker sees them", "flag"
    ),
    Feature(
        "has_previous_attempts",
        0,
        1,
        "",
        "Whether the kicker has kicked at goal in this match before",
        "flag",
    ),
)
NAMES: Final = tuple(feature.name for feature in FEATURES)
FLAGS: Final = tuple(feature.name for feature in FEATURES if feature.kind == "flag")
COUNT: Final = len(FEATURES)
BY_NAME: Final[Mapping[str, Feature]] = {feature.name: feature for feature in FEATURES}
INDEX: Final[Mapping[str, int]] = {name: at for at, name in enumerate(NAMES)}

_LOW: Final = np.array([feature.low for feature in FEATURES])
_HIGH: Final = np.array([feature.high for feature in FEATURES])
_FLAG: Final = [feature.kind == "flag" for feature in FEATURES]
_NUMBER: Final = ~np.array(_FLAG)


def named(row: Sequence[float]) -> dict[str, float | bool]:
    """Turn a kick's eleven numbers, in the order of `NAMES`, into values by name; flags become booleans."""
    return {name: value == 1 if flag else value for name, value, flag in zip(NAMES, row, _FLAG, strict=True)}


def columns(matrix: NDArray[np.float64]) -> dict[str, list[float]]:
    """Turn kicks of shape (n, 11) into a table: values by name, flags as whole numbers."""
    return {
        name: (column.astype(int) if flag else column).tolist()
        for name, column, flag in zip(NAMES, matrix.T, _FLAG, strict=True)
    }


def acceptable(matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say cell by cell whether a value is one that its feature may take.

    Args:
        matrix: kicks, shape (n, 11), in the order of `NAMES`; NaN is a missing value.

    Returns:
        Booleans of the same shape: finite, within the range, and 0 or 1 where the feature is a flag.
    """
    inside = (matrix >= _LOW) & (matrix <= _HIGH)  # NaN compares false, so it is out
    whole = (matrix == 0) | (matrix == 1)
    result: NDArray[np.bool_] = inside & (whole | _NUMBER)
    return result
