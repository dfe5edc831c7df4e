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


class QualityReport(Struct, kw_only=True, frozen=True):
    """How good predictions were whose outcome is known.

    Attributes:
        count: how many there are.
        overall: of all of them; null where there are none.
        models: by name of the model.
        months: by month in UTC, as `2026-11`.
    """

    count: int
    overall: Quality | None
    models: dict[str, Quality]
    months: dict[str, Quality]


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


async def report(stream: AsyncIterator[list[Judged]]) -> QualityReport:
    """Assess predictions as they come: what is held is the pairs, not the records."""
    overall, count = _Pairs(), 0
    models: defaultdict[str, _Pairs] = defaultdict(_Pairs)
    months: defaultdict[str, _Pairs] = defaultdict(_Pairs)
    async for group in stream:
        for judged in group:
            for pairs in (overall, models[judged.model], months[f"{judged.created_at:%Y-%m}"]):
                pairs.add(judged)
        count += len(group)
    return QualityReport(
        count=count,
        overall=overall.assess() if count else None,
        models=_assess_each(models),
        months=_assess_each(months),
    )


def _assess_each(groups: Mapping[str, _Pairs]) -> dict[str, Quality]:
    return {name: groups[name].assess() for name in sorted(groups)}
