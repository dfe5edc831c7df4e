"""Finds columns by the names that a file has for them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from kickserve.features import BY_NAME, NAMES
from kickserve_data import DataError
from kickserve_data.kicks import without_accents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OUTCOMES: Final = (
    *("success", "outcome", "is_successful", "successful", "result", "made", "scored", "goal"),
    *("is_success", "is_goal", "converted", "kick_success", "kick_result"),
    *("reussi", "resultat", "resultado", "risultato", "ergebnis"),
)
"""What the column of the outcome may be called; the first that a file has is taken."""

KICKERS: Final = (
    *("kicker", "kicker_name", "kicker_id", "player", "player_name", "player_id"),
    *("buteur", "tireur", "joueur", "jugador", "giocatore", "spieler"),
)
"""What the column of kickers may be called; the first that a file has once is taken."""

# How the words of a name begin that may mean a column; the first column that fits is taken.
_STEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "has_previous_attempts": ("prev", "attempt", "before", "deja", "tent"),
    "is_left_footed": ("foot", "pied", "fuss", "pie", "gaucher"),
    "is_left_side": ("side", "left", "cote", "gauche", "seite", "links", "lado"),
    "game_away": ("away", "venue", "exterieur", "lieu"),
    "precipitation_probability": ("rain", "precip", "wet", "pluie", "regen", "lluvia", "pioggia"),
    "wind_speed": ("wind", "vent", "viento"),
    "distance": ("dist", "range", "metre", "meter", "entfernung"),
    "angle": ("angle", "angul", "angol", "winkel", "deg"),
    "is_endgame": ("end", "last", "fin"),
    "is_start": ("start", "first", "debut"),
    "minute": ("min",),
    "time_norm": ("time", "temps", "zeit"),
    "date": ("date", "day", "datum", "fecha", "data", "jour"),
    OUTCOMES[0]: ("success", "outcome", "result", "made", "scored", "goal", "convert", "reussi"),
    KICKERS[0]: ("kicker", "player", "buteur", "tireur", "joueur", "spieler", "jugador", "giocatore"),
}
_OTHER_UNITS: Final = frozenset({"yd", "yds", "yard", "yards", "ft", "feet", "mph", "rad", "radians"})


DATES: Final = (
    *("date", "datetime", "timestamp", "kicked_at", "played_at", "match_date", "game_date"),
    *("datum", "fecha", "data"),
)
"""What the column of dates may be called."""

USUAL: Final[Mapping[str, float]] = {
    "time_norm": 0.5,
    "wind_speed": 16.8,
    "precipitation_probability": 0.33,
    "is_left_footed": 0.16,
    "game_away": 0.43,
    "is_endgame": 0.0625,
    "is_start": 0.0625,
    "is_left_side": 0.53,
    "has_previous_attempts": 0.73,
}
"""Features without which the difficulty of a kick is known well enough to learn from its outcome, and their
mean over the kicks of `kickserve_data.simulate`: with it, the level of the predictions stays right."""


def features_of(pairs: Sequence[str]) -> Mapping[str, str]:
    """Read what a file calls the features: pairs such as `distance=dist_m`, feature first.

    Raises:
        DataError: it is no pair, or names no feature.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, column = map(str.strip, pair.partition("="))
        if not (name and column):
            raise DataError(f"--column {pair} must read NAME=COLUMN, such as distance=dist_m")
        if name not in NAMES:
            raise DataError(f"{name} is no feature of a kick; the features are {', '.join(NAMES)}")
        found[name] = column
    return found


@lru_cache(1_000)
def plain(name: str) -> str:
    """Return a name without case, spaces and signs: `Time Norm` and `timeNorm` are `timenorm`."""
    return re.sub("[^a-z0-9]", "", without_accents(name).lower())


@lru_cache(1_000)
def column_of(name: str) -> str | None:
    """Guess which column a name may mean: a feature, `minute`, `date`, the outcome or the kicker."""
    apart = re.sub("(?<=[a-z])(?=[A-Z])", " ", without_accents(name)).lower()
    words = re.findall("[a-z]+", apart)
    if not _OTHER_UNITS.isdisjoint(words):
        return None
    fits = (column for column, stems in _STEMS.items() if any(word.startswith(stems) for word in words))
    return next(fits, None)


