"""Answers kicks, and has each answer kept before it leaves. Every way in leads here."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from msgspec.structs import astuple

from kickserve.batching import Batcher
from kickserve.errors import Backlogged, KickserveError, PredictionFailed
from kickserve.model import TYPICAL
from kickserve.schemas import Prediction, matrix, matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.record import RecordBatch
    from kickserve.schemas import Kick
    from kickserve.scorer import Found, Row, Scorer

    Asked = tuple[Row, float]  # a kick that waits for its answer, and since when (`time.perf_counter`)
    Kept = asyncio.Future[Backlogged | None]
    Keep = Callable[[Sequence[RecordBatch]], Kept]
    Settle = Callable[[Sequence[Prediction | KickserveError]], None]

Kicks = TypeVar("Kicks", "Sequence[Kick]", "NDArray[np.float64]")

CHUNK: Final = 2_000  # kicks of a batch that are answered before others get their turn on the event loop
_SLOW: Final = 0.001  # seconds for one kick, from which a model is asked in a thread
_TURN: Final = 0.005  # seconds that a model in the event loop may take for a part of a batch
_MANY: Final = 64  # kicks from which is told what each more costs
_TRIES: Final = 3


class Predictor:
    """Answers kicks and has the answers kept.

    Kicks that come in together are put to the model together (`microbatch`), and have one record together
    (`record_batch`).

    Args:
        scorer: asks the model.
        keep: takes records before the answers leave, all or none; its future tells why it could not, or None.
        batch_max: kicks that are put to the model together, at most.
    """

    def __init__(self, scorer: Scorer, keep: Keep, *, batch_max: int) -> None:
        self._scorer = scorer
        self._keep = keep
        slow = _seconds(scorer.model, 1) > _SLOW
        self._thread = ThreadPoolExecutor(1, "model") if slow else None
        self._chunk = CHUNK if slow else _chunk_of(scorer.model)
        self._batcher = Batcher(self._find, self._conclude, most=batch_max, executor=self._thread)
        self._under_way = 0  # calls that ask in several steps
        self._retired = False

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self._scorer.model

    def retire(self) -> None:
        """Ask no more after this: what is under way is still answered."""
        self._retired = True
        self._let_go()

    def _let_go(self) -> None:
        if self._retired and not self._under_way:
            self._batcher.retire()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Keep the thread for a call that asks more than once, should the model be changed meanwhile."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._let_go()

    def ask(self, kick: Kick) -> asyncio.Future[Prediction | KickserveError]:
        """Have one kick answered.

        Returns:
            Brings the answer, once it is kept; or PredictionFailed, where the model could not (the attempt is
            kept all the same); or Backlogged, where the answer could not be kept.
        """
        return self._batcher.put((astuple(kick), time.perf_counter()))

    def close(self) -> None:
        """Let go of the thread; whoever asks a slow model from now on gets an error."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def predict_batch(self, kicks: Sequence[Kick]) -> list[Prediction]:
        """Answer many kicks, in their order.

        Raises:
            PredictionFailed: the model could not. The attempt is kept all the same: that at the part of the
                kicks where it failed, and no answer to the others.
            Backlogged: the answers could not be kept, so none was given.
        """
        predictions: list[Prediction] = []
        for batch in await self._answer(map(matrix, _parts(kicks, self._chunk))):
            predictions += self._scorer.predictions(batch)
            await asyncio.sleep(0)
        return predictions

    async def predict_matrix(self, rows: NDArray[np.float64]) -> list[RecordBatch]:
        """Answer many kicks that are numbers already, without an object for each.

        Args:
            rows: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Returns:
            Their records: n kicks altogether, in their order.

        Raises:
            PredictionFailed: as `predict_batch`, and so is Backlogged.
        """
        return await self._answer(_parts(rows, self._chunk))

    async def predict_each(self, kicks: Sequence[Kick]) -> list[Prediction | KickserveError]:
        """Answer kicks as `ask` does, in their order: what fails for one hurts no other.

        Args:
            kicks: few enough to be answered in one turn of the event loop.
        """
        if not kicks:
            return []
        started = time.perf_counter()
        rows = matrix(kicks)
        with self._asking():
            try:
                found = await self._ask_aside(rows)
            except PredictionFailed:
                return await asyncio.gather(*map(self.ask, kicks))
        batch = self._scorer.record(rows, found, time.perf_counter() - started)
        refusal = await self._keep([batch])
        return [*self._scorer.predictions(batch)] if refusal is None else [refusal] * len(kicks)

    async def look(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ask the model without a record, for what nobody is told as the prediction of a kick.

        Args:
            rows: kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

        Returns:
            Probability, low and high, shape (n, 3); NaN where the model gives no interval.

        Raises:
            PredictionFailed: the model could not.
        """
        found = []
        with self._asking():
            for part in _parts(rows, self._chunk):
                found.append(await self._ask_aside(part))
                await asyncio.sleep(0)
        return np.concatenate(found)

    async def _answer(self, parts: Iterable[NDArray[np.float64]]) -> list[RecordBatch]:
        """Answer kicks part by part, and keep all of the answers or none: who is refused may ask again."""
        found = []
        with self._asking():
            for rows in parts:
                found.append(await self._ask_part(rows))
                await asyncio.sleep(0)
        # Not before all are answered: an id tells when its prediction was kept.
        batches = [self._scorer.record(*each) for each in found]
        refusal = await self._keep(batches)
        if refusal is not None:
            raise refusal
        return batches

    async def _ask_part(
        self, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Return kicks, what the model says of them, and the seconds that it took."""
        started = time.perf_counter()
        try:
            found = await self._ask_aside(rows)
        except PredictionFailed as error:
            await self._keep([self._scorer.failures(rows, error)])
            raise
        return rows, found, time.perf_counter() - started

    async def _ask_aside(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._thread is None:
            return self._scorer.ask(rows)
        # In this context, so that what is logged or profiled there is known to be this request's.
        ask = partial(copy_context().run, self._scorer.ask, rows)
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)

    # The micro-batcher calls what follows: the first perhaps in a thread.

    def _find(self, asked: Sequence[Asked]) -> list[Found | PredictionFailed]:
        return self._scorer.ask_each([row for row, _ in asked])

    def _conclude(
        self, asked: Sequence[Asked], found: Sequence[Found | PredictionFailed], settle: Settle
    ) -> None:
        """Make the answers, have them kept, and only then give them."""
        good = [each for each in found if not isinstance(each, PredictionFailed)]
        if len(good) < len(found):
            failed = self._keep_failures(asked, found)
            settle = _between(found, settle)
            if not good:
                _give_when(failed, [], settle)
                return
            pairs = zip(asked, found, strict=True)
            asked = [kick for kick, each in pairs if not isinstance(each, PredictionFailed)]
        predictions, batch = self._scorer.record_each(asked, good)
        _give_when(self._keep([batch]), predictions, settle)

    def _keep_failures(self, asked: Sequence[Asked], found: Sequence[Found | PredictionFailed]) -> Kept:
        """Keep the attempts that failed."""
        return self._keep(
            [
                self._scorer.failures(matrix_of([row]), each)
                for (row, _), each in zip(asked, found, strict=True)
                if isinstance(each, PredictionFailed)
            ]
        )


def _parts(kicks: Kicks, size: int) -> Iterator[Kicks]:
    """Yield kicks in parts of so many, in their order."""
    return (kicks[start : start + size] for start in range(0, len(kicks), size))


def _give_when(kept: Kept, predictions: Sequence[Prediction], settle: Settle) -> None:
    """Give answers when they are kept, or why they are not."""

    def give(kept: Kept) -> None:
        refusal = kept.result()
        settle(predictions if refusal is None else [refusal] * len(predictions))

    if kept.done():
        give(kept)
    else:
        kept.add_done_callback(give)


def _between(found: Sequence[Found | PredictionFailed], settle: Settle) -> Settle:
    """Return what takes the answers to the others, and puts the failures between them."""

    def settle_all(answers: Sequence[Prediction | KickserveError]) -> None:
        others = iter(answers)
        settle([each if isinstance(each, PredictionFailed) else next(others) for each in found])

    return settle_all


def _chunk_of(model: Model) -> int:
    """Say how many kicks a model answers in one turn of the event loop: a few, where each costs much."""
    more = (_seconds(model, _MANY) - _seconds(model, 1)) / (_MANY - 1)
    return CHUNK if more <= _TURN / CHUNK else max(1, int(_TURN / more))


def _seconds(model: Model, kicks: int) -> float:
    """Try how long the model takes, at its quickest; one that fails says so when it is asked for a kick."""
    rows = np.repeat(TYPICAL, kicks, axis=0)
    took = []
    try:
        # The first time may cost more than those that follow; and another process may come between.
        for _ in range(_TRIES):
            started = time.perf_counter()
            model.predict(rows)
            took.append(time.perf_counter() - started)
    except Exception:  # noqa: BLE001  the model may be anybody's code
        return 0.0
    return min(took)
