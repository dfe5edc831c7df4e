"""From kicks to answers: asks the model, makes the records, has them kept. Every way in leads here."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.errors import PredictionFailed
from kickserve.features import named
from kickserve.ids import IdFactory, instant
from kickserve.schemas import Prediction, Record, matrix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kickserve.gauge import Gauge
    from kickserve.model import Answer, Model
    from kickserve.schemas import Kick

    Keep = Callable[[Sequence[Record]], Awaitable[None]]

CHUNK: Final = 2_000  # kicks answered before others get their turn on the event loop: about 10 ms

_log = logging.getLogger(__name__)


class Predictor:
    """Answers kicks and keeps the answers.

    Args:
        model: what is asked.
        keep: takes the records before the answers leave.
        gauge: what the process uses, for the records.
    """

    def __init__(self, model: Model, keep: Keep, gauge: Gauge) -> None:
        self._model = model
        self._keep = keep
        self._gauge = gauge
        self._ids = IdFactory()

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self._model

    async def predict(self, kick: Kick) -> Prediction:
        """Answer one kick.

        Raises:
            PredictionFailed: the model could not; the attempt is kept all the same.
            Backlogged: the answer could not be kept, so it was not given.
        """
        return (await self._predict([kick]))[0]

    async def predict_batch(self, kicks: Sequence[Kick]) -> list[Prediction]:
        """Answer many kicks, in their order; raises as `predict` does."""
        predictions: list[Prediction] = []
        for start in range(0, len(kicks), CHUNK):
            predictions += await self._predict(kicks[start : start + CHUNK])
            await asyncio.sleep(0)
        return predictions

    async def _predict(self, kicks: Sequence[Kick]) -> list[Prediction]:
        rows = matrix(kicks)
        try:
            records = self.answer(rows)
        except PredictionFailed as error:
            await self._keep(list(self._failures(rows, error)))
            raise
        await self._keep(records)
        return self.predictions(records, rows)

    def predictions(self, records: Sequence[Record], rows: NDArray[np.float64]) -> list[Prediction]:
        """Turn what `answer` made of these rows into what clients see, warnings included."""
        warnings = map(self._model.warnings, rows.tolist())
        return [_prediction(record, each) for record, each in zip(records, warnings, strict=True)]

    def answer(self, rows: NDArray[np.float64]) -> list[Record]:
        """Ask the model, and make the records without keeping them.

        Args:
            rows: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Raises:
            PredictionFailed: the model raised, or returned something that is no probability.
        """
        started = time.perf_counter()
        probabilities, lows, highs = _columns(self._ask(rows), len(rows))
        each = (time.perf_counter() - started) * 1000 / max(len(rows), 1)
        return [
            self._record(
                row,
                prediction=p,
                confidence=max(p, 1 - p),
                interval=None if low is None or high is None else (low, high),
                latency_ms=round(each, 4),
            )
            for row, p, low, high in zip(rows.tolist(), probabilities, lows, highs, strict=True)
        ]

    def _ask(self, rows: NDArray[np.float64]) -> Answer:
        # Whatever a model raises is the model's failure: it may be anybody's code.
        try:
            answer = self._model.predict(rows)
        except Exception as error:
            _log.exception("the model %s failed", self._model.card.name)
            raise PredictionFailed(
                f"the model raised {type(error).__name__}: see the service's log"
            ) from error
        parts = [part for part in answer if part is not None]
        if not all(part.shape == (len(rows),) and np.all((part >= 0) & (part <= 1)) for part in parts):
            _log.error("the model %s returned something that is no probability", self._model.card.name)
            raise PredictionFailed("the model returned something that is no probability")
        return answer

    def _failures(self, rows: NDArray[np.float64], error: PredictionFailed) -> Iterator[Record]:
        for row in rows.tolist():
            yield self._record(
                row,
                prediction=None,
                confidence=None,
                interval=None,
                latency_ms=0.0,
                status_code=error.status,
                error=str(error),
            )

    def _record(self, row: list[float], **result: Any) -> Record:
        record_id, millisecond = self._ids.next()
        features: dict[str, Any] = named(row)
        return Record(
            id=record_id,
            created_at=instant(millisecond),
            model=self._model.card.name,
            revision=self._model.card.revision,
            cpu_percent=self._gauge.cpu_percent,
            memory_mb=self._gauge.memory_mb,
            **features,
            **result,
        )


def _columns(
    answer: Answer, count: int
) -> tuple[list[float], Sequence[float | None], Sequence[float | None]]:
    nothing: list[None] = [None] * count
    low = nothing if answer.low is None else answer.low.tolist()
    high = nothing if answer.high is None else answer.high.tolist()
    return answer.probability.tolist(), low, high


def _prediction(record: Record, warnings: list[str]) -> Prediction:
    if record.prediction is None or record.confidence is None:
        raise PredictionFailed("a kick without an answer")
    return Prediction(
        id=record.id,
        prediction=record.prediction,
        confidence=record.confidence,
        interval=record.interval,
        model=record.model,
        warnings=warnings,
    )
