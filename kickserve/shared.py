"""Arrays in memory that forked workers share: each worker writes a row of its own, any reads all rows."""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

OTHER: Final = "other"
"""Label of the last slot, which counts for all labels that find no slot free."""


def shared_array(dtype: DTypeLike, *shape: int) -> NDArray[Any]:
    """Return zeros that this process shares with each process forked from it later.

    There are no locks: give each worker a row of its own to write. A number of 8 bytes is stored at once, so
    any process may read it at any time. A worker that replaces another one continues its row, so no count
    ever falls.

    Args:
        dtype: of an element. Where `floats` or `integers` are to view it, all its fields must be multiples of
            8 bytes.
        shape: number of workers first.
    """
    element = np.dtype(dtype)
    return np.ndarray(shape, element, mmap.mmap(-1, element.itemsize * math.prod(shape)))


def floats(cells: NDArray[np.float64]) -> memoryview[float]:
    """Return contiguous cells as a flat view for pure Python, which adds to a cell faster than numpy does."""
    return cells.reshape(-1).view(np.uint8).data.cast("d")


def integers(cells: NDArray[np.int64]) -> memoryview[int]:
    """Return contiguous integer cells as a flat view."""
    return cells.reshape(-1).view(np.uint8).data.cast("q")


def find_slot(labels: NDArray[np.bytes_], label: str) -> int:
    """Return the index of the slot of a label: the one that has it, else the first free one, else the last.

    Args:
        labels: shape (slots,), of one worker; an empty label marks a free slot, which is taken here.
        label: cut off, between letters, where it is longer than a slot has bytes.
    """
    wanted = encode_label(label, labels.itemsize)
    for slot, held in enumerate(labels[:-1].tolist()):
        if held == wanted:
            return slot
        if not held:
            labels[slot] = wanted
            return slot
    labels[-1] = OTHER.encode()
    return len(labels) - 1


def sum_by_label(slots: NDArray[Any], field: str) -> dict[str, Any]:
    """Add up a field of all workers' slots by their labels, in the order of the labels.

    Args:
        slots: any shape, of a structured type with the field `label`.
        field: name of the field to add up.
    """
    sums: dict[str, Any] = {}
    for slot in slots.ravel():
        if slot["label"]:
            label = slot["label"].decode()
            sums[label] = sums.get(label, 0) + slot[field]
    return dict(sorted(sums.items()))


def encode_label(label: str, size: int) -> bytes:
    """Return UTF-8 of at most `size` bytes, without half a letter at the end."""
    return label.encode()[:size].decode(errors="ignore").encode()
