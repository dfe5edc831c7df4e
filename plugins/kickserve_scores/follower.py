"""Follows the outcomes in a store: accumulators are a function of them, the same in all processes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, Self, TypeVar

from kickserve.store import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kickserve.store import KnownOutcome, Store

_STEP: Final = 500  # outcomes that are learned in one turn of the event loop: a millisecond
_APART: Final = 1_000  # outcomes between two checkpoints, at least
_CHECKPOINTS: Final = 64
_MILLISECOND: Final = timedelta(milliseconds=1)  # the smallest time between two instants of a store


class Accumulator(Protocol):
    """What takes outcomes in, one after the other: a filter, a tally, a test."""

    @property
    def outcomes(self) -> int:
        """How many it has taken in."""
        ...

    @property
    def size(self) -> int:
        """How many values a copy has to copy, about."""
        ...

    def copy(self) -> Self:
        """Return one that goes its own way from here."""
        ...

    def take(self, outcomes: Sequence[KnownOutcome]) -> None:
        """Take outcomes in, from 1."""
        ...


T = TypeVar("T", bound=Accumulator)


class _Checkpoint(NamedTuple, Generic[T]):
    """What was learned of all outcomes that became known before an instant; never changed."""

    before: datetime
    learned: T


class Follower(Generic[T]):
    """Learns outcomes in the order in which they became known (`outcome_at`, then id).

    At each look the store says from which instant on outcomes have changed; those are learned again, from the
    newest checkpoint before. So a deleted record, a corrected outcome, one that comes to the store late, or a
    forgotten name leave what would be known without them, to the last digit.

    Args:
        store: has the outcomes.
        make: makes what learns them, before any.
        revision: only outcomes of predictions by the model of this revision; by default of all.

    Attributes:
        learned: what was learned at the last look, never changed; None before the first.
    """

    def __init__(self, store: Store, make: Callable[[], T], revision: str | None = None) -> None:
        self.revision = revision
        self.learned: T | None = None
        self._store = store
        self._newest = _Checkpoint(BEGINNING, make())
        self._checkpoints = [self._newest]  # the first has learned nothing; their distance grows with age
        self._mark: object = None
        self._looking = asyncio.Lock()

    async def look(self) -> T:
        """Take in the outcomes that changed since the last look, and return the accumulator.

        Raises:
            StoreError: the store can't be read; what was learned stays.
        """
        async with self._looking:
            changes = await self._store.outcome_changes(self._mark)
            if changes.first is not None:
                self._newest = await self._learn_from(changes.first)
            self._mark = changes.mark
            self.learned = self._newest.learned
            return self.learned

    async def _learn_from(self, first: datetime) -> _Checkpoint[T]:
        """Learn all outcomes from an instant on again."""
        self._checkpoints = [each for each in self._checkpoints if each.before <= max(first, BEGINNING)]
        before, learned = self._newest if self._newest.before <= first else self._checkpoints[-1]
        learned = learned.copy()
        async for group in self._store.known_outcomes(revision=self.revision, since=before):
            for begin in range(0, len(group), _STEP):
                step = group[begin : begin + _STEP]
                if step[0].at >= before:  # otherwise the step before ended within the same instant
                    self._keep(_Checkpoint(step[0].at, learned))
                learned.take(step)
                before = step[-1].at + _MILLISECOND
                await asyncio.sleep(0)
        return _Checkpoint(before, learned)

    def _keep(self, checkpoint: _Checkpoint[T]) -> None:
        """Keep a copy of a checkpoint that is far enough from the one before.

        Where a copy is large, that is further: so copies take no more time than outcomes, and no more memory
        than these would.
        """
        learned = checkpoint.learned
        if learned.outcomes - self._checkpoints[-1].learned.outcomes < max(_APART, learned.size):
            return
        self._checkpoints.append(checkpoint._replace(learned=learned.copy()))
        if len(self._checkpoints) > _CHECKPOINTS:
            del self._checkpoints[1 : _CHECKPOINTS // 2 : 2]
