"""Counts requests by the name of their key, in memory that workers share: each writes its own part.

    worker 0                                worker 1
    [name | count | name | count | …]       [name | …

There are a few slots; the last is for all keys that find none free. Names are at most 64 bytes long.
"""

from __future__ import annotations

import mmap
from typing import Final

NAMES: Final = 64  # that are told apart, with the one for all others
OTHER: Final = "other"

_TEXT: Final = 8  # cells: 64 bytes
_SLOT: Final = _TEXT + 1
_CELL: Final = 8  # bytes
_WORKER: Final = NAMES * _SLOT


class KeyMeters:
    """The counters.

    Args:
        workers: how many processes write. Where there are several, make it before they are forked, and call
            `take_place` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        self._bytes = memoryview(mmap.mmap(-1, workers * _WORKER * _CELL))
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
            cell = self._cells[name] = self._find(name)
        self._counts[cell] += 1

    def read(self) -> dict[str, int]:
        """Add up what all workers have counted, by name."""
        sums: dict[str, int] = {}
        for slot in range(0, len(self._counts), _SLOT):
            if count := self._counts[slot + _TEXT]:
                name = self._name(slot)
                sums[name] = sums.get(name, 0) + count
        return sums

    def _find(self, name: str) -> int:
        """Return where the count of a name is: that of the last slot where no other is free."""
        slots = range(self._first, self._first + _WORKER, _SLOT)
        for slot in slots[:-1]:
            held = self._name(slot)
            if not held:
                self._write(slot, name)
            if held in {"", name}:
                return slot + _TEXT
        self._write(slots[-1], OTHER)
        return slots[-1] + _TEXT

    def _name(self, slot: int) -> str:
        return bytes(self._bytes[slot * _CELL : (slot + _TEXT) * _CELL]).rstrip(b"\0").decode()

    def _write(self, slot: int, name: str) -> None:
        room = _TEXT * _CELL
        self._bytes[slot * _CELL : (slot + _TEXT) * _CELL] = name.encode().ljust(room, b"\0")
