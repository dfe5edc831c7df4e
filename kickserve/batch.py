"""Predicts many kicks from a file or the simulator: in this process, or through a running service."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from kickserve.features import INDEX, named
from kickserve.kick_rows import Block, Refusal
from kickserve.quality import Quality, assess
from kickserve.schemas import OutcomeOf, Prediction
from kickserve.simulate import blocks as blocks_of
from kickserve.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from kickserve.ports import Store
    from kickserve.predictor import Predictor
    from kickserve.remote import Client

CHUNK: Final = 1_000  # kicks a request or transaction
IN_FLIGHT: Final = 4  # chunks under way at once
ROWS_REFUSED: Final = 3  # the exit code of a command that did its work, but had to refuse rows
REFUSALS_KEPT: Final = 1_000

_decode = msgspec.json.Decoder(list[Prediction]).decode


class Answered(NamedTuple):
    """A block of kicks and its answers, which are in the order of the kicks."""

    block: Block
    predictions: Sequence[Prediction]


class Answerer(Protocol):
    """Answers blocks of kicks, and keeps the answers."""

    async def answer(self, block: Block) -> Sequence[Prediction]:
        """Answer the kicks of a block, in their order."""
        ...


class Summary(msgspec.Struct):
    """What a run came to.

    Attributes:
        sent: kicks predicted and kept.
        refused: lines that hold no kick that can be predicted.
        skipped: kicks left out by a filter.
        refusals: the first thousand of the refused, with their reasons.
        mean_prediction: mean probability, or null where nothing was sent.
        warned: kicks unlike those that the model knows.
        seconds: how long it took.
        rate: kicks a second.
        quality: how good the probabilities were, where outcomes are known.
    """

    sent: int = 0
    refused: int = 0
    skipped: int = 0
    refusals: list[Refusal] = []
    mean_prediction: float | None = None
    warned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    quality: Quality | None = None


class Tally:
    """Adds up a run while it goes on."""

    def __init__(self) -> None:
        self._summary = Summary()
        self._started = time.perf_counter()
        self._predictions: list[NDArray[np.float64]] = []
        self._outcomes: list[NDArray[np.float64]] = []

    def skip(self, count: int) -> None:
        """Count kicks that were left out."""
        self._summary.skipped += count

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Count lines that were refused."""
        room = REFUSALS_KEPT - len(self._summary.refusals)
        self._summary.refused += len(refusals)
        self._summary.refusals += refusals[:room]

    def add(self, answered: Answered) -> None:
        """Count a block that was answered."""
        block, predictions = answered
        self._summary.sent += len(predictions)
        self._summary.warned += sum(bool(each.warnings) for each in predictions)
        self._predictions.append(np.array([each.prediction for each in predictions]))
        unknown = np.full(len(predictions), np.nan)
        self._outcomes.append(unknown if block.outcome is None else block.outcome)

    def summary(self) -> Summary:
        """Return what the run came to."""
        summary = self._summary
        summary.seconds = round(time.perf_counter() - self._started, 3)
        summary.rate = round(summary.sent / max(summary.seconds, 0.001), 1)
        if summary.sent:
            predictions, outcomes = np.concatenate(self._predictions), np.concatenate(self._outcomes)
            known = ~np.isnan(outcomes)
            summary.mean_prediction = float(predictions.mean())
            summary.quality = assess(predictions[known], outcomes[known]) if known.any() else None
        return summary


class Local:
    """Answers in this process, and keeps the answers in the store.

    Args:
        predictor: answers.
        store: open.
    """

    def __init__(self, predictor: Predictor, store: Store) -> None:
        self._predictor = predictor
        self._store = store

    async def answer(self, block: Block) -> list[Prediction]:
        """Answer the kicks of a block; a known outcome is kept with its prediction at once."""
        records = self._predictor.answer(block.matrix)
        if block.outcome is not None:
            for record, outcome in zip(records, block.outcome.tolist(), strict=True):
                if outcome in {0.0, 1.0}:
                    record.outcome, record.outcome_at = outcome == 1.0, record.created_at
        await self._store.add(records)
        return self._predictor.predictions(records, block.matrix)


class Remote:
    """Answers through a running service, which keeps the answers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def answer(self, block: Block) -> list[Prediction]:
        """Send the kicks of a block, then the outcomes that are known."""
        predictions = _decode(
            await self._client.send("POST", "/predict/batch", [named(row) for row in block.matrix.tolist()])
        )
        if block.outcome is not None:
            pairs = zip(predictions, block.outcome.tolist(), strict=True)
            known = [
                OutcomeOf(id=each.id, success=outcome == 1) for each, outcome in pairs if outcome in {0, 1}
            ]
            if known:
                await self._client.send("PUT", "/predictions/outcomes", known)
        return predictions


async def run(
    blocks: Iterable[Block], answerer: Answerer, tally: Tally, done: Callable[[int], None]
) -> AsyncIterator[Answered]:
    """Answer blocks, some at once, and yield them in their order.

    Args:
        blocks: what to answer.
        answerer: who answers.
        tally: is told of all of it.
        done: is told how many lines are dealt with, as they are.
    """
    waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]] = deque()
    try:
        for block in blocks:
            waiting.append((block, asyncio.ensure_future(_answer(answerer, block))))
            if len(waiting) >= IN_FLIGHT:
                yield await _finish(waiting, tally, done)
            await asyncio.sleep(0)
        while waiting:
            yield await _finish(waiting, tally, done)
    finally:
        for _, task in waiting:
            task.cancel()


def simulated(size: int, seed: int, min_distance: float) -> Iterator[Block]:
    """Simulate kicks in blocks; all from `min_distance` metres or more, and `size` of them."""
    drawn = [simulate(size, seed, min_distance=min_distance)] if min_distance else blocks_of(size, seed)
    line = 1
    for kicks in drawn:
        for start in range(0, len(kicks), CHUNK):
            part = kicks.take(slice(start, start + CHUNK))
            yield Block(
                lines=np.arange(line, line + len(part)),
                matrix=part.matrix,
                outcome=part.success.astype(np.float64),
                refusals=[],
            )
            line += len(part)


def only_from(blocks: Iterable[Block], min_distance: float, tally: Tally) -> Iterator[Block]:
    """Leave out the kicks from nearer than this many metres."""
    for block in blocks:
        far = block.matrix[:, INDEX["distance"]] >= min_distance
        tally.skip(int((~far).sum()))
        yield Block(
            lines=block.lines[far],
            matrix=block.matrix[far],
            outcome=None if block.outcome is None else block.outcome[far],
            refusals=block.refusals,
        )


async def _answer(answerer: Answerer, block: Block) -> Sequence[Prediction]:
    return await answerer.answer(block) if len(block.matrix) else []


async def _finish(
    waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]],
    tally: Tally,
    done: Callable[[int], None],
) -> Answered:
    block, task = waiting.popleft()
    answered = Answered(block, await task)
    tally.refuse(block.refusals)
    if answered.predictions:
        tally.add(answered)
    done(len(block.matrix) + len(block.refusals))
    return answered
