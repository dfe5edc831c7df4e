"""Counts of the newest kicks, in memory that workers share: each writes its own part, any adds up all.

A worker has a ring of slots. It counts into one of them until that holds a part of the window, then goes on
to the next, which held the oldest kicks. So what slides out of the window is dropped by the slot, and the
memory is the same whatever the number of kicks.

    worker 0                                   worker 1
    [slot 0 | slot 1 | … | slot 15]            [slot 0 | …
     [version, tag, first, last | 12 columns of counts]
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve_drift.drift_bins import COLUMNS, WIDTH, Counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SECONDS: Final = 60.0
"""The window holds at least the kicks of the newest so many seconds."""

_SLOTS: Final = 16
_PARTS: Final = 8  # slots that the window is made of; the ring has twice as many
_HEAD: Final = 4
_VERSION, _TAG, _FIRST, _LAST = range(_HEAD)
_SLOT: Final = _HEAD + len(COLUMNS) * WIDTH
_TRIES: Final = 5


class Window(NamedTuple):
    """The newest kicks of all workers.

    Attributes:
        counts: of them.
        since: when the oldest was predicted, in seconds since 1970.
        until: when the newest was.
    """

    counts: Counts
    since: float
    until: float


class _Slot(NamedTuple):
    last: float
    first: float
    counts: Counts


class Board:
    """The counts of a service.

    Args:
        workers: how many processes write. Where there are several, make it before they are forked, and call
            `take_place` in each.
        window: newest kicks that are wanted.

    Attributes:
        number: of the worker that this process is.
    """

    def __init__(self, workers: int, window: int) -> None:
        block = np.frombuffer(mmap.mmap(-1, (1 + workers * _SLOTS * _SLOT) * 8), np.float64)
        self._said, self._all = block[:1], block[1:].reshape(workers, _SLOTS, _SLOT)
        self._window = window
        self.take_place(0)

    def take_place(self, number: int) -> None:
        """Write as this worker from now on; what another left in its place stays.

        Args:
            number: from 0.
        """
        self.number = number
        self._own = self._all[number]
        self._at = int(np.argmax(self._own[:, _LAST]))

    @property
    def alarmed(self) -> bool:
        """Whether it was said that the kicks have drifted; outlives the worker that said so."""
        return bool(self._said[0])

    @alarmed.setter
    def alarmed(self, alarmed: bool) -> None:
        self._said[0] = alarmed

    def add(self, counts: Counts, tag: int, first: float, last: float) -> None:
        """Add counts of kicks.

        Args:
            counts: of kicks that came in together.
            tag: of the reference that they were counted by, from 1.
            first: when the first was predicted, in seconds since 1970.
            last: when the last was.
        """
        if self._is_done(tag, first):
            self._at = (self._at + 1) % _SLOTS
            fresh = np.concatenate(([tag, first, last], counts.cells.ravel()))
        else:
            slot = self._own[self._at]
            fresh = np.concatenate(([tag, slot[_FIRST], last], slot[_HEAD:] + counts.cells.ravel()))
        self._write(self._own[self._at], fresh)

    def read(self, tag: int) -> Window | None:
        """Add up the newest kicks of all workers that were counted by this reference; None of none."""
        slots = sorted(self._slots(tag), key=lambda slot: slot.last, reverse=True)
        if not slots:
            return None
        until = since = slots[0].last
        counts = Counts.none()
        for slot in slots:
            if counts.kicks >= self._window and slot.last < until - SECONDS:
                break
            counts += slot.counts
            since = min(since, slot.first)
        return Window(counts, since, until)

    def _is_done(self, tag: int, now: float) -> bool:
        slot = self._own[self._at]
        if slot[_TAG] != tag:
            return True
        full = _counts(slot).kicks >= self._window / _PARTS
        return full and now - slot[_FIRST] >= SECONDS / _PARTS

    def _write(self, slot: NDArray[np.float64], fresh: NDArray[np.float64]) -> None:
        # An odd version says that the slot is being written; a worker that was killed then left one.
        version = slot[_VERSION] // 2 * 2
        slot[_VERSION] = version + 1
        slot[_TAG:] = fresh
        slot[_VERSION] = version + 2

    def _slots(self, tag: int) -> Iterator[_Slot]:
        for slot in self._all.reshape(-1, _SLOT):
            if slot[_TAG] == tag and (whole := _copy(slot)) is not None and whole[_TAG] == tag:
                yield _Slot(float(whole[_LAST]), float(whole[_FIRST]), _counts(whole))


def _copy(slot: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Copy a slot as it was at one instant; None where its worker died while writing."""
    for _ in range(_TRIES):
        version = slot[_VERSION]
        copy = slot.copy()
        if version % 2 == 0 and slot[_VERSION] == version:
            return copy
    return None


def _counts(slot: NDArray[np.float64]) -> Counts:
    return Counts(slot[_HEAD:].reshape(len(COLUMNS), WIDTH))
