"""Keeps the learner at the newest outcomes while the service runs."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kickserve.plugins import Metric, StoreError, cancel_task
from kickserve_scores.follower import Follower

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kickserve.plugins import App
    from kickserve_learning.learner import FilterLearner
    from kickserve_scores.filter import Filter

EVERY: Final = 0.5  # seconds between two looks: replicas agree within a second and what learning takes
_PATIENCE: Final = 0.5  # seconds that a start waits for what was learned before, and an end for a look
_LATE: Final = 10.0  # seconds from which on a look takes too long, and the pause after a bug

_log = logging.getLogger(__name__)


class LearningLoop:
    """Follows the outcomes of the model that is served; another model begins anew.

    Args:
        learner: gets the filters.
    """

    def __init__(self, learner: FilterLearner) -> None:
        self._learner = learner
        self._task: asyncio.Task[None] | None = None
        self._served = ""  # revision of the model that is served, as of the last look
        self._looked = asyncio.Event()
        self._ending = asyncio.Event()
        self._looked_at = -float("inf")  # by `time.monotonic`
        self._trouble: Exception | None = None

    @property
    def state(self) -> str:
        """`ok`, or in words why answers are the model's own, or not of the newest outcomes."""
        trouble = f": {self._trouble}" if self._trouble else ""
        if self._learner.revision != self._served:
            return f"outcomes are being read; answers are the model's own until then{trouble}"
        if trouble or self._age > _LATE:
            return f"answers know the outcomes of {self._age:.0f} s ago{trouble}"
        return "ok"

    @property
    def _age(self) -> float:
        """Seconds since the last look at the store."""
        return time.monotonic() - self._looked_at

    def metrics(self) -> Iterable[Metric]:
        """Return what was learned, for `/metrics`; all workers learn the same."""
        learned = self._learner.filter
        if learned is None:
            return
        yield Metric("kickserve_learning_outcomes", "Outcomes that answers have learned.", learned.outcomes)
        yield Metric("kickserve_learning_kickers", "Kickers with a learned ability.", len(learned.kickers))
        yield Metric("kickserve_learning_level", "Level that is added to all log-odds.", learned.level)
        yield Metric("kickserve_learning_level_sd", "Standard deviation of the level.", learned.level_sd)
        yield Metric("kickserve_learning_age_seconds", "Time since the last look at outcomes.", self._age)

    async def start(self, app: App) -> None:
        """Begin, and wait a moment for what the store has: many outcomes are learned beside answers."""
        self._task = asyncio.create_task(self._run(app), name="learning")
        waiting = asyncio.create_task(self._looked.wait())
        await asyncio.wait([waiting], timeout=_PATIENCE)
        waiting.cancel()

    async def stop(self) -> None:
        """End, after a look under way: a cancelled one would leave its connection busy."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_PATIENCE)
        await cancel_task(self._task)

    async def _run(self, app: App) -> None:
        follower: Follower[Filter] | None = None
        while not self._ending.is_set():
            pause = EVERY
            self._served = app.predictor.model.card.revision
            if follower is None or follower.revision != self._served:
                follower = Follower(app.store, self._learner.new, self._served)
            try:
                self._learner.learn(self._served, await follower.look())
                self._looked_at, self._trouble = time.monotonic(), None
                self._looked.set()
            except StoreError as error:
                self._trouble = error
            except Exception as error:  # noqa: BLE001  a bug must end neither this nor the service
                _log.exception("outcomes could not be learned: they are read from the first one again")
                follower, self._trouble, pause = None, error, _LATE
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ending.wait()
