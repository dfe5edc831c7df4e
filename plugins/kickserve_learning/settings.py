"""The setting of the plugin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, NamedTuple

from kickserve.plugins import SettingsTable, setting

_WORDS: Final = {
    **dict.fromkeys(("off", "no", "none", "false", "0"), "off"),
    **dict.fromkeys(("level", "levels"), "level"),
    **dict.fromkeys(("kickers", "kicker"), "kickers"),
}
_WANTED: Final = "must be off, kickers, level, or level,kickers"


class Learns(NamedTuple):
    """The quantities that are learned from outcomes.

    Attributes:
        level: the level of all kicks.
        kickers: the ability of each named kicker.
    """

    level: bool
    kickers: bool


def learns(value: str) -> Learns:
    """Read `level`, `kickers`, both, or `off`: words between commas, spaces or +, in any order."""
    words = [each for each in re.split(r"[\s,;+]+", value.strip().lower()) if each]
    for word in words:
        if word not in _WORDS:
            near = get_close_matches(word, set(_WORDS.values()), 1)
            raise ValueError(
                f"{_WANTED}; {word[:40]} is none" + (f": did you mean {near[0]}?" if near else "")
            )
    chosen = {_WORDS[word] for word in words}
    if not chosen or ("off" in chosen and len(chosen) > 1):
        raise ValueError(_WANTED)
    return Learns(level="level" in chosen, kickers="kickers" in chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningSettings(SettingsTable):
    """The setting of the plugin."""

    learns: Learns = setting(
        "KICKSERVE_LEARN",
        "kickers",
        learns,
        "What answers learn from outcomes: `kickers` (the ability of each kicker that a kick names),"
        " `level,kickers` (also the level of all kicks), `level`, or `off`.",
    )
