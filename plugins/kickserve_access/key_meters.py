"""Counts requests by the name of their key, over all workers."""

from __future__ import annotations

from typing import Final

import numpy as np

from kickserve.plugins import find_slot, integers, shared_array, sum_by_label

NAMES: Final = 64  # that are counted apart; the last counts for all others
_SLOT: Final = np.dtype([("label", "S64"), ("count", "i8")])


class KeyMeters:
    """The counters.

    Args:
        workers: number of processes that count. Where there are several, create this before they are forked,
            and call `join_worker` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        self._all = shared_array(_SLOT, workers, NAMES)
        self.join_worker(0)

    def join_worker(self, number: int) -> None:
        """Write to row `number` from now on: that of a worker, from 0."""
        self._own = self._all[number]
        self._counts: dict[str, memoryview[int]] = {}

    def add(self, name: str) -> None:
        """Count a request that was let in with the key of this name."""
        count = self._counts.get(name)
        if count is None:
            slot = find_slot(self._own["label"], name)
            count = self._counts[name] = integers(self._own["count"][slot : slot + 1])
        count[0] += 1

    def read(self) -> dict[str, int]:
        """Add up the counts of all workers, by name."""
        return {name: int(count) for name, count in sum_by_label(self._all, "count").items()}
