"""The live figures: counts what is predicted, second by second, and says how far it has drifted."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.errors import KickserveError, StoreError
from kickserve.features import COUNT, NAMES
from kickserve.plugins import Metric
from kickserve.record import NUMBER, WIDTH
from kickserve_drift.board import Board
from kickserve_drift.drift import LEAST, Limits, reference_of, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.record import RecordBatch
    from kickserve.schemas import DriftSummary, Record
    from kickserve.service import Service
    from kickserve.store import Store
    from kickserve_drift.drift_bins import Reference

EVERY: Final = 1.0  # seconds between countings
_MANY: Final = 1_000_000  # bytes that are counted at once: 8,000 kicks, in less than a millisecond
_MOST: Final = 50_000_000  # bytes that may wait while it takes long to learn what a model knows

_log = logging.getLogger(__name__)


class Live:
    """The newest kicks, held against those that the model knows.

    Args:
        window: newest kicks that the figures are of.

    Attributes:
        board: the counts of all workers.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self.board = Board(1, window)
        self._waiting: list[bytes] = []
        self._size = 0
        self._first = 0.0
        self._due = asyncio.Event()
        self._model: Model | None = None
        self._reference: Reference | None = None
        self._tag = 0

    def share(self, workers: int) -> None:
        """Make the memory that so many workers share; see `kickserve.store.SharesMemory`."""
        self.board = Board(workers, self._window)

    def watch(self, batch: RecordBatch) -> None:
        """Note predictions: 0.1 µs. They are counted later."""
        if not self._waiting:
            self._first = batch.millisecond / 1000
        self._waiting.append(batch.numbers)
        self._size += len(batch.numbers)
        if self._size >= _MANY:
            self._hurry()

    async def begin(self, service: Service) -> None:
        """Learn what kicks the model knows, and take up the newest ones that are kept."""
        started = datetime.now(UTC)
        await self._learn(service.predictor.model)
        if self._reference is not None and self.board.number == 0 and self.board.read(self._tag) is None:
            await self._take_up(service.store, self._reference, started)

    async def step(self, service: Service) -> None:
        """Count what waits, after a second, or as soon as it is much."""
        try:
            async with asyncio.timeout(EVERY):
                await self._due.wait()
        except TimeoutError:
            pass
        if service.predictor.model is not self._model:
            await self._learn(service.predictor.model)
        self._count()

    def summary(self, limits: Limits) -> DriftSummary | None:
        """Say how far the newest kicks have drifted, over all workers; None as long as there are too few.

        Args:
            limits: from where on something has drifted.
        """
        self._count()
        window = self.board.read(self._tag)
        if self._reference is None or window is None or window.counts.kicks < LEAST:
            return None
        since = datetime.fromtimestamp(window.since, UTC)
        return summarize(self._reference, window.counts, limits, at=datetime.now(UTC), since=since)

    async def _learn(self, model: Model) -> None:
        """Find out what kicks the model knows. What another has answered is not held against it."""
        try:
            reference = await asyncio.to_thread(reference_of, model)
        except KickserveError as error:
            _log.warning("there are no live figures of drift: %s", error)
            reference = None
        if self._model is not None:
            self._take()
        self._model, self._reference = model, reference
        self._tag = 0 if reference is None else _tag(reference)
        if reference is not None and reference.note:
            _log.info("drift: %s", reference.note)

    async def _take_up(self, store: Store, reference: Reference, until: datetime) -> None:
        try:
            records = await store.page(self._window, until=until)
        except StoreError as error:
            _log.info("the figures of drift begin with no kick: %s", error)
            return
        known = [each for each in records if each.model == reference.model and each.prediction is not None]
        if known:
            matrix, prediction = _numbers(known)
            counts = reference.count(matrix, prediction)
            first, last = known[-1].created_at, known[0].created_at
            self.board.add(counts, self._tag, first.timestamp(), last.timestamp())

    def _count(self) -> None:
        if self._model is None:  # nothing is known of it yet: what waits goes on waiting
            return
        first, waiting = self._first, self._take()
        if waiting and self._reference is not None:
            rows = np.frombuffer(b"".join(waiting), NUMBER).reshape(-1, WIDTH)
            counts = self._reference.count(rows[:, :COUNT], rows[:, COUNT])
            self.board.add(counts, self._tag, first, time.time())

    def _take(self) -> list[bytes]:
        waiting, self._waiting, self._size = self._waiting, [], 0
        self._due.clear()
        return waiting

    def _hurry(self) -> None:
        self._due.set()
        if self._size > _MOST:
            self._take()


def figures(summary: DriftSummary) -> Iterator[Metric]:
    """Turn a summary into figures for `/metrics`."""
    for each in [*summary.features, summary.prediction]:
        yield Metric(
            "kickserve_drift_psi",
            "Population stability index of the newest kicks against those that the model knows.",
            each.psi,
            {"feature": each.name},
        )
    yield Metric("kickserve_drift_share", "Drifted features by all features.", summary.share)
    yield Metric("kickserve_drift_drifted", "1 where the kicks have drifted, 0 elsewhere.", summary.drifted)
    yield Metric("kickserve_drift_kicks", "Newest kicks that the figures of drift are of.", summary.kicks)


def _tag(reference: Reference) -> int:
    """Return a number, from 1, that tells references apart: counts by different ones don't add up."""
    tag = 0
    for column in reference.columns:
        tag = zlib.crc32(column.expected.tobytes(), zlib.crc32(column.edges.tobytes(), tag))
    return tag + 1


def _numbers(records: list[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    matrix = np.array([[getattr(each, name) for name in NAMES] for each in records], np.float64)
    return matrix, np.array([each.prediction for each in records], np.float64)
