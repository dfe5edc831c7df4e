"""How good stored predictions were, from a stream of those with a known outcome."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.schemas import Calibration
from kickserve_scores.calibration import CalibrationTest
from kickserve_scores.quality import Quality, assess, compare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from numpy.typing import NDArray

    from kickserve.store import LabelledPrediction

_AT_A_TIME: Final = 1_000  # predictions, before the event loop gets its turn: 1 ms


class ShadowQuality(Struct, kw_only=True, frozen=True):
    """A model and its shadow (`KICKSERVE_SHADOW`), on the same kicks.

    Attributes:
        model: name of the model that answered.
        shadow: name of the second one.
        quality: how good the first was on the kicks that both predicted.
        shadow_quality: how good the second was.
        brier_difference: mean difference of the squared errors, second less first: below 0 the second is
            better.
        brier_difference_error: standard error of that mean, from the pairs; 0 for a single kick.
    """

    model: str
    shadow: str
    quality: Quality
    shadow_quality: Quality
    brier_difference: float
    brier_difference_error: float


class LearnedQuality(Struct, kw_only=True, frozen=True):
    """Answers with something learned in them (`KICKSERVE_LEARN`), and the model alone, on the same kicks.

    Attributes:
        quality: how good the answers were.
        base_quality: how good the model's own probabilities were.
        brier_difference: mean difference of the squared errors, answer less model: below 0 learning makes
            answers better.
        brier_difference_error: standard error of that mean, from the pairs; 0 for a single kick.
    """

    quality: Quality
    base_quality: Quality
    brier_difference: float
    brier_difference_error: float


class QualityReport(Struct, kw_only=True, frozen=True):
    """How good predictions with a known outcome were; kicks of visitors of the page are left out.

    Attributes:
        count: how many there are.
        overall: of all of them; null where there are none.
        models: by name of the model.
        months: by month in UTC, as `2026-11`.
        shadows: models against those of `KICKSERVE_SHADOW`; empty where none was asked.
        learned: answers against the model alone; null where nothing was learned.
        calibration: by name of the model, the test by outcomes in the order of the kicks, and its alarms.
    """

    count: int
    overall: Quality | None
    models: dict[str, Quality]
    months: dict[str, Quality]
    shadows: list[ShadowQuality]
    learned: LearnedQuality | None
    calibration: dict[str, Calibration]


class _Columns:
    """Predictions, second ones of the same kicks, outcomes, and when they were made: 25 bytes a kick."""

    def __init__(self) -> None:
        self._prediction, self._second, self._at = array("d"), array("d"), array("d")
        self._success = array("b")

    def add(self, labelled: LabelledPrediction, second: float | None) -> None:
        self._prediction.append(labelled.prediction)
        self._second.append(labelled.prediction if second is None else second)
        self._success.append(labelled.success)
        self._at.append(labelled.created_at.timestamp())

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        return np.frombuffer(self._prediction), np.frombuffer(self._success, dtype=np.int8)

    def heard_by(self, test: CalibrationTest) -> None:
        prediction, success = self.arrays()
        test.hear(prediction, np.frombuffer(self._second), success, np.frombuffer(self._at))

    def compare(self) -> tuple[Quality, Quality, float, float]:
        """Return the quality of the first and of the second, and the difference of the Brier scores."""
        first, success = self.arrays()
        return compare(first, np.frombuffer(self._second), success)


class _Parts:
    """Columns by model and month, by model and shadow, and of kicks for which something was learned."""

    def __init__(self) -> None:
        self.months: defaultdict[tuple[str, str], _Columns] = defaultdict(_Columns)
        self.shadows: defaultdict[tuple[str, str], _Columns] = defaultdict(_Columns)
        self.learned = _Columns()

    def add(self, labelled: LabelledPrediction) -> None:
        if labelled.source == "page":
            return
        at = labelled.created_at
        self.months[labelled.model, f"{at.year}-{at.month:02}"].add(labelled, labelled.base)
        if labelled.shadow is not None and labelled.shadow_prediction is not None:
            self.shadows[labelled.model, labelled.shadow].add(labelled, labelled.shadow_prediction)
        if labelled.base is not None:
            self.learned.add(labelled, labelled.base)


async def report(stream: AsyncIterator[Sequence[LabelledPrediction]]) -> QualityReport:
    """Assess predictions as they come: numbers are held, not records."""
    parts = _Parts()
    async for group in stream:
        for start in range(0, len(group), _AT_A_TIME):
            for labelled in group[start : start + _AT_A_TIME]:
                parts.add(labelled)
            await asyncio.sleep(0)
    return await asyncio.to_thread(_report, parts)  # sorting takes long: others get their turns


def _report(parts: _Parts) -> QualityReport:
    overall = _assess(parts.months.values()) if parts.months else None

    calibration = defaultdict[str, CalibrationTest](CalibrationTest)
    for (model, _), columns in sorted(parts.months.items()):
        columns.heard_by(calibration[model])

    def by(at: int) -> dict[str, Quality]:
        names = sorted({key[at] for key in parts.months})
        return {
            name: _assess(part for key, part in parts.months.items() if key[at] == name) for name in names
        }

    return QualityReport(
        count=0 if overall is None else overall.count,
        overall=overall,
        models=by(0),
        months=by(1),
        shadows=[_shadow(*pair, columns) for pair, columns in sorted(parts.shadows.items())],
        learned=_learned(parts.learned),
        calibration={model: test.result() for model, test in calibration.items()},
    )


def _shadow(model: str, shadow: str, columns: _Columns) -> ShadowQuality:
    quality, shadow_quality, difference, error = columns.compare()
    return ShadowQuality(
        model=model,
        shadow=shadow,
        quality=quality,
        shadow_quality=shadow_quality,
        brier_difference=difference,
        brier_difference_error=error,
    )


def _learned(columns: _Columns) -> LearnedQuality | None:
    if not len(columns.arrays()[0]):
        return None
    quality, base_quality, difference, error = columns.compare()
    return LearnedQuality(
        quality=quality,
        base_quality=base_quality,
        brier_difference=-difference,
        brier_difference_error=error,
    )


def _assess(parts: Iterable[_Columns]) -> Quality:
    predictions, successes = map(np.concatenate, zip(*(each.arrays() for each in parts), strict=True))
    return assess(predictions, successes)
