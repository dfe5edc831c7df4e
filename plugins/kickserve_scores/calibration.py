"""The test of predictions by outcomes: the alarm on the answers, and beside it that on the model's own."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.schemas import Calibration, CalibrationChange
from kickserve_scores.alarm import Alarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from kickserve.store import KnownOutcome
    from kickserve_scores.alarm import Change

BLIND: Final = (
    "no outcome is known: without outcomes nothing can show that more or fewer kicks succeed than predicted"
)
_HEALED: Final = (
    "what answers learn from outcomes heals them: whether the model itself still fits is in `base_change`"
)
_MOST_EVIDENCE: Final = 1e9


class CalibrationTest:
    """Tests answers, and from the first on that something was learned for, the model's own probabilities too.

    Args:
        timed: whether marks are seconds since 1970; otherwise they are lines of a file.
    """

    def __init__(self, *, timed: bool = True) -> None:
        self._timed = timed
        self._answers = Alarm()
        self._base: Alarm | None = None  # None while both are the same

    @property
    def outcomes(self) -> int:
        """How many outcomes were heard."""
        return self._answers.outcomes

    @property
    def size(self) -> int:
        """How many values a copy has to copy: always the same few."""
        return 1

    def copy(self) -> CalibrationTest:
        """Return a test that goes its own way from here."""
        made = CalibrationTest(timed=self._timed)
        made._answers, made._base = copy(self._answers), copy(self._base)
        return made

    def hear(self, answer: ArrayLike, base: ArrayLike, success: ArrayLike, mark: ArrayLike) -> None:
        """Hear outcomes, all of shape (n,).

        Args:
            answer: probabilities that were answered.
            base: the model's own.
            success: outcomes.
            mark: seconds since 1970, or lines of a file.
        """
        if self._base is None and not np.array_equal(answer, base):
            self._base = copy(self._answers)
        self._answers.hear(answer, success, mark)
        if self._base is not None:
            self._base.hear(base, success, mark)

    def take(self, outcomes: Sequence[KnownOutcome]) -> None:
        """Hear the outcomes of stored predictions, but for those of visitors of the page."""
        heard = [
            (each.prediction, each.base, each.success, each.at.timestamp())
            for each in outcomes
            if each.source != "page"
        ]
        if heard:
            self.hear(*zip(*heard, strict=True))

    def result(self) -> Calibration:
        """Return what the outcomes say so far."""
        change = self._described(self._answers.change)
        return Calibration(
            outcomes=self.outcomes,
            evidence=min(self._answers.evidence, _MOST_EVIDENCE),
            change=change,
            base_change=change if self._base is None else self._described(self._base.change),
            note=BLIND if not self.outcomes else _HEALED if self._base is not None else "",
        )

    def _described(self, change: Change | None) -> CalibrationChange | None:
        if change is None:
            return None
        return CalibrationChange(
            what=change.what,
            heard_at=self._named(change.at),
            since=self._named(change.since),
            outcomes=change.outcomes,
            difference=change.difference.value,
            difference_interval=change.difference[1:],
            factor=change.factor.value,
            factor_interval=change.factor[1:],
            text=change.text,
        )

    def _named(self, mark: float) -> datetime | int:
        return datetime.fromtimestamp(mark, UTC) if self._timed else int(mark)