def match_columns(header: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Find columns that may be called anything.

    Args:
        header: the names of a file.

    Returns:
        Names of the file by column: the eleven features, `minute`, `date`, the outcome and the kicker, as far
        as there are any; and those of the columns that are guessed.
    """
    places = _finder(header)
    known = {column: (column,) for column in _STEMS} | {OUTCOMES[0]: OUTCOMES, KICKERS[0]: KICKERS}
    found: dict[str, str] = {}
    for column, names in known.items():
        exact = next((at for at in map(places, names) if len(at) == 1), None)
        if exact:
            found[column] = header[exact[0]]
    guessed = set()
    for name in header:
        guess = None if name in found.values() else column_of(name)
        if guess is not None and guess not in found:
            found[guess] = name
            guessed.add(guess)
    if "time_norm" in found and "minute" in found:  # one of them is enough
        spare = "minute" if "time_norm" not in guessed else "time_norm"
        del found[spare]
        guessed.discard(spare)
    return found, guessed


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that are wanted of a file.

    Attributes:
        place: where the file is, for messages.
        columns: their names; none for every column of the file.
        outcomes: names that the outcome's column may have.
        kickers: names that the column of kickers may have; none where labels are not wanted.
        usual: values by the names of columns that may be missing, in the file or in a row.
    """

    place: Any
    columns: Sequence[str] = NAMES
    outcomes: Sequence[str] = OUTCOMES
    kickers: Sequence[str] = ()
    usual: Mapping[str, float] = field(default_factory=dict)

    def is_known(self) -> Callable[[str], bool]:
        """Return a function that says whether a name may be that of a wanted column."""
        known = {plain(name) for name in (*self.columns, *self.outcomes)}
        return lambda name: plain(name) in known if self.columns else column_of(name) is not None

    def find(self, header: Sequence[str]) -> list[list[int]]:
        """Return the places of each column in a header, and after them that of the outcome."""
        places = _finder(header)
        outcome = next(filter(None, map(places, self.outcomes)), [])
        return [*map(places, self.columns), outcome]

    def find_kicker(self, header: Sequence[str]) -> int | None:
        """Return the place of the column of kickers in a header; None where there is none, or doubt."""
        places = next(filter(None, map(_finder(header), self.kickers)), [])
        return places[0] if len(places) == 1 else None

    @property
    def usual_at(self) -> dict[int, float]:
        """The usual values by the places of the columns."""
        return {at: self.usual[name] for at, name in enumerate(self.columns) if name in self.usual}

    def missing(self, header: Sequence[str]) -> list[str]:
        """Return the columns that a header lacks, and may not."""
        found = zip(self.columns, self.find(header), strict=False)
        return [name for name, places in found if not places and name not in self.usual]

    def positions(self, header: Sequence[str]) -> list[int | None]:
        """Return the place of each column in a header, and after them that of the outcome; None for none.

        Raises:
            DataError: one is missing that has no usual value, or one is repeated.
        """
        found = self.find(header)
        if missing := self.missing(header):
            names = [name.strip() for name in header]
            near = [(each, name) for name in missing for each in _nearest(name, names)]
            hint = "".join(f"; is '{each}' its {name}?" for each, name in near)
            has = ", ".join(names)[:200]
            raise DataError(f"{self.place} has no column {', '.join(missing)} (it has: {has}){hint}")
        repeated = [header[places[0]].strip() for places in found if len(places) > 1]
        if repeated:
            raise DataError(f"{self.place} has more than one column {', '.join(repeated)}")
        return [places[0] if places else None for places in found]

    def took(self, names: Sequence[str | None], kicker: str | None = None) -> list[str]:
        """Say which names of a header were taken for others."""
        taken = [*zip(names, (*self.columns, self.outcomes[0]), strict=True), (kicker, KICKERS[0])]
        other = [
            f"{name.strip()} as {column}"
            for name, column in taken
            if name is not None and name.strip() not in {column, *self.outcomes[:3]}
        ]
        return [other[0] + (f" (and {len(other) - 1} more)" if other[1:] else "")] if other else []


def _nearest(column: str, names: Sequence[str]) -> list[str]:
    """Return the name that most likely means a column; none where no name is near."""
    guesses = [name for name in names if column_of(name) == column]
    return guesses[:1] or difflib.get_close_matches(column, names, 1)


def _finder(header: Sequence[str]) -> Callable[[str], list[int]]:
    """Return a function from a name to its places in a header: as it is spelt, or else in other spellings."""
    names = [name.strip() for name in header]
    spelt = [plain(name) for name in names]

    def places(name: str) -> list[int]:
        unit = BY_NAME[name].unit if name in BY_NAME else ""
        also = {plain(name), plain(name + unit)}
        exact = [at for at, each in enumerate(names) if each == name]
        return exact or [at for at, each in enumerate(spelt) if each in also]

    return places
