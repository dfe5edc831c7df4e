"""Predicts many kicks from a file or the simulator: in this process, or through a running service."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from kickserve.features import INDEX, NAMES, named
from kickserve.model import predict
from kickserve.schemas import OutcomeOf
from kickserve_data.kicks import Block, RefusedRow
from kickserve_data.simulate import blocks as blocks_of
from kickserve_scores.quality import EXACT, Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from kickserve.model import Model
    from kickserve.schemas import Prediction
    from kickserve.scorer import Scorer
    from kickserve.store import Store
    from kickserve_client.client import AsyncClient
    from kickserve_data.pacing import Pace

CHUNK: Final = 1_000  # kicks a request or transaction
IN_FLIGHT: Final = 4  # chunks under way at once
BLOCK: Final = 65_536
"""Kicks at a time, where they stay columns of numbers and nothing is kept."""
COLUMNS: Final = ("line", *NAMES, "success", "prediction", "confidence", "low", "high", "model", "revision")
"""What is written of each kick."""

ROWS_REFUSED: Final = 3  # the exit code of a command that did its work, but had to refuse rows
REFUSALS_KEPT: Final = 1_000


class Answers(NamedTuple):
    """What n kicks of a block were answered with, in their order.

    Attributes:
        prediction: shape (n,), the probabilities.
        low: shape (n,), lower ends of the 95 % intervals; None where the model gives none.
        high: shape (n,), upper ends, or None.
        warned: how many of the kicks are unlike those that the model knows.
        model: name of the model, or the names if they may differ.
        revision: its revision; None where those who answer don't say it.
        ids: under which the answers are kept; None where they are not.
    """

    prediction: NDArray[np.float64]
    low: NDArray[np.float64] | Sequence[float | None] | None
    high: NDArray[np.float64] | Sequence[float | None] | None
    warned: int
    model: str | Sequence[str]
    revision: str | None = None
    ids: Sequence[str] | None = None


class Answered(NamedTuple):
    """A block of kicks and its answers."""

    block: Block
    answers: Answers


class Answerer(Protocol):
    """Answers blocks of kicks, and keeps the answers."""

    async def answer(self, block: Block) -> Sequence[Prediction]:
        """Answer the kicks of a block, in their order."""
        ...


class Summary(msgspec.Struct):
    """What a run came to.

    Attributes:
        sent: kicks predicted.
        kept: whether the answers are kept, in the store or by the service.
        refused: lines that hold no kick that can be predicted.
        skipped: kicks left out by a filter.
        refusals: the first thousand of the refused, with their reasons.
        mean_prediction: mean probability, or null where nothing was sent.
        warned: kicks unlike those that the model knows.
        seconds: how long it took.
        rate: kicks a second.
        quality: how good the probabilities were, where outcomes are known; see `RunningQuality`.
        not_carried: columns of the input that the output lacks, as a column of ours has their name.
    """

    sent: int = 0
    kept: bool = True
    refused: int = 0
    skipped: int = 0
    refusals: list[RefusedRow] = []
    mean_prediction: float | None = None
    warned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    quality: Quality | None = None
    not_carried: list[str] = []


class Share(msgspec.Struct, frozen=True):
    """What a part of a run came to, in a form for a file or another process.

    Attributes:
        sent: kicks predicted.
        refused: lines that hold no kick.
        skipped: kicks left out by a filter.
        refusals: the first of the refused.
        warned: kicks unlike those that the model knows.
        total: sum of the predictions.
        quality: as `RunningQuality.to_bytes` writes it.
    """

    sent: int
    refused: int
    skipped: int
    refusals: list[RefusedRow]
    warned: int
    total: float
    quality: bytes


class Tally:
    """Adds up a run while it goes on, in memory that does not grow with it.

    Args:
        rows: of the input, where that is known: of more than a million, the quality is counted in cells.
        keep: how many refusals it keeps.
    """

    def __init__(self, rows: int | None = None, keep: int = REFUSALS_KEPT) -> None:
        self._summary = Summary()
        self._keep = keep
        self._started = time.perf_counter()
        self._total = 0.0  # of the predictions
        self._quality = RunningQuality(EXACT if rows is None or rows <= EXACT else 0)

    def skip(self, count: int) -> None:
        """Count kicks that were left out."""
        self._summary.skipped += count

    def refuse(self, refusals: Sequence[RefusedRow], count: int | None = None) -> None:
        """Count lines that were refused; `count` of them, where not all are given."""
        room = self._keep - len(self._summary.refusals)
        self._summary.refused += len(refusals) if count is None else count
        self._summary.refusals += refusals[:room]

    def add(self, answered: Answered) -> None:
        """Count a block that was answered."""
        block, answers = answered
        self.refuse(block.refusals)
        self._summary.sent += len(block.lines)
        self._summary.warned += answers.warned
        self._total += float(answers.prediction.sum())
        if block.outcome is not None:
            known = ~np.isnan(block.outcome)
            which = slice(None) if known.all() else known
            self._quality.add(answers.prediction[which], block.outcome[which])

    def share(self) -> Share:
        """Return what it has added up, for another one to take."""
        summary = self._summary
        return Share(
            sent=summary.sent,
            refused=summary.refused,
            skipped=summary.skipped,
            refusals=summary.refusals,
            warned=summary.warned,
            total=self._total,
            quality=self._quality.to_bytes(),
        )

    def take(self, share: Share) -> None:
        """Add what another one has added up."""
        self.skip(share.skipped)
        self.refuse(share.refusals, share.refused)
        self._summary.sent += share.sent
        self._summary.warned += share.warned
        self._total += share.total
        self._quality.merge(RunningQuality.from_bytes(share.quality))

    def summary(self, *, kept: bool = True, not_carried: Sequence[str] = ()) -> Summary:
        """Return what the run came to; the arguments are as there."""
        summary = self._summary
        summary.kept, summary.not_carried = kept, list(not_carried)
        summary.seconds = round(time.perf_counter() - self._started, 3)
        summary.rate = round(summary.sent / max(summary.seconds, 0.001), 1)
        summary.mean_prediction = self._total / summary.sent if summary.sent else None
        summary.quality = self._quality.result()
        return summary


class Local:
    """Answers in this process, and keeps the answers in the store.

    Args:
        scorer: answers.
        store: open.
    """

    def __init__(self, scorer: Scorer, store: Store) -> None:
        self._scorer = scorer
        self._store = store

    async def answer(self, block: Block) -> list[Prediction]:
        """Answer the kicks of a block; a known outcome is kept with its prediction at once."""
        batch = self._scorer.answer(block.matrix)
        records = batch.records()
        if block.outcome is not None:
            for record, outcome in zip(records, block.outcome.tolist(), strict=True):
                if outcome in {0.0, 1.0}:
                    record.outcome, record.outcome_at = outcome == 1.0, record.created_at
        await self._store.add(records)
        return self._scorer.predictions(batch)


class Remote:
    """Answers through a running service, which keeps the answers."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def answer(self, block: Block) -> list[Prediction]:
        """Send the kicks of a block, then the outcomes that are known."""
        predictions = await self._client.predict_batch(map(named, block.matrix.tolist()))
        if block.outcome is not None:
            pairs = zip(predictions, block.outcome.tolist(), strict=True)
            known = [
                OutcomeOf(id=each.id, success=outcome == 1) for each, outcome in pairs if outcome in {0, 1}
            ]
            if known:
                await self._client.tell_outcomes(known)
        return predictions


