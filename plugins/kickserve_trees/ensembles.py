"""Sums of small decision trees, looked up for all trees at once without walking any."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from kickserve.features import COUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_LEAVES: Final = 8
"""Leaves of a tree: as many as a byte has bits."""
MOST_TREES: Final = 1_000
_Number = Annotated[float, Meta(ge=-1e6, le=1e6)]  # log-odds need no more; larger sums could overflow
_CHUNK: Final = 2_048  # kicks at a time: each has a number a tree
_SETS: Final = 1 << MOST_LEAVES  # of leaves


class Tree(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A decision tree of m inner nodes, 0 to 7, and m + 1 leaves.

    Inner node 0 is the root. A kick goes left where its feature is at most the threshold, else right. A child
    of 0 or more is an inner node, later than its parent; a child of -1 - l is leaf l, and leaves are numbered
    from left to right.

    Attributes:
        feature: of each inner node, the position of the feature in `kickserve.features.NAMES`.
        threshold: of each inner node.
        left: child of each inner node.
        right: child of each inner node.
        value: of each leaf.
    """

    feature: Annotated[list[Annotated[int, Meta(ge=0, lt=COUNT)]], Meta(max_length=MOST_LEAVES - 1)]
    threshold: list[_Number]
    left: list[int]
    right: list[int]
    value: list[_Number]


class Ensemble(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A sum of trees.

    Attributes:
        base: added to the values of the leaves.
        trees: may be none.
    """

    base: _Number
    trees: Annotated[list[Tree], Meta(max_length=MOST_TREES)]


class Sums:
    """Computes the sums of several ensembles together.

    The algorithm is QuickScorer (Lucchese et al. 2015): each tree has a set of leaves that a kick may still
    reach, one bit a leaf. Each threshold below the value of its feature removes the leaves to the left of
    it. For each interval between the thresholds of a feature a table holds the leaves that remain, so that a
    kick costs one look-up a feature, whatever the number of trees. The leftmost leaf that remains is the
    leaf that the kick reaches.

    Args:
        ensembles: without fault, as of `wrong_ensemble`.
    """

    def __init__(self, ensembles: Sequence[Ensemble]) -> None:
        trees = [tree for ensemble in ensembles for tree in ensemble.trees]
        self._bases = [ensemble.base for ensemble in ensembles]
        ends = np.cumsum([len(ensemble.trees) for ensemble in ensembles]).tolist()
        self._parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._tables = _tables(trees)
        self._values = np.concatenate([_by_set(tree.value) for tree in trees] or [np.empty(0)])
        self._starts = np.arange(len(trees)) * _SETS
        self._all = np.full(len(trees), _SETS - 1, dtype=np.uint8)

    def of_many(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums of e ensembles for n kicks, shape (e, n); `matrix` has shape (n, 11)."""
        result = np.empty((len(self._bases), len(matrix)))
        for start in range(0, len(matrix), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            self._add_up(matrix[chunk], result[:, chunk])
        return result

    def _add_up(self, matrix: NDArray[np.float64], result: NDArray[np.float64]) -> None:
        sets = np.tile(self._all, (len(matrix), 1))
        for at, thresholds, _, table in self._tables:
            sets &= table[np.searchsorted(thresholds, matrix[:, at], side="left")]
        values = self._values[self._starts + sets]
        for sums, base, part in zip(result, self._bases, self._parts, strict=True):
            sums[:] = base + values[:, part].sum(axis=1)

    def of_one(self, row: Sequence[float]) -> list[float]:
        """Return the sums of e ensembles for one kick, its eleven numbers."""
        sets = self._all
        for at, _, thresholds, table in self._tables:
            sets = sets & table[bisect_left(thresholds, row[at])]
        values = self._values[self._starts + sets]
        return [base + float(values[part].sum()) for base, part in zip(self._bases, self._parts, strict=True)]


def wrong_ensemble(ensemble: Ensemble) -> str:
    """Return the fault of an ensemble as a clause; empty where there is none."""
    reasons = ((number, _wrong_tree(tree)) for number, tree in enumerate(ensemble.trees))
    return next((f"its tree {number} {reason}" for number, reason in reasons if reason), "")


def _wrong_tree(tree: Tree) -> str:
    inner = len(tree.feature)
    if [len(tree.threshold), len(tree.left), len(tree.right), len(tree.value)] != [inner] * 3 + [inner + 1]:
        return "does not have one threshold, left and right for each inner node, and one value more"
    children = enumerate(zip(tree.left, tree.right, strict=True))
    if not all(at < child < inner for at, pair in children for child in pair if child >= 0):
        return "has a child that does not come after its parent"
    if _leaves(tree, 0) != list(range(inner + 1)):
        return "does not reach each leaf once, from left to right"
    return ""


def _leaves(tree: Tree, node: int) -> list[int]:
    """Return the leaves below a node, from left to right; a node that is a leaf has itself."""
    if node < 0:
        return [-1 - node]
    if not tree.feature:
        return [0]
    return [*_leaves(tree, tree.left[node]), *_leaves(tree, tree.right[node])]


Table = tuple[int, "NDArray[np.float64]", list[float], "NDArray[np.uint8]"]


def _tables(trees: Sequence[Tree]) -> list[Table]:
    """Return for each feature in use its position, its t thresholds as array and as list, and a table.

    The table has shape (t + 1, number of trees): row r holds the sets of leaves that a value above r of the
    thresholds may reach.
    """
    splits: dict[int, list[tuple[float, int, int]]] = {}
    for number, tree in enumerate(trees):
        for node, (at, threshold) in enumerate(zip(tree.feature, tree.threshold, strict=True)):
            gone = sum(1 << leaf for leaf in _leaves(tree, tree.left[node]))
            splits.setdefault(at, []).append((threshold, number, _SETS - 1 - gone))
    return [_table(at, sorted(found), len(trees)) for at, found in sorted(splits.items())]


def _table(at: int, splits: list[tuple[float, int, int]], trees: int) -> Table:
    thresholds = sorted({threshold for threshold, *_ in splits})
    row = {threshold: number for number, threshold in enumerate(thresholds, 1)}
    table = np.full((len(thresholds) + 1, trees), _SETS - 1, dtype=np.uint8)
    for threshold, number, kept in splits:
        table[row[threshold], number] &= kept
    return at, np.array(thresholds), thresholds, np.bitwise_and.accumulate(table, axis=0)


def _by_set(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the value of the leftmost leaf of each set of leaves, shape (256,)."""
    result = np.zeros(_SETS)
    for leaf, value in reversed(list(enumerate(values))):
        result[np.arange(_SETS) & (1 << leaf) > 0] = value
    return result
