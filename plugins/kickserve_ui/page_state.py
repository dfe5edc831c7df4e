"""The state of the pitch page: the kick, its conditions, the values of the decision, and the link to it all.

Spots are metres on the pitch as the kicker sees it: `x` from the left touch line to the right one, `out` from
the goal line, at the top, towards the kicker's own half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np

from kickserve.features import BY_NAME
from kickserve.schemas import Kick, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kickserve.schemas import Record

WIDTH: Final = 70.0
"""Metres between the touch lines."""

DEPTH: Final = 62.0
"""Metres from the goal line that are shown: halfway is at 50, and hardly a kick is longer."""

MINUTES: Final = 80
"""Minutes of a match."""

EDGE: Final = 5
"""The first and the last so many minutes count as start and endgame, as in the training data."""

_DISTANCE: Final = BY_NAME["distance"]
_WIND: Final = BY_NAME["wind_speed"]
_HIGHEST_VALUE: Final = 7  # points: a try and its conversion


class Range(NamedTuple):
    """The range of a number on the page, ends included, and its decimals."""

    low: int
    high: int
    digits: int


RANGES: Final[Mapping[str, Range]] = {
    "distance": Range(int(_DISTANCE.low), int(_DISTANCE.high), 1),
    "angle": Range(0, 90, 1),
    "minute": Range(0, MINUTES, 0),
    "wind": Range(int(_WIND.low), int(_WIND.high), 0),
    "rain": Range(0, 100, 0),
    "miss": Range(0, _HIGHEST_VALUE, 2),
    "corner": Range(0, _HIGHEST_VALUE, 2),
}
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "side": ("left", "right"),
    "kind": ("penalty", "conversion"),
    "foot": ("left", "right"),
    "venue": ("home", "away"),
    "attempts": ("yes", "no"),
}
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "front": {"distance": 22, "angle": 0, "side": "right", "kind": "penalty"},
    "fifteen": {"distance": 29.7, "angle": 42.3, "side": "left", "kind": "penalty"},
    "touchline": {"distance": 40.3, "angle": 54.9, "side": "right", "kind": "conversion"},
    "halfway": {"distance": 50, "angle": 0, "side": "right", "kind": "penalty"},
    "calm": {"wind": 0, "rain": 0, "minute": 40, "venue": "home"},
    "storm": {"wind": 40, "rain": 90, "minute": 79, "venue": "away"},
}
"""Common situations, by the key of their message."""


class Spot(NamedTuple):
    """A spot on the pitch: metres from the left touch line, and from the goal line."""

    x: float
    out: float

    @property
    def on_pitch(self) -> bool:
        """Whether it lies in the part of the field of play that is shown."""
        return 0 <= self.x <= WIDTH and 0 <= self.out <= DEPTH


@dataclass(frozen=True, slots=True)
class PageState:
    """A kick and its conditions, as the page shows them.

    Attributes:
        distance: metres to the middle of the posts, 2 to 100.
        angle: degrees off the perpendicular to the goal line, 0 to 90.
        side: of the posts, as the kicker sees them.
        kind: penalty or conversion; the spot of a conversion may be chosen along a line.
        minute: of the match, 0 to 80.
        wind: km/h, 0 to 50.
        rain: probability of rain in percent, 0 to 100.
        foot: of the kicker.
        venue: of the kicker's team.
        attempts: whether the kicker has kicked at goal in this match before.
        miss: points that a missed penalty is worth to the kicker's team on average.
        corner: points that a kick to the corner is worth instead.
    """

    distance: float = 38.0
    angle: float = 24.0
    side: Literal["left", "right"] = "left"
    kind: Literal["penalty", "conversion"] = "penalty"
    minute: int = 40
    wind: int = 12
    rain: int = 20
    foot: Literal["left", "right"] = "right"
    venue: Literal["home", "away"] = "home"
    attempts: Literal["yes", "no"] = "yes"
    miss: float = 1.3
    corner: float = 2.3

    @property
    def spot(self) -> Spot:
        """The spot of the ball; it may lie off the pitch."""
        radians = math.radians(self.angle)
        aside = self.distance * math.sin(radians)
        x = WIDTH / 2 + (-aside if self.side == "left" else aside)
        return Spot(x, self.distance * math.cos(radians))

    @property
    def is_start(self) -> bool:
        """Whether the match is in its first minutes."""
        return self.minute <= EDGE

    @property
    def is_endgame(self) -> bool:
        """Whether the match is in its last minutes."""
        return self.minute >= MINUTES - EDGE

    @property
    def kick(self) -> Kick:
        """The eleven features."""
        return Kick(
            time_norm=self.minute / MINUTES,
            distance=self.distance,
            angle=self.angle,
            wind_speed=float(self.wind),
            precipitation_probability=self.rain / 100,
            is_left_footed=self.foot == "left",
            game_away=self.venue == "away",
            is_endgame=self.is_endgame,
            is_start=self.is_start,
            is_left_side=self.side == "left",
            has_previous_attempts=self.attempts == "yes",
        )

    @property
    def row(self) -> NDArray[np.float64]:
        """The eleven features as numbers, in the order of `kickserve.features.NAMES`."""
        return np.array(row_of(self.kick), dtype=np.float64)

    @property
    def points(self) -> int:
        """Points for a successful kick."""
        return 3 if self.kind == "penalty" else 2

    @property
    def break_even(self) -> float | None:
        """The probability above which a kick at goal is worth more than the corner, if there is one."""
        if self.points <= self.miss:
            return None
        even = (self.corner - self.miss) / (self.points - self.miss)
        return even if 0 < even < 1 else None

    def at(self, spot: Spot) -> PageState:
        """Return the same with the ball at another spot.

        Distance and angle are rounded as the page shows them: the model gets exactly the numbers shown. A
        spot nearer than the service takes (2 m) gets that distance.
        """
        aside = spot.x - WIDTH / 2
        distance = round(math.hypot(aside, spot.out), RANGES["distance"].digits)
        return replace(
            self,
            distance=min(max(distance, _DISTANCE.low), _DISTANCE.high),
            angle=round(math.degrees(math.atan2(abs(aside), max(spot.out, 0.0))), RANGES["angle"].digits),
            side="left" if aside < 0 else "right",
        )

    def changed(self, **values: object) -> PageState:
        """Return the same with other values, which may come from a browser or a link.

        Raises:
            ValueError: a value is none that its field takes; the message is the field's name.
        """
        return replace(self, **{name: _parsed(name, str(value)) for name, value in values.items()})

    def query(self) -> str:
        """Return the query of a link, all fields in it: a default may change one day."""
        return urlencode({each.name: _text(getattr(self, each.name)) for each in fields(self)})


def read(query: Mapping[str, str]) -> tuple[PageState, list[str]]:
    """Read the query of a link.

    Args:
        query: by name; names that are no field's are passed over.

    Returns:
        The state, and the names of fields with unusable values: they have the default.
    """
    state, unusable = PageState(), []
    for each in fields(PageState):
        if each.name in query:
            try:
                state = state.changed(**{each.name: query[each.name]})
            except ValueError:
                unusable.append(each.name)
    return state, unusable


def state_of(record: Record) -> PageState:
    """Return the state that shows a stored prediction's kick, as closely as the page's steps allow."""
    return PageState(
        distance=record.distance,
        angle=record.angle,
        side="left" if record.is_left_side else "right",
        minute=round(record.time_norm * MINUTES),
        wind=round(record.wind_speed),
        rain=round(record.precipitation_probability * 100),
        foot="left" if record.is_left_footed else "right",
        venue="away" if record.game_away else "home",
        attempts="yes" if record.has_previous_attempts else "no",
    )


def _parsed(name: str, text: str) -> Any:
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise ValueError(name)
        return text
    low, high, digits = RANGES[name]
    try:
        value = round(float(text), digits or None)
    except (ValueError, OverflowError):
        raise ValueError(name) from None
    if not low <= value <= high:  # NaN is out as well
        raise ValueError(name)
    return value


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
