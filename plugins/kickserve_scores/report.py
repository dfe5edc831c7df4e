"""How good kept predictions were, from a stream of those whose outcome is known."""

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

_TOGETHER: Final = 1_000  # that are taken up before others get their turn on the event loop: 1 ms


class ShadowQuality(Struct, kw_only=True, frozen=True):
    """A model and the second one that was asked as well, on the same kicks.

    Attributes:
        model: name of the model that answered.
        shadow: name of the second one.
        quality: how good the first was on the kicks that both were asked of.
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
    """How good predictions were whose outcome is known.

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


class _Pairs:
    """Predictions and outcomes, nine bytes a pair."""

    def __init__(self) -> None:
        self._predictions = array("d")
        self._successes = array("b")

    def add(self, judged: LabelledPrediction) -> None:
        self._predictions.append(judged.prediction)
        self._successes.append(judged.success)

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        return np.frombuffer(self._predictions), np.frombuffer(self._successes, dtype=np.int8)


class _Triples:
    """What two models predicted, and outcomes: 17 bytes each."""

    def __init__(self) -> None:
        self._predictions = array("d"), array("d")
        self._successes = array("b")

    def add(self, prediction: float, shadow: float, *, success: bool) -> None:
        self._predictions[0].append(prediction)
        self._predictions[1].append(shadow)
        self._successes.append(success)

    def compare(self, model: str, shadow: str) -> ShadowQuality:
        success = np.frombuffer(self._successes, dtype=np.int8)
        first, second = map(np.frombuffer, self._predictions)
        difference = (second - success) ** 2 - (first - success) ** 2
        return ShadowQuality(
            model=model,
            shadow=shadow,
            quality=assess(first, success),
            shadow_quality=assess(second, success),
            brier_difference=float(difference.mean()),
            brier_difference_error=float(difference.std() / max(len(difference) - 1, 1) ** 0.5),
        )


class _Gathered:
    """Pairs by model and month, of which all that is measured can be put together."""

    def __init__(self) -> None:
        self._pairs: defaultdict[tuple[str, int, int], _Pairs] = defaultdict(_Pairs)
        self._shadows: defaultdict[tuple[str, str], _Triples] = defaultdict(_Triples)

    def add(self, group: Sequence[LabelledPrediction]) -> None:
        for judged in group:
            at = judged.created_at
            self._pairs[judged.model, at.year, at.month].add(judged)
            if judged.shadow is not None and judged.shadow_prediction is not None:
                triples = self._shadows[judged.model, judged.shadow]
                triples.add(judged.prediction, judged.shadow_prediction, success=judged.success)

    def report(self) -> QualityReport:
        models: defaultdict[str, list[_Pairs]] = defaultdict(list)
        months: defaultdict[str, list[_Pairs]] = defaultdict(list)
        for (model, year, month), pairs in self._pairs.items():
            models[model].append(pairs)
            months[f"{year}-{month:02}"].append(pairs)
        overall = _assess(self._pairs.values()) if self._pairs else None
        return QualityReport(
            count=0 if overall is None else overall.count,
            overall=overall,
            models={name: _assess(models[name]) for name in sorted(models)},
            months={name: _assess(months[name]) for name in sorted(months)},
            shadows=[self._shadows[pair].compare(*pair) for pair in sorted(self._shadows)],
        )


def _assess(parts: Iterable[_Pairs]) -> Quality:
    predictions, successes = map(np.concatenate, zip(*(each.arrays() for each in parts), strict=True))
    return assess(predictions, successes)


async def report(stream: AsyncIterator[Sequence[LabelledPrediction]]) -> QualityReport:
    """Assess predictions as they come: what is held is the pairs, not the records."""
    gathered = _Gathered()
    async for group in stream:
        for start in range(0, len(group), _TOGETHER):
            gathered.add(group[start : start + _TOGETHER])
            await asyncio.sleep(0)
    return await asyncio.to_thread(gathered.report)  # to sort so many takes long, and can be done beside
