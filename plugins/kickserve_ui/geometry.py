"""Where a kick is taken from: metres on the pitch, and the distance, angle and side that the model knows.

The goal line is at the top, as the kicker looks at it. `x` runs from the left touch line to the right one,
`out` from the goal line towards the kicker's own half.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve.features import BY_NAME, INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH: Final = 70.0
"""Metres between the touch lines."""

DEPTH: Final = 62.0
"""Metres from the goal line that are shown: halfway is at 50, and nobody has kicked from much further."""

_DISTANCE: Final = BY_NAME["distance"]
_DIGITS: Final = 1  # decimals that the page shows, and so what a click gives


class Spot(NamedTuple):
    """A spot on the pitch, in metres.

    Attributes:
        x: from the left touch line.
        out: from the goal line.
    """

    x: float
    out: float

    @property
    def on_pitch(self) -> bool:
        """Whether it lies in the field of play, as far as that is shown."""
        return 0 <= self.x <= WIDTH and 0 <= self.out <= DEPTH


class Aim(NamedTuple):
    """What a spot is to the kicker.

    Attributes:
        distance: metres to the middle of the posts.
        angle: degrees off the perpendicular to the goal line, 0 to 90.
        left: whether the ball lies left of the posts, as the kicker sees them.
    """

    distance: float
    angle: float
    left: bool


def aim_from(spot: Spot) -> Aim:
    """Turn a spot into distance, angle and side, rounded to what the page shows.

    What is shown is then exactly what the model was asked. A spot nearer than the service takes (2 m) is
    answered for that distance.
    """
    aside = spot.x - WIDTH / 2
    distance = round(math.hypot(aside, spot.out), _DIGITS)
    angle = round(math.degrees(math.atan2(abs(aside), max(spot.out, 0.0))), _DIGITS)
    return Aim(min(max(distance, _DISTANCE.low), _DISTANCE.high), angle, aside < 0)


def spot_of(aim: Aim) -> Spot:
    """Turn distance, angle and side into a spot; it may lie off the pitch."""
    radians = math.radians(aim.angle)
    aside = aim.distance * math.sin(radians)
    return Spot(WIDTH / 2 + (-aside if aim.left else aside), aim.distance * math.cos(radians))


def kicks_at(
    x: NDArray[np.float64], out: NDArray[np.float64], row: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return kicks that differ in their place alone.

    Args:
        x: shape (n,), metres from the left touch line.
        out: shape (n,), metres from the goal line.
        row: eleven numbers, in the order of `kickserve.features.NAMES`; those of the place are not looked at.

    Returns:
        Shape (n, 11); distances are kept within what the service takes.
    """
    kicks = np.repeat(row[np.newaxis, :], len(x), axis=0)
    aside = x - WIDTH / 2
    kicks[:, INDEX["distance"]] = np.clip(np.hypot(aside, out), _DISTANCE.low, _DISTANCE.high)
    kicks[:, INDEX["angle"]] = np.degrees(np.arctan2(np.abs(aside), out))
    kicks[:, INDEX["is_left_side"]] = aside < 0
    return kicks
