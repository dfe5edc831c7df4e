"""The table of kickers: kicks, made, expected, points above expected, ability."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from kickserve.documents import NORMAL_975
from kickserve.schemas import Record
from kickserve_scores.filter import UNKNOWN, Ability, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kickserve.plugins import KnownOutcome

POINTS: Final = 3.0
"""Points of a kick where nothing else is said: those of a penalty. A conversion is worth 2."""
DECIMALS: Final = 6
"""Of figures that people read; the filter itself is not rounded."""


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
        points: points above expected: `above` times the points of a kick, 3 by default, because a
            kick does not say whether it is a penalty (3) or a conversion (2).
        points_from: lower end of its 95 % interval.
        points_to: upper end.
        ability: what the kicker adds to the log-odds of a kick, drawn towards 0 where kicks are few.
        ability_from: lower end of its 95 % interval.
        ability_to: upper end.
        hardest_made: lowest probability of a kick that succeeded; null where none did.
        easiest_missed: highest probability of a kick that did not; null where none did.
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
    hardest_made: float | None
    easiest_missed: float | None


class KickerPage(KickerRow, kw_only=True, frozen=True):
    """A kicker, with the predictions of the kicks, newest first.

    Attributes:
        predictions: also those whose outcome is unknown.
    """

    predictions: list[Record]


COLUMNS: Final = KickerRow.__struct_fields__
Place = tuple[float, str]
"""The place of a kicker in an order: a number that rises, and the label."""


class _Sums(NamedTuple):
    """Of a kicker's kicks: number, successes, sums of p and of p·(1 - p), lowest p made, highest p missed."""

    kicks: int = 0
    made: int = 0
    expected: float = 0.0
    variance: float = 0.0
    hardest: float | None = None
    easiest: float | None = None


class Tally:
    """Counts the kicks of kickers, in the order in which their outcomes became known.

    Args:
        level: whether abilities are those above a level that is learned too.
    """

    def __init__(self, *, level: bool) -> None:
        self._filter = Filter(level=level, kickers=True)
        self._sums: dict[str, _Sums] = {}

    @property
    def outcomes(self) -> int:
        """How many kicks it has taken in, with and without a kicker."""
        return self._filter.outcomes

    @property
    def size(self) -> int:
        """How many kickers a copy has to copy."""
        return len(self._sums)

    def copy(self) -> Tally:
        """Return a tally that goes its own way from here."""
        made = Tally(level=False)
        made._filter, made._sums = self._filter.copy(), self._sums.copy()
        return made

    def update(self, base: float, kicker: str | None, success: bool) -> None:  # noqa: FBT001
        """Take a kick in: the model's own probability, the kicker's label, the outcome."""
        self._filter.update(base, kicker, success)
        if kicker is not None:
            kicks, made, expected, variance, hardest, easiest = self._sums.get(kicker, _Sums())
            if success:
                hardest = base if hardest is None else min(hardest, base)
            else:
                easiest = base if easiest is None else max(easiest, base)
            self._sums[kicker] = _Sums(
                kicks + 1, made + success, expected + base, variance + base * (1 - base), hardest, easiest
            )

    def take(self, outcomes: Sequence[KnownOutcome]) -> None:
        """Take outcomes in."""
        for each in outcomes:
            self.update(each.base, each.kicker, each.success)

    def row(self, kicker: str, points: float = POINTS) -> KickerRow:
        """Return one kicker; without any outcome the row is of zeros, and the ability that of an unknown one.

        Args:
            kicker: label.
            points: of a kick.
        """
        kicks, made, expected, variance, *ends = self._sums.get(kicker, _Sums())
        above, half = made - expected, NORMAL_975 * math.sqrt(variance)
        ability = self._ability(kicker)
        low, high = ability.interval
        numbers = {
            "expected": expected,
            "above": above,
            "above_from": above - half,
            "above_to": above + half,
            "points": points * above,
            "points_from": points * (above - half),
            "points_to": points * (above + half),
            "ability": ability.mean,
            "ability_from": low,
            "ability_to": high,
        }
        rounded = {name: round(number, DECIMALS) for name, number in numbers.items()}
        hardest, easiest = (None if end is None else round(end, DECIMALS) for end in ends)
        return KickerRow(
            kicker=kicker, kicks=kicks, made=made, hardest_made=hardest, easiest_missed=easiest, **rounded
        )

    def page(
        self, by: str, points: float = POINTS, *, after: Place | None = None, limit: int | None = None
    ) -> tuple[list[KickerRow], Place | None]:
        """Return the kickers of whom an outcome is known, or some of them.

        Args:
            by: one of `SORTS`; equal kickers are sorted by their label.
            points: of a kick.
            after: only kickers after this place.
            limit: how many at most.

        Returns:
            The kickers, and the place of the last one; None where no kicker follows.
        """
        value = _VALUES[by]
        places = sorted((value(sums, self._ability(kicker)), kicker) for kicker, sums in self._sums.items())
        start = 0 if after is None else bisect_right(places, after)
        found = places[start : None if limit is None else start + limit]
        more = start + len(found) < len(places)
        return [self.row(kicker, points) for _, kicker in found], found[-1] if more else None

    def _ability(self, kicker: str) -> Ability:
        return self._filter.kickers.get(kicker, UNKNOWN)


_VALUES: Final[Mapping[str, Callable[[_Sums, Ability], float]]] = {
    "points": lambda sums, _: sums.expected - sums.made,
    "above": lambda sums, _: sums.expected - sums.made,
    "kicks": lambda sums, _: -sums.kicks,
    "made": lambda sums, _: -sums.made,
    "expected": lambda sums, _: -sums.expected,
    "ability": lambda _, ability: -ability.mean,
    "kicker": lambda *_: 0.0,
}
"""The number of a kicker's place, by the name of an order."""
SORTS: Final = tuple(_VALUES)
"""What the table can be sorted by; `kicker` rises, the others fall."""
