"""Counts answers by model and by probability, in a worker's part of the memory that `meters` shares.

    [name and revision that it serves | slot 0 | slot 1 | …]
                                        [name | sum of probabilities | answers by probability]

A slot is taken by the name of a model that answers for the first time; there are a few (`slots`).
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kickserve.features import COUNT
from kickserve.record import WIDTH, numbers_of
from kickserve.slots import CELL, decoded, encoded, find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kickserve.record import RecordBatch

BINS: Final = 20
MODELS: Final = 8  # names that are told apart, with the one for all others

_TEXT: Final = 12  # cells: 96 bytes
_SERVED: Final = 2 * _TEXT
_SLOT: Final = _TEXT + 1 + BINS
SIZE: Final = _SERVED + MODELS * _SLOT
_FEW: Final = 32  # kicks up to which a loop is quicker than arrays
# The probability out of each row of a record (`kickserve.record`).
_probabilities: Final = Struct(f"<{COUNT * CELL}xd{(WIDTH - COUNT - 1) * CELL}x").iter_unpack


class ModelReading(NamedTuple):
    """What all workers answered with models of one name.

    Attributes:
        name: of the model, or "other".
        bins: answers by probability, in 20 steps of 0.05, not cumulated; the last holds 1 too.
        total: the sum of the probabilities.
    """

    name: str
    bins: list[int]
    total: float

    @property
    def answers(self) -> int:
        """Kicks that were answered."""
        return sum(self.bins)


class ModelMeters:
    """Counts for one worker.

    Args:
        cells: its part of the memory, `SIZE` of them. What an earlier worker counted there stays.
    """

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells
        self._bytes = cells.cast("B")
        self._slots: dict[str, int] = {}

    def serves(self, name: str, revision: str) -> None:
        """Tell what model this worker answers with."""
        self._bytes[: _SERVED * CELL] = encoded(name, _TEXT) + encoded(revision, _TEXT)

    def add(self, batch: RecordBatch) -> None:
        """Count answers that were made together."""
        slot = self._slots.get(batch.model)
        if slot is None:
            slots = range(_SERVED, SIZE, _SLOT)
            slot = self._slots[batch.model] = find(self._bytes, slots, batch.model, _TEXT)
        cells, total, bins = self._cells, slot + _TEXT, slot + _TEXT + 1
        if len(batch) <= _FEW:
            for (probability,) in _probabilities(batch.numbers):
                cells[total] += probability
                cells[bins + min(int(probability * BINS), BINS - 1)] += 1
            return
        found = numbers_of([batch])[:, COUNT]
        cells[total] += float(found.sum())
        counts = np.bincount(np.minimum((found * BINS).astype(int), BINS - 1), minlength=BINS)
        for at, count in enumerate(counts.tolist(), bins):
            cells[at] += count


def served(cells: NDArray[np.float64]) -> tuple[str, str]:
    """Return name and revision of the model that a worker answers with; empty before it has told."""
    return _text(cells[:_TEXT]), _text(cells[_TEXT:_SERVED])


def read(workers: Iterable[NDArray[np.float64]]) -> list[ModelReading]:
    """Add up what workers have counted, by the names of models."""
    sums: dict[str, NDArray[np.float64]] = {}
    for cells in workers:
        for slot in cells[_SERVED:SIZE].reshape(MODELS, _SLOT):
            if slot[_TEXT + 1 :].any():
                name = _text(slot[:_TEXT])
                sums[name] = sums.get(name, 0.0) + slot[_TEXT:]
    return [
        ModelReading(name, each[1:].astype(int).tolist(), float(each[0]))
        for name, each in sorted(sums.items())
    ]


def _text(cells: NDArray[np.float64]) -> str:
    return decoded(cells.tobytes())
