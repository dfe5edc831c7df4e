"""Asks the model, and makes the record of what it says; keeping it is for others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from struct import Struct as Packing
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec.structs import replace

from kickserve.errors import PredictionFailed
from kickserve.features import COUNT
from kickserve.ids import IdFactory
from kickserve.model import AnswersOne, is_sound
from kickserve.record import NUMBER, WIDTH, RecordBatch, numbers_of
from kickserve.schemas import Prediction, matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve.ids import Ids
    from kickserve.model import Model
    from kickserve.process import ProcessSampler

    # What a model says of one kick: probability, low and high, these two NaN where it gives no interval.
    Found = tuple[float, float, float]

Row = Sequence[float]  # the eleven numbers of a kick; flags may be booleans

_FEW: Final = 8  # kicks up to which asking one by one is quicker than to make arrays of them
_pack: Final = Packing(f"<{WIDTH}d").pack
_log = logging.getLogger(__name__)


class Scorer:
    """Asks one model.

    Args:
        model: the model.
        sampler: of processor and memory, for the record.
        ids: makes the ids; its own where not given.
    """

    def __init__(self, model: Model, sampler: ProcessSampler, ids: IdFactory | None = None) -> None:
        self.model = model
        self._sampler = sampler
        self._ids = ids or IdFactory()
        self._answer_one = model.predict_one if isinstance(model, AnswersOne) else None

    def answer(self, rows: NDArray[np.float64]) -> RecordBatch:
        """Ask the model, and make the record.

        Args:
            rows: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Raises:
            PredictionFailed: the model raised, or returned something that is no probability.
        """
        started = time.perf_counter()
        found = self.ask(rows)
        return self.record(rows, found, time.perf_counter() - started)

    def predictions(self, batch: RecordBatch) -> list[Prediction]:
        """Turn the record of answers into what clients see, warnings included."""
        numbers = numbers_of([batch])
        rows, found = numbers[:, :COUNT], numbers[:, COUNT : COUNT + 3]
        answers = zip(batch.ids.texts(), found.tolist(), self._warnings(rows), strict=True)
        return [_prediction(record_id, batch.model, each, warnings) for record_id, each, warnings in answers]

    def _warnings(self, rows: NDArray[np.float64]) -> list[tuple[str, ...]]:
        warnings: list[tuple[str, ...]] = [()] * len(rows)
        for at in np.flatnonzero(self.model.out_of_domain(rows)).tolist():
            warnings[at] = tuple(self.model.warnings(rows[at].tolist()))
        return warnings

    def ask(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ask the model alone; may be called in another thread.

        Args:
            rows: as for `answer`.

        Returns:
            Probability, low and high, shape (n, 3); NaN where the model gives no interval.

        Raises:
            PredictionFailed: as `answer`.
        """
        try:
            answer = self.model.predict(rows)
            sound = is_sound(answer, len(rows))
        except Exception as error:
            raise self._raised(error) from error
        if not sound:
            raise self._no_probability()
        found = np.full((len(rows), 3), np.nan)
        for at, part in enumerate(answer):
            if part is not None:
                found[:, at] = part
        return found

    def ask_each(self, rows: Sequence[Row]) -> list[Found | PredictionFailed]:
        """Ask the model of kicks that came in together: what fails for one hurts only that one.

        May be called in another thread.
        """
        if self._answer_one is not None and len(rows) <= _FEW:
            return [self._ask_one(self._answer_one, row) for row in rows]
        try:
            found = self.ask(matrix_of(rows)).tolist()
        except PredictionFailed as error:
            return [error] if len(rows) == 1 else [self.ask_each([row])[0] for row in rows]
        return list(map(tuple, found))

    def _ask_one(self, answer_one: Callable[[Row], Found], row: Row) -> Found | PredictionFailed:
        try:
            probability, low, high = found = answer_one(row)
            if type(probability) is type(low) is type(high) is float and 0 <= low <= probability <= high <= 1:
                return found
            found = float(probability), float(low), float(high)  # numpy's own can't be encoded
        except Exception as error:  # noqa: BLE001  the model may be anybody's code
            return self._raised(error)
        return found if _are_probabilities(*found) else self._no_probability()

    def record_each(
        self, asked: Sequence[tuple[Row, float]], found: Sequence[Found]
    ) -> tuple[list[Prediction], RecordBatch]:
        """Make answers and record of kicks that came in together.

        Args:
            asked: each kick, and when it came in by `time.perf_counter`.
            found: what the model says of each.
        """
        ids = self._ids.take(len(asked))
        now, name, warnings = time.perf_counter(), self.model.card.name, self.model.warnings
        predictions, numbers = [], []
        for record_id, (row, since), each in zip(ids.texts(), asked, found, strict=True):
            numbers.append(_pack(*row, *each, (now - since) * 1000))
            predictions.append(_prediction(record_id, name, each, tuple(warnings(row))))
        return predictions, self._batch(ids, b"".join(numbers))

    def record(self, rows: NDArray[np.float64], found: NDArray[np.float64], seconds: float) -> RecordBatch:
        """Make the record of kicks that were asked for together.

        Args:
            rows: as for `answer`.
            found: as `ask` returns it.
            seconds: how long that took; each kick bears its share.
        """
        numbers = np.empty((len(rows), WIDTH), NUMBER)
        numbers[:, :COUNT] = rows
        numbers[:, COUNT:-1] = found
        numbers[:, -1] = seconds * 1000 / max(len(rows), 1)
        return self._batch(self._ids.take(len(rows)), numbers.tobytes())

    def failures(self, rows: NDArray[np.float64], error: PredictionFailed) -> RecordBatch:
        """Make the record of kicks that the model could not answer."""
        batch = self.record(rows, np.full((len(rows), 3), np.nan), 0.0)
        return replace(batch, status_code=error.status, error=str(error))

    def _batch(self, ids: Ids, numbers: bytes) -> RecordBatch:
        card, sampler = self.model.card, self._sampler
        return RecordBatch(
            ids.millisecond,
            ids.counter,
            ids.tail,
            card.name,
            card.revision,
            sampler.cpu_percent,
            sampler.memory_mb,
            numbers,
        )

    def _raised(self, error: Exception) -> PredictionFailed:
        _log.error("the model %s failed", self.model.card.name, exc_info=error)
        return PredictionFailed(f"the model raised {type(error).__name__}: see the service's log")

    def _no_probability(self) -> PredictionFailed:
        _log.error("the model %s returned something that is no probability", self.model.card.name)
        return PredictionFailed("the model returned something that is no probability")


def _are_probabilities(probability: float, low: float, high: float) -> bool:
    without = math.isnan(low) and math.isnan(high)
    return 0 <= probability <= 1 and (without or (0 <= low <= 1 and 0 <= high <= 1))


def _prediction(record_id: str, model: str, found: Sequence[float], warnings: tuple[str, ...]) -> Prediction:
    probability, low, high = found
    other = 1 - probability
    return Prediction(
        id=record_id,
        prediction=probability,
        confidence=probability if probability > other else other,  # noqa: FURB136  max() costs five times as much
        interval=None if low != low else (low, high),  # noqa: PLR0124  the quick way to ask for NaN
        model=model,
        warnings=warnings,
    )
