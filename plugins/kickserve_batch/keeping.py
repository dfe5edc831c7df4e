"""Predictions that are kept: by this process in the store, or by a running service."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.errors import RemoteError
from kickserve.features import named
from kickserve.plugins import SetOutcome, instant, say
from kickserve.schemas import Kick, OutcomeOf
from kickserve_data.kicks import Block
from kickserve_data.scoring import NO_SCORES, ScoredBlock, Scores
from kickserve_data.simulate import blocks as simulated_blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from kickserve.plugins import Scorer, Store
    from kickserve.schemas import Prediction
    from kickserve_client.client import AsyncClient

Keep = Callable[[Block], Awaitable[Scores]]
"""Predicts the kicks of a block, from 1, and keeps the predictions and the outcomes that are known."""

CHUNK: Final = 1_000
"""Kicks a request or transaction."""
_IN_FLIGHT: Final = 4  # chunks under way at once


def keep_in_store(scorer: Scorer, store: Store) -> Keep:
    """Predict in this process, and keep the predictions in an open store."""

    async def keep(block: Block) -> Scores:
        batch = scorer.answer(block.matrix, block.kickers, "batch")
        await store.add([batch])
        made = instant(batch.millisecond)
        outcomes = _known(block, batch.ids.texts())
        await store.set_outcomes([SetOutcome(each, success, made) for each, success in outcomes])
        return _scores_of(scorer.predictions(batch), batch.revision)

    return keep


def keep_by_service(client: AsyncClient) -> Keep:
    """Predict through a running service, which keeps the predictions."""
    labelled = True  # until the service says that it is older than labels

    async def predict(block: Block) -> list[Prediction]:
        nonlocal labelled
        rows = [*map(named, block.matrix.tolist())]
        if labelled:
            kickers = block.kickers or [None] * len(rows)
            kicks = [
                Kick(**row, kicker=kicker, source="batch") for row, kicker in zip(rows, kickers, strict=True)
            ]
            try:
                return await client.predict_batch(kicks)
            except RemoteError as error:
                if not any(fault.field == "source" for fault in error.errors):
                    raise
                if labelled:
                    say("the service is an older kickserve: it keeps no labels of kickers")
                labelled = False
        return await client.predict_batch(rows)

    async def keep(block: Block) -> Scores:
        before = await client.model()
        predictions = await predict(block)
        outcomes = _known(block, [each.id for each in predictions])
        if outcomes:
            await client.tell_outcomes([OutcomeOf(id=each, success=success) for each, success in outcomes])
        after = await client.model()  # an answer has no revision, and a model can be replaced meanwhile
        return _scores_of(predictions, before.revision if before.revision == after.revision else None)

    return keep


async def score_and_keep(
    blocks: Iterable[Block], keep: Keep, rate: float | None
) -> AsyncIterator[ScoredBlock]:
    """Score blocks and keep the predictions, some blocks at once, and yield them in their order.

    Args:
        blocks: of kicks.
        keep: predicts and keeps.
        rate: kicks a second at most; None for full speed.
    """
    waiting: deque[tuple[Block, asyncio.Task[Scores]]] = deque()
    due = time.monotonic()

    async def scores_of(block: Block) -> Scores:
        return await keep(block) if len(block.lines) else NO_SCORES

    try:
        for block in blocks:
            if rate is not None:
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                # From now, not from when it was due: a pause is not made up for.
                due = max(due, time.monotonic()) + len(block.lines) / rate
            waiting.append((block, asyncio.ensure_future(scores_of(block))))
            await asyncio.sleep(0)
            if len(waiting) >= _IN_FLIGHT:
                first, task = waiting.popleft()
                yield ScoredBlock(first, await task)
        for block, task in waiting:
            yield ScoredBlock(block, await task)
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


def _known(block: Block, ids: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the known outcomes of a block, by the ids of its predictions."""
    if block.outcome is None:
        return []
    pairs = zip(ids, block.outcome.tolist(), strict=True)
    return [(each, outcome == 1) for each, outcome in pairs if outcome in {0, 1}]


def _scores_of(predictions: Sequence[Prediction], revision: str | None) -> Scores:
    intervals = [each.interval or (None, None) for each in predictions]
    return Scores(
        prediction=np.array([each.prediction for each in predictions], dtype=np.float64),
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        warned=sum(bool(each.warnings) for each in predictions),
        model=[each.model for each in predictions],
        revision=revision,
        ids=[each.id for each in predictions],
    )
