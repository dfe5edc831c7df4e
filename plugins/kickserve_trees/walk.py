"""Decision trees of any size, all walked at once: every kick goes down every tree, a level at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kickserve.features import COUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVELS: Final = 8  # after so many, places that are leaves are left alone
_FEW: Final = 800  # nodes a level, up to which comparing at all of them costs less than at those on the way


class Nodes(NamedTuple):
    """The m nodes of a decision tree; node 0 is the root.

    Attributes:
        feature: position in `kickserve.features.NAMES`, shape (m,); any at a leaf.
        threshold: a kick goes left where its feature is at most this, else right; shape (m,).
        left: child, shape (m,); negative at a leaf.
        right: child, shape (m,).
        value: of each leaf, shape (m,).
    """

    feature: NDArray[np.integer[Any]]
    threshold: NDArray[np.floating[Any]]
    left: NDArray[np.integer[Any]]
    right: NDArray[np.integer[Any]]
    value: NDArray[np.floating[Any]]


class Walk:
    """Finds the leaves that kicks reach in t trees.

    Args:
        trees: one or more.

    Raises:
        ValueError: a node of a tree leads nowhere, or back.
    """

    def __init__(self, trees: Sequence[Nodes]) -> None:
        counts = [len(tree.left) for tree in trees]
        firsts = np.cumsum([0, *counts[:-1]])
        feature, threshold, left, right, value = map(np.concatenate, zip(*trees, strict=True))
        inner, first = np.flatnonzero(left >= 0), np.repeat(firsts, counts)
        pairs = np.stack([left[inner], right[inner]], axis=1) + first[inner, None]
        # A child lies beside its sibling, and a leaf leads to itself: then a step is one sum, wherever it is.
        old = np.concatenate([firsts, pairs.ravel()])
        parents = np.bincount(old, minlength=len(left))
        if len(parents) > len(left) or parents.max() > 1:
            raise ValueError("a node of a tree leads nowhere, or back")
        here, is_leaf = np.arange(len(old)), left[old] < 0
        new = np.zeros(len(left), np.intp)
        new[old] = here
        self._roots = here[: len(trees)]
        self._child = np.where(is_leaf, here, new[left[old] + first[old]])  # the left one
        self._feature = np.where(is_leaf, 0, feature[old]).astype(np.intp)  # numpy need not convert it
        self._threshold = np.where(is_leaf, np.inf, threshold[old])
        self._value: NDArray[np.floating[Any]] = value[old]
        self._depth = self._measure_depth()

    def _measure_depth(self) -> int:
        """Return the number of steps to the lowest leaf."""
        depth, level = 0, self._roots
        while len(level := level[self._child[level] != level]):
            depth, level = depth + 1, np.concatenate([self._child[level], self._child[level] + 1])
        return depth

    def of_many(self, matrix: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
        """Return the value of the leaf that each kick reaches in each tree, shape (t, n).

        Args:
            matrix: n kicks, shape (n, 11): a few hundred, as each needs memory in each tree.
        """
        kicks, starts = matrix.ravel(), np.tile(np.arange(0, matrix.size, COUNT), len(self._roots))
        leaves = places = np.repeat(self._roots, len(matrix))
        under_way = np.arange(len(leaves))
        for level in range(0, self._depth, _LEVELS):
            places = self._go_down(kicks, starts, places, min(_LEVELS, self._depth - level))
            leaves[under_way] = places
            on = self._child.take(places) != places
            starts, places, under_way = starts[on], places[on], under_way[on]
        return self._value.take(leaves).reshape(len(self._roots), len(matrix))

    def of_one(self, row: Sequence[float]) -> NDArray[np.floating[Any]]:
        """Return the value of the leaf that a kick, its eleven numbers, reaches in each tree; shape (t,)."""
        kick, places = np.array(row, np.float64), self._roots
        child, feature, threshold = self._child, self._feature, self._threshold
        if len(child) <= _FEW * self._depth:
            following = child + (kick[feature] > threshold)
            for _ in range(self._depth):
                places = following[places]
        else:
            for _ in range(self._depth):
                places = child[places] + (kick[feature[places]] > threshold[places])
        return self._value[places]

    def _go_down(
        self,
        kicks: NDArray[np.float64],
        starts: NDArray[np.intp],
        places: NDArray[np.intp],
        levels: int,
    ) -> NDArray[np.intp]:
        """Go some levels down; the features of the kick at each place begin at `starts` in `kicks`."""
        for _ in range(levels):
            values = kicks.take(starts + self._feature.take(places))
            places = self._child.take(places) + (values > self._threshold.take(places))
        return places
