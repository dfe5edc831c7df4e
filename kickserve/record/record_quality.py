"""How good kept predictions were, from a stream of those whose outcome is known."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from kickserve.quality import Quality, assess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from kickserve.ports import Judged


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

    def add(self, judged: Judged) -> None:
        self._predictions.append(judged.prediction)
        self._successes.append(judged.success)

    def assess(self) -> Quality:
        return assess(np.frombuffer(self._predictions), np.frombuffer(self._successes, dtype=np.int8))


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


async def report(stream: AsyncIterator[list[Judged]]) -> QualityReport:
    """Assess predictions as they come: what is held is the pairs, not the records."""
    overall, count = _Pairs(), 0
    models: defaultdict[str, _Pairs] = defaultdict(_Pairs)
    months: defaultdict[str, _Pairs] = defaultdict(_Pairs)
    shadows: defaultdict[tuple[str, str], _Triples] = defaultdict(_Triples)
    async for group in stream:
        for judged in group:
            for pairs in (overall, models[judged.model], months[f"{judged.created_at:%Y-%m}"]):
                pairs.add(judged)
            if judged.shadow is not None and judged.shadow_prediction is not None:
                triples = shadows[judged.model, judged.shadow]
                triples.add(judged.prediction, judged.shadow_prediction, success=judged.success)
        count += len(group)
    return QualityReport(
        count=count,
        overall=overall.assess() if count else None,
        models=_assess_each(models),
        months=_assess_each(months),
        shadows=[shadows[pair].compare(*pair) for pair in sorted(shadows)],
    )


def _assess_each(groups: Mapping[str, _Pairs]) -> dict[str, Quality]:
    return {name: groups[name].assess() for name in sorted(groups)}
