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
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

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


async def report(stream: AsyncIterator[Sequence[LabelledPrediction]]) -> QualityReport:
    """Assess predictions as they come: numbers are held, not records."""
    parts: defaultdict[tuple[str, str], _Columns] = defaultdict(_Columns)  # by model and month
    shadows: defaultdict[tuple[str, str], _Columns] = defaultdict(_Columns)  # by model and shadow
    async for group in stream:
        for start in range(0, len(group), _AT_A_TIME):
            for labelled in group[start : start + _AT_A_TIME]:
                at = labelled.created_at
                parts[labelled.model, f"{at.year}-{at.month:02}"].add(labelled)
                if labelled.shadow is not None and labelled.shadow_prediction is not None:
                    shadows[labelled.model, labelled.shadow].add(labelled)
            await asyncio.sleep(0)
    return await asyncio.to_thread(_report, parts, shadows)  # sorting takes long: others get their turns


def _report(
    parts: Mapping[tuple[str, str], _Columns], shadows: Mapping[tuple[str, str], _Columns]
) -> QualityReport:
    overall = _assess(parts.values()) if parts else None

    def by(at: int) -> dict[str, Quality]:
        names = sorted({key[at] for key in parts})
        return {name: _assess(part for key, part in parts.items() if key[at] == name) for name in names}

    return QualityReport(
        count=0 if overall is None else overall.count,
        overall=overall,
        models=by(0),
        months=by(1),
        shadows=[columns.compare(*pair) for pair, columns in sorted(shadows.items())],
    )


def _assess(parts: Iterable[_Columns]) -> Quality:
    predictions, successes = map(np.concatenate, zip(*(each.arrays() for each in parts), strict=True))
    return assess(predictions, successes)
