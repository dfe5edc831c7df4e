"""The table of kickers: kicks, made, expected, points above expected, ability."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from kickserve_scores.filter import UNKNOWN, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kickserve_learning.settings import Learns

POINTS: Final = 3.0
"""Points of a kick where nothing else is said: those of a penalty. A conversion is worth 2."""
_NORMAL_975: Final = 1.96


class KickerRow(Struct, kw_only=True, frozen=True):
    """A kicker, by the kicks whose outcome is known.

    Attributes:
        kicker: label.
        kicks: how many, from 1.
        made: how many succeeded.
        expected: how many would have, by the model's own probabilities, of a kicker of unknown ability.
        above: kicks above expected: made - expected.
        above_from: lower end of its 95 % interval, by the chance of each kick: ± 1.96·√Σ p·(1 - p).
        above_to: upper end.
        points: points above expected: `above` times the points of a kick, 3 unless told otherwise, because a
            kick does not say whether it is a penalty (3) or a conversion (2).
        points_from: lower end of its 95 % interval.
        points_to: upper end.
        ability: what the kicker adds to the log-odds of a kick, drawn towards 0 where kicks are few.
        ability_from: lower end of its 95 % interval.
        ability_to: upper end.
    """

    kicker: str
    kicks: int
    made: int
    expected: float
    above: float
    above_from: float
    above_to: float
    points: float
    points_from: float
    points_to: float
    ability: float
    ability_from: float
    ability_to: float


COLUMNS: Final = KickerRow.__struct_fields__
SORTS: Final = ("points", "above", "kicks", "made", "expected", "ability", "kicker")
"""What the table can be sorted by; `kicker` rises, the others fall."""


class Tally:
    """Counts the kicks of kickers, in the order in which their outcomes became known.

    Args:
        learns: what the abilities are learned beside: with a level, they are those above the level.
    """

    def __init__(self, learns: Learns) -> None:
        self._filter = Filter(level=learns.level, kickers=True)
        self._sums: dict[str, list[float]] = {}

    def add(self, base: float, kicker: str | None, success: bool) -> None:  # noqa: FBT001
        """Add a kick: the model's own probability, the kicker's label, the outcome."""
        self._filter.update(base, kicker, success)
        if kicker is not None:
            sums = self._sums.setdefault(kicker, [0, 0, 0.0, 0.0])
            sums[0] += 1
            sums[1] += success
            sums[2] += base
            sums[3] += base * (1 - base)

    def rows(self, points: float = POINTS) -> list[KickerRow]:
        """Return the kickers, in the order of their first outcomes.

        Args:
            points: of a kick.
        """
        return [self._row(kicker, points) for kicker in self._sums]

    def _row(self, kicker: str, points: float) -> KickerRow:
        kicks, made, expected, variance = self._sums[kicker]
        above, half = made - expected, _NORMAL_975 * math.sqrt(variance)
        ability = self._filter.kickers.get(kicker, UNKNOWN)
        low, high = ability.interval
        return KickerRow(
            kicker=kicker,
            kicks=int(kicks),
            made=int(made),
            expected=expected,
            above=above,
            above_from=above - half,
            above_to=above + half,
            points=points * above,
            points_from=points * (above - half),
            points_to=points * (above + half),
            ability=ability.mean,
            ability_from=low,
            ability_to=high,
        )


def ordered(rows: Iterable[KickerRow], by: str) -> list[KickerRow]:
    """Sort kickers by one of `SORTS`; equal ones by their label."""
    return sorted(rows, key=place_of(by))


def place_of(by: str) -> Callable[[KickerRow], tuple[float, str]]:
    """Return the function that gives a kicker's place in the order by one of `SORTS`."""
    if by == "kicker":
        return lambda row: (0.0, row.kicker)
    value = attrgetter(by)
    return lambda row: (-value(row), row.kicker)
