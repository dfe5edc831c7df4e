"""Counts probabilities by cells of equal width, and adds numbers up, exactly: parts merge in any order.

A sum of floats depends on their order, in its last digits. So what is summed here are whole numbers of small
steps: the same values give the same sum, however they are split into parts, on one machine or on many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS: Final = 1 << 16
"""How many cells there are from 0 to 1; also a good number of values to count at a time."""

WHOLE: Final = 1 << 40
"""What `whole_sum` counts one as."""

_WITHIN: Final = 1 << 30  # steps within a cell


def whole_sum(values: NDArray[np.float64]) -> int:
    """Add up values, at most 80,000 and each within ±100, in steps of 2⁻⁴⁰ (about 10⁻¹²)."""
    return int(np.rint(values * WHOLE).astype(np.int64).sum())


class Cells:
    """Probabilities, counted by the cell of 0 to 1 that each falls into. A cell has room for 8·10⁹.

    Attributes:
        count: shape (65536,), how many are in each cell.
        offset: shape (65536,), sum of how far they lie into it, in 2⁻³⁰ of its width.
    """

    def __init__(self) -> None:
        self.count = np.zeros(CELLS, dtype=np.int64)
        self.offset = np.zeros(CELLS, dtype=np.int64)

    def add(self, p: NDArray[np.float64]) -> NDArray[np.intp]:
        """Count probabilities, shape (n,); return the cell of each."""
        place = p * CELLS
        cell = np.minimum(place, CELLS - 1).astype(np.intp)
        self.count += np.bincount(cell, minlength=CELLS)
        into = np.rint((place - cell) * _WITHIN)  # sums of these are exact in a float
        self.offset += np.bincount(cell, into, minlength=CELLS).astype(np.int64)
        return cell

    def merge(self, other: Cells) -> None:
        """Add what another has counted."""
        self.count += other.count
        self.offset += other.offset

    @property
    def total(self) -> NDArray[np.float64]:
        """Shape (65536,), the sum of the probabilities in each cell."""
        result: NDArray[np.float64] = (np.arange(CELLS) * self.count + self.offset / _WITHIN) / CELLS
        return result
