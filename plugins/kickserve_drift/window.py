"""Live figures of drift: counts the newest predictions of all workers in memory that they share."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import zlib
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.plugins import KickserveError, Metric, StoreError, numbers_of, shared_array
from kickserve_drift.kicks import countable, rows_of
from kickserve_drift.psi import COUNTS, MIN_KICKS, Limits, kicks_in, summarize
from kickserve_drift.reference import reference_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kickserve.plugins import App, Model, RecordBatch, Store
    from kickserve.schemas import DriftSummary
    from kickserve_drift.psi import Reference

SECONDS: Final = 60.0
"""The window holds at least the kicks of the newest minute."""

_SLOTS: Final = 16
_PARTS: Final = 8  # slots that make up the window; a worker has twice as many
_SLOT: Final = np.dtype([("tag", "i8"), ("first", "f8"), ("last", "f8"), ("counts", "f8", COUNTS)])
_COUNT_AT: Final = 1_000_000  # waiting bytes that are counted at once: 8,000 kicks, in half a millisecond
_PAUSE: Final = 0.02  # seconds until they are counted: their answers leave first
_MAX_WAITING: Final = 50_000_000  # bytes that may wait for the reference

_log = logging.getLogger(__name__)


class SlidingWindow:
    """Counts of the newest kicks, in memory that workers share.

    A worker has a ring of slots. It counts into one of them until that holds a part of the window, then
    goes on to the next, which held the oldest kicks. So kicks leave the window by the slot, and the memory
    does not grow with their number. There are no locks: a reader may see a slot while it changes, and miss
    the kicks of that second.

    Args:
        workers: number of processes that count; created before they are forked.
        size: newest kicks that the window holds at least.

    Attributes:
        number: of this worker, from 0.
    """

    def __init__(self, workers: int, size: int) -> None:
        self._all = shared_array(_SLOT, workers, _SLOTS)
        self._alarms = shared_array("i8", 2)  # of the kicks, and of outcomes
        self._size = size
        self.join_worker(0)

    def join_worker(self, number: int) -> None:
        """Write the row of this worker, from 0, from now on; the counts of its predecessor stay."""
        self.number = number
        self._own = self._all[number]
        self._at = int(np.argmax(self._own["last"]))

    @property
    def alarmed(self) -> bool:
        """Whether the newest alarm was that drift has started; outlives the worker that raised it."""
        return bool(self._alarms[0])

    @alarmed.setter
    def alarmed(self, alarmed: bool) -> None:
        self._alarms[0] = alarmed

    @property
    def outcomes_alarmed(self) -> bool:
        """The same of the alarm on outcomes."""
        return bool(self._alarms[1])

    @outcomes_alarmed.setter
    def outcomes_alarmed(self, alarmed: bool) -> None:
        self._alarms[1] = alarmed

    def add(self, counts: NDArray[np.float64], tag: int, first: float, last: float) -> None:
        """Add counts of kicks.

        Args:
            counts: shape `kickserve_drift.psi.COUNTS`.
            tag: of the reference that they were counted by, from 1.
            first: when the first was predicted, in seconds since 1970.
            last: when the last was.
        """
        slot = self._own[self._at]
        full = kicks_in(slot["counts"]) >= self._size / _PARTS and first - slot["first"] >= SECONDS / _PARTS
        if slot["tag"] != tag or full:
            self._at = (self._at + 1) % _SLOTS
            self._own[self._at] = (tag, first, last, counts)
        else:
            slot["counts"] += counts
            slot["last"] = last

    def read(self, tag: int) -> tuple[NDArray[np.float64], float] | None:
        """Add up the newest kicks of all workers that were counted by the reference of this tag.

        Returns:
            Counts of shape `kickserve_drift.psi.COUNTS`, and when the oldest kick was predicted, in seconds
            since 1970; None without kicks.
        """
        slots = self._all[self._all["tag"] == tag]
        if not len(slots):
            return None
        until = since = float(slots["last"].max())
        counts = np.zeros(COUNTS)
        for slot in slots[np.argsort(slots["last"])[::-1]]:
            if kicks_in(counts) >= self._size and slot["last"] < until - SECONDS:
                break
            counts += slot["counts"]
            since = min(since, float(slot["first"]))
        return counts, since


class LiveDrift:
    """Compares the newest predictions with the reference of the current model.

    Args:
        size: newest kicks that the figures are of, at least; 0 for no figures.

    Attributes:
        window: the counts of all workers.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.window = SlidingWindow(1, size)
        self._waiting: deque[RecordBatch] = deque()
        self._bytes = 0
        self._planned = False  # whether they will be counted before the next second
        self._model: Model | None = None
        self._reference: Reference | None = None
        self._tag = 0

    def share_memory(self, workers: int) -> None:
        """Create the window for this number of workers, before they are forked."""
        self.window = SlidingWindow(workers, self._size)

    def add(self, batch: RecordBatch) -> None:
        """Note predictions, in 0.1 µs; they are counted later. Those of visitors of the page don't count."""
        if batch.source == "page":
            return
        self._waiting.append(batch)
        self._bytes += len(batch.numbers)
        if self._bytes >= _MAX_WAITING:
            self.count(max(_COUNT_AT, len(batch.numbers)))
        elif self._bytes >= _COUNT_AT and not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_later(_PAUSE, self._count_some)

    async def count_in_turns(self) -> None:
        """Count what waits now, as much in a turn of the event loop as takes half a millisecond."""
        for _ in range(0, self._bytes, _COUNT_AT):
            self.count(_COUNT_AT)
            await asyncio.sleep(0)

    def _count_some(self) -> None:
        """Count what takes half a millisecond; the rest after a pause."""
        self.count(_COUNT_AT)
        self._planned = self._bytes >= _COUNT_AT
        if self._planned:
            asyncio.get_running_loop().call_later(_PAUSE, self._count_some)

    def count(self, limit: int = sys.maxsize) -> None:
        """Count the predictions noted so far, oldest first, until they are `limit` bytes."""
        if self._model is None and self._bytes < _MAX_WAITING:
            return  # they wait for the reference
        waiting: list[RecordBatch] = []
        while self._waiting and limit > 0:
            waiting.append(self._waiting.popleft())
            self._bytes -= len(waiting[-1].numbers)
            limit -= len(waiting[-1].numbers)
        if waiting and self._reference is not None:
            counts = self._reference.count(numbers_of(waiting))
            self.window.add(counts, self._tag, waiting[0].millisecond / 1000, time.time())

    def summary(self, limits: Limits) -> DriftSummary | None:
        """Return how far the newest kicks of all workers have drifted; None with too few of them."""
        self.count()
        reading = self.window.read(self._tag)
        if self._reference is None or reading is None or kicks_in(reading[0]) < MIN_KICKS:
            return None
        since = datetime.fromtimestamp(reading[1], UTC)
        return summarize(self._reference, reading[0], limits, at=datetime.now(UTC), since=since)

    async def start(self, app: App) -> None:
        """Make the reference; the first worker of a new service also counts the newest stored predictions."""
        started = datetime.now(UTC)
        await self.follow(app.predictor.model)
        if self._reference is not None and self.window.number == 0 and self.window.read(self._tag) is None:
            await self._count_stored(app.store, self._reference, started)

    async def follow(self, model: Model) -> None:
        """Make the reference of a model, unless it is the current one."""
        if model is self._model or not self._size:
            return
        self.count()
        try:
            reference = await asyncio.to_thread(reference_of, model)
        except KickserveError as error:
            _log.warning("live drift figures are unavailable: %s", error)
            reference = None
        self._model, self._reference = model, reference
        self._tag = 0 if reference is None else _tag(reference)
        if reference is not None and reference.note:
            _log.info("drift: %s", reference.note)

    async def _count_stored(self, store: Store, reference: Reference, until: datetime) -> None:
        try:
            records = await store.page(self._size, until=until)
        except StoreError as error:
            _log.info("the live drift figures start without stored kicks: %s", error)
            return
        known = [each for each in countable(records) if each.model == reference.model]
        if known:
            first, last = known[-1].created_at.timestamp(), known[0].created_at.timestamp()
            self.window.add(reference.count(rows_of(known)), self._tag, first, last)


def _tag(reference: Reference) -> int:
    """Return a number, from 1, that differs between references: counts by different ones don't add up."""
    tag = 0
    for column in reference.columns:
        tag = zlib.crc32(column.expected.tobytes(), zlib.crc32(column.edges.tobytes(), tag))
    return tag + 1


def metrics_of(summary: DriftSummary) -> Iterator[Metric]:
    """Yield a summary as metrics."""
    for each in [*summary.features, summary.prediction]:
        yield Metric(
            "kickserve_drift_psi",
            "Population stability index of the newest kicks against the training data of the model.",
            each.psi,
            {"feature": each.name},
        )
    yield Metric("kickserve_drift_share", "Share of features that have drifted.", summary.share)
    yield Metric("kickserve_drift_drifted", "1 if the kicks have drifted, else 0.", summary.drifted)
    yield Metric("kickserve_drift_kicks", "Number of newest kicks in the drift figures.", summary.kicks)
