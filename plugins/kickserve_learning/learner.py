"""Adjusts answers by a filter of outcomes, on their path: look-ups and arithmetic, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kickserve.plugins import Learner
from kickserve.schemas import Learned, LearnedKicker
from kickserve_scores.filter import Ability, Adjustment, Filter
from kickserve_scores.kickers import DECIMALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve_learning.settings import Learns

    Score = tuple[float, float, float]


class _Known(NamedTuple):
    """A filter of one model's outcomes, and the adjustments that were made of it so far."""

    revision: str
    filter: Filter
    made: dict[str | None, tuple[Adjustment, Learned]]


class FilterLearner(Learner):
    """Adjusts the scores of the model whose outcomes were learned; those of others stay as they are.

    Args:
        learns: level, abilities, or both.
    """

    def __init__(self, learns: Learns) -> None:
        self.unnamed = learns.level
        self._learns = learns
        self._known: _Known | None = None

    @property
    def filter(self) -> Filter | None:
        """The filter that answers are adjusted by; None before the first."""
        return None if self._known is None else self._known.filter

    @property
    def revision(self) -> str | None:
        """Revision of the model whose outcomes the filter took in; None before the first."""
        return None if self._known is None else self._known.revision

    def new(self) -> Filter:
        """Make a filter that has taken in no outcome yet."""
        return Filter(level=self._learns.level, kickers=self._learns.kickers)

    def learn(self, revision: str, learned: Filter) -> None:
        """Adjust by a filter from now on.

        Args:
            revision: of the model whose outcomes the filter took in.
            learned: the filter, which takes in no further ones.
        """
        if self._known is None or self._known.filter is not learned:
            self._known = _Known(revision, learned, {})

    def adjust(self, revision: str, score: Score, kicker: str | None) -> tuple[Score, Learned] | None:
        """Adjust the score of one kick, as `kickserve.plugins.Learner` does."""
        known = self._known
        if known is None or known.revision != revision:
            return None
        if not self._learns.kickers:
            kicker = None
        found = known.made.get(kicker) or self._make(known, kicker)
        return None if found is None else (found[0].score(score), found[1])

    def adjust_many(
        self, revision: str, scores: NDArray[np.float64], kickers: Sequence[str | None]
    ) -> tuple[NDArray[np.float64], list[Learned | None]] | None:
        """Adjust the scores of n kicks, as `kickserve.plugins.Learner` does."""
        if self.revision != revision or (not self.unnamed and not any(kickers)):
            return None
        rows = list(map(tuple, scores.tolist()))
        learned: list[Learned | None] = [None] * len(rows)
        for at, (row, kicker) in enumerate(zip(rows, kickers, strict=True)):
            if (adjusted := self.adjust(revision, row, kicker)) is not None:
                rows[at], learned[at] = adjusted
        return np.array(rows), learned

    def _make(self, known: _Known, kicker: str | None) -> tuple[Adjustment, Learned] | None:
        if kicker is None and not self.unnamed:
            return None
        adjustment = known.filter.adjustment(kicker)
        level = round(adjustment.level, DECIMALS)
        made = adjustment, Learned(level=level, kicker=_of(kicker, adjustment.ability))
        if kicker is None or adjustment.ability.outcomes:  # unknown names could be any number
            known.made[kicker] = made
        return made


def _of(kicker: str | None, ability: Ability) -> LearnedKicker | None:
    if kicker is None:
        return None
    low, high = ability.interval
    return LearnedKicker(
        name=kicker,
        outcomes=ability.outcomes,
        ability=round(ability.mean, DECIMALS),
        low=round(low, DECIMALS),
        high=round(high, DECIMALS),
    )
