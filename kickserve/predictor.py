"""Answers kicks, and has each answer kept before it leaves. Every way in leads here."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from msgspec.structs import astuple

from kickserve.errors import Backlogged, KickserveError, PredictionFailed
from kickserve.microbatch import MicroBatcher
from kickserve.models.trial import TYPICAL
from kickserve.schemas import Prediction, matrix, matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.record_batch import RecordBatch
    from kickserve.schemas import Kick
    from kickserve.scorer import Found, Row, Scorer

    Asked = tuple[Row, float]  # a kick that waits for its answer, and since when (`time.perf_counter`)
    Kept = asyncio.Future[Backlogged | None]
    Keep = Callable[[RecordBatch], Kept]
    Settle = Callable[[Sequence[Prediction | KickserveError]], None]

CHUNK: Final = 2_000  # kicks of a batch that are answered before others get their turn on the event loop
_SLOW: Final = 0.001  # seconds for one kick, from which a model is asked in a thread


class Predictor:
    """Answers kicks and has the answers kept.

    Kicks that come in together are put to the model together (`microbatch`), and have one record together
    (`record_batch`).

    Args:
        scorer: asks the model.
        keep: takes the record before the answers leave; its future tells why it could not, or None.
        batch_max: kicks that are put to the model together, at most.
    """

    def __init__(self, scorer: Scorer, keep: Keep, *, batch_max: int) -> None:
        self._scorer = scorer
        self._keep = keep
        slow = _seconds_a_kick(scorer.model) > _SLOW
        self._thread = ThreadPoolExecutor(1, "model") if slow else None
        self._batcher = MicroBatcher(self._find, self._conclude, most=batch_max, executor=self._thread)

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self._scorer.model

    def ask(self, kick: Kick) -> asyncio.Future[Prediction | KickserveError]:
        """Have one kick answered.

        Returns:
            Brings the answer, once it is kept; or PredictionFailed, where the model could not (the attempt is
            kept all the same); or Backlogged, where the answer could not be kept.
        """
        return self._batcher.put((astuple(kick), time.perf_counter()))

    async def predict_batch(self, kicks: Sequence[Kick]) -> list[Prediction]:
        """Answer many kicks, in their order.

        Raises:
            PredictionFailed: the model could not; the attempt is kept all the same.
            Backlogged: the answers could not be kept, so they were not given.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(kicks), CHUNK):
            predictions += await self._predict_chunk(matrix(kicks[start : start + CHUNK]))
            await asyncio.sleep(0)
        return predictions

    async def _predict_chunk(self, rows: NDArray[np.float64]) -> list[Prediction]:
        started = time.perf_counter()
        try:
            found = await self._ask_aside(rows)
        except PredictionFailed as error:
            await self._keep(self._scorer.failures(rows, error))
            raise
        batch = self._scorer.record(rows, found, time.perf_counter() - started)
        refusal = await self._keep(batch)
        if refusal is not None:
            raise refusal
        return self._scorer.predictions(batch)

    async def _ask_aside(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._thread is None:
            return self._scorer.ask(rows)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._scorer.ask, rows)

    # The micro-batcher calls what follows: the first perhaps in a thread.

    def _find(self, asked: Sequence[Asked]) -> list[Found | PredictionFailed]:
        return self._scorer.ask_each([row for row, _ in asked])

    def _conclude(
        self, asked: Sequence[Asked], found: Sequence[Found | PredictionFailed], settle: Settle
    ) -> None:
        """Make the answers, have them kept, and only then give them."""
        good = [each for each in found if not isinstance(each, PredictionFailed)]
        if len(good) < len(found):
            settle = self._with_failures(asked, found, settle)
            asked = [kick for kick, each in zip(asked, found, strict=True) if isinstance(each, tuple)]
        if not asked:
            settle([])
            return
        predictions, batch = self._scorer.record_each(asked, good)
        kept = self._keep(batch)

        def give(kept: Kept) -> None:
            refusal = kept.result()
            settle(predictions if refusal is None else [refusal] * len(predictions))

        if kept.done():
            give(kept)
        else:
            kept.add_done_callback(give)

    def _with_failures(
        self, asked: Sequence[Asked], found: Sequence[Found | PredictionFailed], settle: Settle
    ) -> Settle:
        """Keep the attempts that failed, and return what puts them between the answers to the others."""
        for (row, _), each in zip(asked, found, strict=True):
            if isinstance(each, PredictionFailed):
                self._keep(self._scorer.failures(matrix_of([row]), each))

        def settle_all(answers: Sequence[Prediction | KickserveError]) -> None:
            others = iter(answers)
            settle([each if isinstance(each, PredictionFailed) else next(others) for each in found])

        return settle_all


def _seconds_a_kick(model: Model) -> float:
    """Try how long the model takes; one that fails says so when it is asked for a kick."""
    try:
        model.predict(TYPICAL)  # the first time may cost more than those that follow
        started = time.perf_counter()
        model.predict(TYPICAL)
    except Exception:  # noqa: BLE001  the model may be anybody's code
        return 0.0
    return time.perf_counter() - started
