"""Adjusts answers by a filter of outcomes, on their path: look-ups and arithmetic, no I/O."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve.plugins import NOTHING_LEARNED, EncodedLearned, Learner, encode_learned
from kickserve.schemas import Learned, LearnedKicker
from kickserve_scores.filter import NOTHING, Adjustment, Filter, adjust
from kickserve_scores.kickers import DECIMALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kickserve_learning.settings import Learns
    from kickserve_scores.filter import Ability

    Score = tuple[float, float, float]


_UNKNOWN: Final = 10_000  # kickers up to which those without an outcome are kept, too


class _Known(NamedTuple):
    """A filter of one model's outcomes, and the adjustments that were made of it so far."""

    revision: str
    filter: Filter
    made: dict[str | None, tuple[Adjustment, EncodedLearned]]


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

    def adjust(self, revision: str, score: Score, kicker: str | None) -> tuple[Score, EncodedLearned] | None:
        """Adjust the score of one kick, as `kickserve.plugins.Learner` does."""
        known = self._known
        if known is None or known.revision != revision:
            return None
        if not self._learns.kickers:
            kicker = None
        adjustment, learned = known.made.get(kicker) or self._make(known, kicker)
        return None if learned.json is None else (adjustment.score(score), learned)

    def adjust_many(
        self, revision: str, scores: NDArray[np.float64], kickers: Sequence[str | None]
    ) -> tuple[NDArray[np.float64], Sequence[EncodedLearned]] | None:
        """Adjust the scores of n kicks, as `kickserve.plugins.Learner` does."""
        known = self._known
        if known is None or known.revision != revision or not (self.unnamed or any(kickers)):
            return None
        if not self._learns.kickers:
            kickers = [None] * len(kickers)
        get, make = known.made.get, partial(self._make, known)
        adjustments, learned = zip(*[get(each) or make(each) for each in kickers], strict=True)
        return adjust(scores, adjustments), learned

    def _make(self, known: _Known, kicker: str | None) -> tuple[Adjustment, EncodedLearned]:
        if kicker is None and not self.unnamed:
            return NOTHING, NOTHING_LEARNED
        adjustment = known.filter.adjustment(kicker)
        level = round(adjustment.level, DECIMALS)
        learned = Learned(level=level, kicker=_of(kicker, adjustment.ability))
        made = adjustment, encode_learned(learned)
        # Unknown names could be any number.
        if kicker is None or adjustment.ability.outcomes or len(known.made) < _UNKNOWN:
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
