"""How good stored predictions were, from a stream of those with a known outcome."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve_scores.quality import Quality, assess

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


class QualityReport(Struct, kw_only=True, frozen=True):
    """How good predictions with a known outcome were.

    Attributes:
        count: how many there are.
        overall: of all of them; null where there are none.
        models: by name of the model.
        months: by month in UTC, as `2026-11`.
        shadows: models against those of `KICKSERVE_SHADOW`; empty where none was asked.
    """

    count: int
    overall: Quality | None
    models: dict[str, Quality]
    months: dict[str, Quality]
    shadows: list[ShadowQuality]


class _Columns:
    """Predictions and outcomes as columns: nine bytes a kick, seventeen with a shadow."""

    def __init__(self) -> None:
        self._prediction, self._shadow, self._success = array("d"), array("d"), array("b")

    def add(self, labelled: LabelledPrediction) -> None:
        self._prediction.append(labelled.prediction)
        self._success.append(labelled.success)
        if labelled.shadow_prediction is not None:
            self._shadow.append(labelled.shadow_prediction)

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        return np.frombuffer(self._prediction), np.frombuffer(self._success, dtype=np.int8)

    def compare(self, model: str, shadow: str) -> ShadowQuality:
        (first, success), second = self.arrays(), np.frombuffer(self._shadow)
        difference = (second - success) ** 2 - (first - success) ** 2
        return ShadowQuality(
            model=model,
            shadow=shadow,
            quality=assess(first, success),
            shadow_quality=assess(second, success),
            brier_difference=float(difference.mean()),
            brier_difference_error=float(difference.std() / max(len(difference) - 1, 1) ** 0.5),
        )


class _Collector:
    """Collects predictions by model and month, and by pair of model and shadow."""

    def __init__(self) -> None:
        self._parts: defaultdict[tuple[str, int, int], _Columns] = defaultdict(_Columns)
        self._shadows: defaultdict[tuple[str, str], _Columns] = defaultdict(_Columns)

    def add(self, group: Sequence[LabelledPrediction]) -> None:
        for labelled in group:
            at = labelled.created_at
            self._parts[labelled.model, at.year, at.month].add(labelled)
            if labelled.shadow is not None and labelled.shadow_prediction is not None:
                self._shadows[labelled.model, labelled.shadow].add(labelled)

    def report(self) -> QualityReport:
        models: defaultdict[str, list[_Columns]] = defaultdict(list)
        months: defaultdict[str, list[_Columns]] = defaultdict(list)
        for (model, year, month), part in self._parts.items():
            models[model].append(part)
            months[f"{year}-{month:02}"].append(part)
        overall = _assess(self._parts.values()) if self._parts else None
        return QualityReport(
            count=0 if overall is None else overall.count,
            overall=overall,
            models={name: _assess(models[name]) for name in sorted(models)},
            months={name: _assess(months[name]) for name in sorted(months)},
            shadows=[self._shadows[pair].compare(*pair) for pair in sorted(self._shadows)],
        )


def _assess(parts: Iterable[_Columns]) -> Quality:
    predictions, successes = map(np.concatenate, zip(*(each.arrays() for each in parts), strict=True))
    return assess(predictions, successes)


async def report(stream: AsyncIterator[Sequence[LabelledPrediction]]) -> QualityReport:
    """Assess predictions as they come: numbers are held, not records."""
    collector = _Collector()
    async for group in stream:
        for start in range(0, len(group), _AT_A_TIME):
            collector.add(group[start : start + _AT_A_TIME])
            await asyncio.sleep(0)
    return await asyncio.to_thread(
        collector.report
    )  # sorting takes long, and need not hold up the event loop
