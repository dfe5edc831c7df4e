"""The kick that the pitch page is set to: its fields, their ranges, and the link that holds them.

Spots are metres on the pitch as the kicker sees it: `x` from the left touch line to the right one, `out` from
the goal line, at the top, towards the kicker's own half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode

import numpy as np

from kickserve.features import BY_NAME
from kickserve.plugins import InvalidInput, kicker_fault
from kickserve.schemas import Kick, kicker_of, row_of

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

_EDGE: Final = 5  # the first and the last so many minutes count as start and endgame, as in the training data
_POINTS: Final = (0, 7)  # a try and its conversion
_DISTANCE: Final = BY_NAME["distance"]
_WIND: Final = BY_NAME["wind_speed"]

RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "distance": (int(_DISTANCE.low), int(_DISTANCE.high)),
    "angle": (0, 90),
    "minute": (0, MINUTES),
    "wind": (int(_WIND.low), int(_WIND.high)),
    "rain": (0, 100),
    "line": (0, int(WIDTH)),
    "back": (2, int(_DISTANCE.high)),
    "lineout_5": _POINTS,
    "lineout_22": _POINTS,
    "lineout_40": _POINTS,
    "lineout_50": _POINTS,
    "miss": _POINTS,
    "touch": (10, 80),
}
"""The numbers of the page, ends included."""

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": ("penalty", "conversion", "kick"),
    "side": ("left", "right"),
    "foot": ("right", "left"),
    "venue": ("home", "away"),
    "attempts": ("yes", "no"),
    "phase": ("start", "middle", "end", "both"),
}
"""The choices of the page. A `kick` is one whose kind is not known: records do not hold it."""

VALUES: Final[Mapping[str, float]] = {
    # Points until the next score, by the start of a lineout [P: Premiership 2018/19].
    "lineout_5": 4.14,  # within 5 m of the goal line
    "lineout_22": 2.27,  # from 5 m to the 22
    "lineout_40": 1.22,  # from the 22 to the 10 m line
    "lineout_50": 0.62,  # from there to halfway
    "miss": 1.3,  # points after a missed penalty [implied by one published case]
    "touch": 45.0,  # metres that a kick to touch goes [A]
}
"""What the decision rests on: published figures, and assumptions that the page calls so."""

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "front": {"distance": 22, "angle": 0, "side": "right", "kind": "penalty"},
    "fifteen": {"distance": 29.7, "angle": 42.3, "side": "left", "kind": "penalty"},
    "touchline": {"distance": 40.3, "angle": 54.9, "side": "right", "kind": "conversion"},
    "halfway": {"distance": 50, "angle": 0, "side": "right", "kind": "penalty"},
    "calm": {"wind": 0, "rain": 0, "minute": 40, "venue": "home"},
    "storm": {"wind": 40, "rain": 90, "minute": 79, "venue": "away"},
}
"""Common situations, by the key of their message."""


@dataclass(frozen=True, slots=True)
class PageState:
    """A kick and its conditions, as the page shows them.

    Attributes:
        distance: metres to the middle of the posts, 2 to 100.
        angle: degrees off the perpendicular to the goal line, 0 to 90.
        side: of the posts, as the kicker sees them.
        minute: of the match, 0 to 80.
        phase: `start`, `middle`, `end` or `both` where the flags of a stored kick say so, not its minute.
        wind: km/h, 0 to 50.
        rain: probability of rain in percent, 0 to 100.
        foot: of the kicker.
        venue: of the kicker's team.
        attempts: whether the kicker has kicked at goal in this match before.
        kicker: label of the kicker; empty for an unnamed one.
    """

    distance: float = 38.0
    angle: float = 24.0
    side: Literal["left", "right"] = "left"
    minute: float = 40
    phase: Literal["", "start", "middle", "end", "both"] = ""
    wind: float = 12
    rain: float = 20
    foot: Literal["left", "right"] = "right"
    venue: Literal["home", "away"] = "home"
    attempts: Literal["yes", "no"] = "yes"
    kicker: str = ""

    @property
    def kick(self) -> Kick:
        """The kick, as the page records it."""
        return Kick(
            time_norm=self.minute / MINUTES,
            distance=self.distance,
            angle=self.angle,
            wind_speed=self.wind,
            precipitation_probability=self.rain / 100,
            is_left_footed=self.foot == "left",
            game_away=self.venue == "away",
            is_endgame=self.phase in {"end", "both"} if self.phase else self.minute >= MINUTES - _EDGE,
            is_start=self.phase in {"start", "both"} if self.phase else self.minute <= _EDGE,
            is_left_side=self.side == "left",
            has_previous_attempts=self.attempts == "yes",
            kicker=self.kicker or None,
            source="page",
        )

    @property
    def spot(self) -> tuple[float, float]:
        """The spot of the ball, `x` and `out`; it may lie off the pitch."""
        radians = math.radians(self.angle)
        aside = self.distance * math.sin(radians)
        return WIDTH / 2 + (-aside if self.side == "left" else aside), self.distance * math.cos(radians)

    @property
    def row(self) -> NDArray[np.float64]:
        """The eleven features as numbers, in the order of `kickserve.features.NAMES`."""
        return np.array(row_of(self.kick), dtype=np.float64)


def read(query: Mapping[str, str]) -> PageState:
    """Read the query of a link; names that are no field's are passed over.

    Raises:
        InvalidInput: a value is none that its field takes.
    """
    given = {name: _parsed(name, query[name]) for name in PageState.__slots__ if name in query}
    return PageState(**given)


def read_link(query: Mapping[str, str]) -> tuple[PageState, str]:
    """Read a link to the pitch: the kick, and its kind. A conversion lies where its line says.

    Raises:
        InvalidInput: a value is none that its field takes.
    """
    state, kind = read(query), _parsed("kind", query.get("kind", "penalty"))
    if kind == "conversion" and "line" in query and "back" in query:
        aside, out = _parsed("line", query["line"]) - WIDTH / 2, _parsed("back", query["back"])
        state = replace(
            state,
            distance=round(min(max(math.hypot(aside, out), _DISTANCE.low), _DISTANCE.high), 1),
            angle=round(math.degrees(math.atan2(abs(aside), out)), 1),
            side="left" if aside < 0 else "right",
        )
    return state, kind


def link_of(record: Record) -> str:
    """Return the query of a link to the pitch that shows a stored kick with all its features as they are.

    Its kind is not in the record, and its flags may differ from what its minute says.
    """
    flags = {(True, False): "start", (False, True): "end", (True, True): "both", (False, False): "middle"}
    shown = {
        "kind": "kick",
        "distance": record.distance,
        "angle": record.angle,
        "side": "left" if record.is_left_side else "right",
        "minute": record.time_norm * MINUTES,
        "phase": flags[bool(record.is_start), bool(record.is_endgame)],
        "wind": record.wind_speed,
        "rain": record.precipitation_probability * 100,
        "foot": "left" if record.is_left_footed else "right",
        "venue": "away" if record.game_away else "home",
        "attempts": "yes" if record.has_previous_attempts else "no",
        **({"kicker": record.kicker} if record.kicker else {}),
    }
    return urlencode(shown)


def _parsed(name: str, text: str) -> Any:
    if name in CHOICES:
        if text in CHOICES[name]:
            return text
    elif name == "kicker":
        if fault := kicker_fault(text or None):
            raise InvalidInput(f"{name} {fault}")
        return kicker_of(text)
    else:
        low, high = RANGES[name]
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if low <= value <= high:  # NaN is not
            return value
    raise InvalidInput(f"{name} can't be {text!r}")
