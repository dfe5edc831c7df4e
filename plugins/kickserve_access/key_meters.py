"""Counts requests by the name of their key, in memory that workers share: each writes its own part.

    worker 0                                worker 1
    [name | count | name | count | …]       [name | …

There are a few slots (`slots`). Names are at most 64 bytes long.
"""

from __future__ import annotations

import mmap
from typing import Final

from kickserve.slots import CELL, decoded, find

NAMES: Final = 64  # that are told apart, with the one for all others

_TEXT: Final = 8  # cells: 64 bytes
_SLOT: Final = _TEXT + 1
_WORKER: Final = NAMES * _SLOT


class KeyMeters:
    """The counters.

    Args:
        workers: how many processes write. Where there are several, make it before they are forked, and call
            `take_place` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        self._bytes = memoryview(mmap.mmap(-1, workers * _WORKER * CELL))
        self._counts = self._bytes.cast("q")
        self.take_place(0)

    def take_place(self, number: int) -> None:
        """Write as this worker from now on, from 0."""
        self._first = number * _WORKER
        self._cells: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Count a request that was let in with the key of this name."""
        cell = self._cells.get(name)
        if cell is None:
            slots = range(self._first, self._first + _WORKER, _SLOT)
            cell = self._cells[name] = find(self._bytes, slots, name, _TEXT) + _TEXT
        self._counts[cell] += 1

    def read(self) -> dict[str, int]:
        """Add up what all workers have counted, by name."""
        sums: dict[str, int] = {}
        for slot in range(0, len(self._counts), _SLOT):
            if count := self._counts[slot + _TEXT]:
                name = decoded(bytes(self._bytes[slot * CELL : (slot + _TEXT) * CELL]))
                sums[name] = sums.get(name, 0) + count
        return sums
