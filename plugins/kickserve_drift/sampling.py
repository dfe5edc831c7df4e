"""Draws a sample from rows that come part by part, and draws kicks from a model's profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kickserve.features import FLAGS, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.model import Profile


class Sample:
    """Keeps `size` of the rows that it is given, each with the same chance, in the order in which they came.

    Each row draws a number, and the rows with the smallest stay: so the same seed and rows give the same
    sample, and the memory does not grow with the rows.

    Args:
        size: rows to keep at most.
        width: numbers in a row.
        seed: of the draw.
    """

    def __init__(self, size: int, width: int, seed: int | Sequence[int]) -> None:
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._rows = np.empty((0, width))
        self._drawn = np.empty(0)
        self.seen = 0

    @classmethod
    def gathered(cls, parts: Sequence[NDArray[np.float64]], seen: int) -> Sample:
        """Put together what was drawn from parts, from 1, of which so many rows were seen in all."""
        rows = np.concatenate(parts)
        made = cls(len(rows), rows.shape[1], seed=0)
        made._rows, made._drawn, made.seen = rows, np.zeros(len(rows)), seen
        return made

    @property
    def whole(self) -> bool:
        """Whether every row that came is in it."""
        return self.seen <= self._size

    def add(self, rows: NDArray[np.float64]) -> None:
        """Offer rows, shape (n, width)."""
        drawn = self._rng.random(len(rows))
        self.seen += len(rows)
        if not self._size:
            return
        # What is above the largest that is kept can't stay: most rows of a long stream go here.
        hopeful = drawn < (np.inf if len(self._rows) < self._size else self._drawn.max())
        self._rows = np.concatenate([self._rows, rows[hopeful]])
        self._drawn = np.concatenate([self._drawn, drawn[hopeful]])
        if len(self._rows) > self._size:
            kept = np.sort(np.argpartition(self._drawn, self._size)[: self._size])
            self._rows, self._drawn = self._rows[kept], self._drawn[kept]

    def rows(self) -> NDArray[np.float64]:
        """Return the sample, shape (m, width), m at most the size."""
        return self._rows


def quota(size: int, before: int, rows: int, total: int) -> int:
    """Say how many rows of a partition go into a sample of all, so that each has the same chance.

    Args:
        size: rows of the whole sample.
        before: rows of all partitions before this one.
        rows: of this one.
        total: of all of them.
    """
    share = min(size / max(total, 1), 1.0)
    return round((before + rows) * share) - round(before * share)


def drawn_back(profile: Profile, count: int, seed: int) -> NDArray[np.float64]:
    """Draw kicks and predictions whose columns, each by itself, look as a profile says.

    A profile holds quantiles and shares, no kicks: between two quantiles values are spread evenly, and what
    columns have to do with each other is lost. So such rows are for pictures of single columns, and no more.

    Args:
        profile: of a model.
        count: rows, from 1.
        seed: of the draw.

    Returns:
        Shape (count, 12): the eleven features in the order of `kickserve.features.NAMES`, and the prediction.
    """
    rng = np.random.default_rng(seed)
    # One level in the middle of each of `count` equal steps: so the shares are just those of the profile.
    levels = (np.arange(count) + 0.5) / count
    columns = [
        levels < profile.shares[name]
        if name in FLAGS
        else np.interp(levels, profile.levels, profile.quantiles[name])
        for name in NAMES
    ]
    columns.append(np.interp(levels, profile.levels, profile.prediction))
    return np.column_stack([rng.permutation(column) for column in columns]).astype(np.float64)


def outcomes_of(prediction: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Draw what comes of kicks, 1 or 0, if these probabilities, shape (n,), are right."""
    drawn = np.random.default_rng(seed).random(len(prediction))
    return (drawn < prediction).astype(np.float64)
