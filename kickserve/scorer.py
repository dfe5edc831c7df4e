"""Scores kicks with a model, and makes the records of the scores. To keep them is the recorder's."""

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

    Rows = NDArray[np.float64]

Row = Sequence[float]  # the eleven numbers of a kick; flags may be booleans
Score = tuple[float, float, float]
"""Probability of one kick, and low and high of its interval; NaN for both where the model has none."""
Asked = tuple[Row, float]
"""A kick, and when it came in by `time.perf_counter`."""

_FEW: Final = 8  # kicks up to which a model scores them more quickly one by one than as an array
_pack: Final = Packing(f"<{WIDTH}d").pack

_log = logging.getLogger(__name__)


class Scorer:
    """Scores kicks with one model, and makes their records.

    Args:
        model: the model.
        sampler: of processor and memory, for the records.
        ids: makes the ids; a factory of its own by default.
    """

    def __init__(self, model: Model, sampler: ProcessSampler, ids: IdFactory | None = None) -> None:
        self.model = model
        self._sampler = sampler
        self._ids = ids or IdFactory()
        self._predict_one = model.predict_one if isinstance(model, AnswersOne) else None

    def answer(self, rows: Rows) -> RecordBatch:
        """Score kicks and make their record.

        Args:
            rows: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Raises:
            PredictionFailed: as `score`.
        """
        started = time.perf_counter()
        scores = self.score(rows)
        return self.record(rows, scores, time.perf_counter() - started)

    def score(self, rows: Rows) -> Rows:
        """Score kicks; may be called in another thread.

        Args:
            rows: as for `answer`.

        Returns:
            Probability, low and high, shape (n, 3); NaN for low and high where the model has no interval.

        Raises:
            PredictionFailed: the model raised, or returned something other than probabilities.
        """
        try:
            answer = self.model.predict(rows)
            sound = is_sound(answer, len(rows))
        except Exception as error:
            raise self._raised(error) from error
        if not sound:
            raise self._no_probability()
        scores = np.full((len(rows), 3), np.nan)
        for at, part in enumerate(answer):
            if part is not None:
                scores[:, at] = part
        return scores

    def score_each(self, asked: Sequence[Asked]) -> list[Score | PredictionFailed]:
        """Score kicks that came in together, and fail for each by itself; may be called in another thread."""
        if self._predict_one is not None and len(asked) <= _FEW:
            scores = []
            for row, _ in asked:
                scores.append(self._score_one(self._predict_one, row))
            return scores
        try:
            return [*map(tuple, self.score(matrix_of([row for row, _ in asked])).tolist())]
        except PredictionFailed as error:
            return [error] if len(asked) == 1 else [self.score_each([each])[0] for each in asked]

    def _score_one(self, predict_one: Callable[[Row], Score], row: Row) -> Score | PredictionFailed:
        try:
            probability, low, high = score = predict_one(row)
            if type(probability) is type(low) is type(high) is float and 0 <= low <= probability <= high <= 1:
                return score
            score = float(probability), float(low), float(high)  # numpy's own floats can't be encoded
        except Exception as error:  # noqa: BLE001  a model may be anyone's code
            return self._raised(error)
        return score if _is_probability(*score) else self._no_probability()

    def record_each(
        self, asked: Sequence[Asked], scores: Sequence[Score]
    ) -> tuple[list[Prediction], RecordBatch]:
        """Make answers and record of kicks that came in together.

        Args:
            asked: the kicks.
            scores: of each kick.
        """
        ids = self._ids.take(len(asked))
        now, name, warnings = time.perf_counter(), self.model.card.name, self.model.warnings
        predictions, numbers = [], []
        for record_id, (row, since), score in zip(ids.texts(), asked, scores, strict=True):
            numbers.append(_pack(*row, *score, (now - since) * 1000))
            predictions.append(_prediction(record_id, name, score, tuple(warnings(row))))
        return predictions, self._batch(ids, b"".join(numbers))

    def record(self, rows: Rows, scores: Rows, seconds: float) -> RecordBatch:
        """Make the record of kicks that were scored together.

        Args:
            rows: as for `answer`.
            scores: shape (n, 3), as `score` returns them.
            seconds: that the scoring took; each kick has its share as latency.
        """
        numbers = np.empty((len(rows), WIDTH), NUMBER)
        numbers[:, :COUNT] = rows
        numbers[:, COUNT:-1] = scores
        numbers[:, -1] = seconds * 1000 / max(len(rows), 1)
        return self._batch(self._ids.take(len(rows)), numbers.tobytes())

    def record_failures(self, rows: Rows, error: PredictionFailed) -> RecordBatch:
        """Make the record of kicks that the model could not score."""
        batch = self.record(rows, np.full((len(rows), 3), np.nan), 0.0)
        return replace(batch, status_code=error.status, error=str(error))

    def predictions(self, batch: RecordBatch) -> list[Prediction]:
        """Make the answers that belong to a record, warnings included."""
        numbers = numbers_of([batch])
        warnings: list[tuple[str, ...]] = [()] * len(batch)
        for at in np.flatnonzero(self.model.out_of_domain(numbers[:, :COUNT])).tolist():
            warnings[at] = tuple(self.model.warnings(numbers[at, :COUNT].tolist()))
        parts = zip(batch.ids.texts(), numbers[:, COUNT : COUNT + 3].tolist(), warnings, strict=True)
        return [_prediction(record_id, batch.model, score, warned) for record_id, score, warned in parts]

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
        _log.error("the model %s returned an invalid probability", self.model.card.name)
        return PredictionFailed("the model returned an invalid probability")


def _is_probability(probability: float, low: float, high: float) -> bool:
    no_interval = math.isnan(low) and math.isnan(high)
    return 0 <= probability <= 1 and (no_interval or (0 <= low <= 1 and 0 <= high <= 1))


def _prediction(record_id: str, model: str, score: Sequence[float], warnings: tuple[str, ...]) -> Prediction:
    probability, low, high = score
    other = 1 - probability
    return Prediction(
        id=record_id,
        prediction=probability,
        confidence=probability if probability > other else other,  # noqa: FURB136  max() costs five times as much
        interval=None if low != low else (low, high),  # noqa: PLR0124  the quick test for NaN
        model=model,
        warnings=warnings,
    )
