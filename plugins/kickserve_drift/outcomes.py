"""Follows the outcomes of the current model's predictions, and tests the predictions by them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from kickserve.plugins import Metric, StoreError
from kickserve_scores.alarm import WHATS
from kickserve_scores.calibration import CalibrationTest
from kickserve_scores.follower import Follower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve.plugins import App
    from kickserve.schemas import Calibration

_log: Final = logging.getLogger(__name__)


class OutcomeTest:
    """The test of the current model's predictions by all outcomes in the store; another model begins anew.

    Each worker follows by itself: the result is a function of the store, and the same in all.

    Attributes:
        result: of the last look; None before the first.
    """

    def __init__(self) -> None:
        self.result: Calibration | None = None
        self._follower: Follower[CalibrationTest] | None = None
        self._taken: CalibrationTest | None = None

    async def look(self, app: App) -> None:
        """Take in the outcomes that have changed since the last look."""
        revision = app.predictor.model.card.revision
        if self._follower is None or self._follower.revision != revision:
            self._follower, self.result = Follower(app.store, CalibrationTest, revision), None
        try:
            taken = await self._follower.look()
        except StoreError as error:
            _log.debug("outcomes can't be read now: %s", error)
            return
        if taken is not self._taken or self.result is None:
            self._taken, self.result = taken, taken.result()

    def metrics(self) -> Iterator[Metric]:
        """Yield the result for `/metrics`."""
        if self.result is None:
            return
        yield Metric(
            "kickserve_drift_outcomes", "Outcomes by which predictions were tested.", self.result.outcomes
        )
        yield Metric(
            "kickserve_drift_evidence",
            "Evidence that predictions no longer fit outcomes; an alarm is raised at 150.",
            self.result.evidence,
        )
        for of, change in (("answers", self.result.change), ("model", self.result.base_change)):
            for what in WHATS:
                yield Metric(
                    "kickserve_drift_alarm",
                    "1 while outcomes say that answers, or the model's own probabilities, have this fault.",
                    change is not None and change.what == what,
                    {"of": of, "what": what},
                )
