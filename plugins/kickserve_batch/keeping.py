"""Predictions that are kept: by this process in the store, or by a running service."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from kickserve.features import named
from kickserve.plugins import SetOutcome, instant
from kickserve.schemas import OutcomeOf
from kickserve_data.kicks import Block
from kickserve_data.scoring import ScoredBlock, Scores
from kickserve_data.simulate import blocks as simulated_blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from kickserve.plugins import Scorer, Store
    from kickserve.schemas import Prediction
    from kickserve_client.client import AsyncClient

CHUNK: Final = 1_000
"""Kicks a request or transaction."""
_IN_FLIGHT: Final = 4  # chunks under way at once


class Pace:
    """Holds work back to a rate.

    Args:
        rate: how much a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = time.monotonic()

    async def wait(self, count: int) -> None:
        """Return when `count` more may be done."""
        await asyncio.sleep(max(self._next - time.monotonic(), 0.0))
        # From now, not from when it was due: a pause is not made up for.
        self._next = max(self._next, time.monotonic()) + count / self._rate


class Keeper(Protocol):
    """Predicts blocks of kicks, and keeps the predictions."""

    async def predict(self, block: Block) -> Sequence[Prediction]:
        """Predict the kicks of a block, in their order; a known outcome is kept with its prediction."""
        ...


class StoreKeeper:
    """Predicts in this process, and keeps the predictions in the store.

    Args:
        scorer: asks the model.
        store: open.
    """

    def __init__(self, scorer: Scorer, store: Store) -> None:
        self._scorer = scorer
        self._store = store

    async def predict(self, block: Block) -> list[Prediction]:
        """See `Keeper.predict`."""
        batch = self._scorer.answer(block.matrix)
        await self._store.add([batch])
        if block.outcome is not None:
            at, pairs = (
                instant(batch.millisecond),
                zip(batch.ids.texts(), block.outcome.tolist(), strict=True),
            )
            await self._store.set_outcomes(
                [SetOutcome(each, outcome == 1, at) for each, outcome in pairs if outcome in {0, 1}]
            )
        return self._scorer.predictions(batch)


class ServiceKeeper:
    """Predicts through a running service, which keeps the predictions."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def predict(self, block: Block) -> list[Prediction]:
        """See `Keeper.predict`."""
        predictions = await self._client.predict_batch(map(named, block.matrix.tolist()))
        if block.outcome is not None:
            pairs = zip(predictions, block.outcome.tolist(), strict=True)
            known = [
                OutcomeOf(id=each.id, success=outcome == 1) for each, outcome in pairs if outcome in {0, 1}
            ]
            if known:
                await self._client.tell_outcomes(known)
        return predictions


async def score_and_keep(
    blocks: Iterable[Block], keeper: Keeper, pace: Pace | None = None
) -> AsyncIterator[ScoredBlock]:
    """Score blocks and keep the predictions, some blocks at once, and yield them in their order.

    Args:
        blocks: of kicks.
        keeper: predicts and keeps.
        pace: holds blocks back; None for full speed.
    """
    waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]] = deque()
    try:
        for block in blocks:
            if pace is not None:
                await pace.wait(len(block.lines))
            waiting.append((block, asyncio.ensure_future(_predict(keeper, block))))
            if len(waiting) >= _IN_FLIGHT:
                yield await _first_of(waiting)
            await asyncio.sleep(0)
        while waiting:
            yield await _first_of(waiting)
    finally:
        for _, task in waiting:
            task.cancel()


def simulated(size: int, seed: int, min_distance: float, *, chunk: int = CHUNK) -> Iterator[Block]:
    """Simulate `size` kicks in blocks, all from `min_distance` metres or more."""
    line = 1
    for kicks in simulated_blocks(size, seed, min_distance=min_distance or None):
        for start in range(0, len(kicks), chunk):
            part = kicks.take(slice(start, start + chunk))
            lines = np.arange(line, line + len(part))
            yield Block(lines, part.matrix, part.success.astype(np.float64), [])
            line += len(part)


async def _predict(keeper: Keeper, block: Block) -> Sequence[Prediction]:
    return await keeper.predict(block) if len(block.matrix) else []


async def _first_of(waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]]) -> ScoredBlock:
    block, task = waiting.popleft()
    return ScoredBlock(block, _scores_of(await task))


def _scores_of(predictions: Sequence[Prediction]) -> Scores:
    intervals = [each.interval or (None, None) for each in predictions]
    return Scores(
        prediction=np.array([each.prediction for each in predictions], dtype=np.float64),
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        warned=sum(bool(each.warnings) for each in predictions),
        model=[each.model for each in predictions],
        ids=[each.id for each in predictions],
    )