async def run(
    blocks: Iterable[Block], answerer: Answerer, pace: Pace | None = None
) -> AsyncIterator[Answered]:
    """Answer blocks and have the answers kept, some at once, and yield them in their order.

    Args:
        blocks: of kicks.
        answerer: answers them.
        pace: holds blocks back; None for as fast as it goes.
    """
    waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]] = deque()
    try:
        for block in blocks:
            if pace is not None:
                await pace.wait(len(block.lines))
            waiting.append((block, asyncio.ensure_future(_answer(answerer, block))))
            if len(waiting) >= IN_FLIGHT:
                yield await _finish(waiting)
            await asyncio.sleep(0)
        while waiting:
            yield await _finish(waiting)
    finally:
        for _, task in waiting:
            task.cancel()


def run_direct(blocks: Iterable[Block], model: Model) -> Iterator[Answered]:
    """Answer blocks in this process, column by column, and keep nothing.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    for block in blocks:
        if not len(block.lines):
            yield Answered(block, _answers([]))
            continue
        probability, low, high = predict(model, block.matrix)
        warned = int(np.count_nonzero(model.out_of_domain(block.matrix)))
        yield Answered(block, Answers(probability, low, high, warned, model.card.name, model.card.revision))


def table_of(answered: Answered) -> dict[str, Any]:
    """Return kicks and answers as columns, by the names of `COLUMNS`, and `id`."""
    block, answers = answered
    return {
        "line": block.lines,
        **dict(zip(NAMES, block.matrix.T, strict=True)),
        "success": block.outcome,
        "prediction": answers.prediction,
        "confidence": np.maximum(answers.prediction, 1 - answers.prediction),
        "low": answers.low,
        "high": answers.high,
        "model": answers.model,
        "revision": answers.revision,
        "id": answers.ids,
    }


def simulated(size: int, seed: int, min_distance: float, *, chunk: int = CHUNK) -> Iterator[Block]:
    """Simulate kicks in blocks; all from `min_distance` metres or more, and `size` of them."""
    line = 1
    for kicks in blocks_of(size, seed, min_distance=min_distance or None):
        for start in range(0, len(kicks), chunk):
            part = kicks.take(slice(start, start + chunk))
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
        yield block if far.all() else block.where(far)


async def _answer(answerer: Answerer, block: Block) -> Sequence[Prediction]:
    return await answerer.answer(block) if len(block.matrix) else []


async def _finish(waiting: deque[tuple[Block, asyncio.Task[Sequence[Prediction]]]]) -> Answered:
    block, task = waiting.popleft()
    return Answered(block, _answers(await task))


def _answers(predictions: Sequence[Prediction]) -> Answers:
    intervals = [each.interval or (None, None) for each in predictions]
    return Answers(
        prediction=np.array([each.prediction for each in predictions], dtype=np.float64),
        low=[low for low, _ in intervals],
        high=[high for _, high in intervals],
        warned=sum(bool(each.warnings) for each in predictions),
        model=[each.model for each in predictions],
        ids=[each.id for each in predictions],
    )
