"""What the page is set to: place, conditions, values of a decision; and the link that holds it all."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode

import numpy as np
from msgspec.structs import astuple

from kickserve.features import BY_NAME
from kickserve.schemas import Kick
from kickserve_ui.geometry import Aim, Spot, aim_from, spot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

MINUTES: Final = 80
"""Minutes of a match."""

EDGE: Final = 5
"""The first and the last so many minutes count as start and endgame, as where the model learned them."""

POINTS: Final = {"penalty": 3, "conversion": 2}

_WIND: Final = BY_NAME["wind_speed"]
_DISTANCE: Final = BY_NAME["distance"]
_HIGHEST_VALUE: Final = 7.0  # points: a try and its conversion


@dataclass(frozen=True, slots=True)
class Scene:
    """A kick and what surrounds it, as the page shows it.

    Attributes:
        distance: metres to the middle of the posts, 2 to 100.
        angle: degrees off the perpendicular, 0 to 90.
        side: of the posts, as the kicker sees them.
        kind: what is kicked: it tells the points, and whether the spot may be chosen along a line.
        minute: of the match, 0 to 80.
        wind: km/h, 0 to 50.
        rain: probability of rain in percent, 0 to 100.
        foot: that kicks.
        venue: where the kicker's team plays.
        attempts: whether the kicker has kicked at goal in this match before.
        miss: points that a missed penalty is worth to the kicker's team on average.
        corner: points that a kick to the corner is worth in its place.
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
    def aim(self) -> Aim:
        """Distance, angle and side."""
        return Aim(self.distance, self.angle, self.side == "left")

    @property
    def spot(self) -> Spot:
        """Where the ball lies."""
        return spot_of(self.aim)

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
        return np.array(astuple(self.kick), dtype=np.float64)

    @property
    def points(self) -> int:
        """What it counts when the ball goes over."""
        return POINTS[self.kind]

    def at(self, spot: Spot) -> Scene:
        """Return the same with the ball at another spot."""
        aim = aim_from(spot)
        return replace(self, distance=aim.distance, angle=aim.angle, side="left" if aim.left else "right")

    def query(self) -> str:
        """Return it as the query of a link, whole: a default may change one day."""
        return urlencode({each.name: _text(getattr(self, each.name)) for each in fields(self)})


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(low: float, high: float, digits: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = round(float(text), digits)
        if not low <= value <= high:  # NaN is out as well
            raise ValueError(text)
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    number = _number(low, high, 0)
    return lambda text: int(number(text))


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "distance": _number(_DISTANCE.low, _DISTANCE.high, 1),
    "angle": _number(0, 90, 1),
    "side": _one_of("left", "right"),
    "kind": _one_of(*POINTS),
    "minute": _whole(0, MINUTES),
    "wind": _whole(int(_WIND.low), int(_WIND.high)),
    "rain": _whole(0, 100),
    "foot": _one_of("left", "right"),
    "venue": _one_of("home", "away"),
    "attempts": _one_of("yes", "no"),
    "miss": _number(0, _HIGHEST_VALUE, 2),
    "corner": _number(0, _HIGHEST_VALUE, 2),
}


def changed(scene: Scene, **values: Any) -> Scene:
    """Return a scene with other values.

    Raises:
        ValueError: a value is none that its field takes; the message is the field's name.
    """
    parsed = {}
    for name, value in values.items():
        try:
            parsed[name] = _PARSERS[name](str(value))
        except (ValueError, OverflowError):
            raise ValueError(name) from None
    return replace(scene, **parsed)


def read(query: Mapping[str, str]) -> tuple[Scene, list[str]]:
    """Read the query of a link.

    Args:
        query: by name; names that are none of a scene's are passed over.

    Returns:
        The scene, and the names whose values can't be used: they have the default.
    """
    scene, unusable = Scene(), []
    for name in _PARSERS:
        if name in query:
            try:
                scene = changed(scene, **{name: query[name]})
            except ValueError:
                unusable.append(name)
    return scene, unusable


PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "front": {"distance": 22, "angle": 0, "side": "right", "kind": "penalty"},
    "fifteen": {"distance": 29.7, "angle": 42.3, "side": "left", "kind": "penalty"},
    "touchline": {"distance": 40.3, "angle": 54.9, "side": "right", "kind": "conversion"},
    "halfway": {"distance": 50, "angle": 0, "side": "right", "kind": "penalty"},
    "calm": {"wind": 0, "rain": 0, "minute": 40, "venue": "home"},
    "storm": {"wind": 40, "rain": 90, "minute": 79, "venue": "away"},
}
"""Situations that people think of, by the name of their words."""
