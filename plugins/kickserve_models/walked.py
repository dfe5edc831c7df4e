"""The model of trees that were read off a classifier, and their thresholds in the features' own units."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from kickserve.features import COUNT, FEATURES
from kickserve.plugins import Answer
from kickserve_models.external import ExternalModel
from kickserve_trees.walk import Nodes, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kickserve.schemas import ModelCard

    Numbers = NDArray[Any]  # floats, of double or of single precision
    Map = Callable[[Numbers], Numbers]
    GoesLeft = Callable[[Numbers, Numbers], NDArray[np.bool_]]

_CHUNK: Final = 512  # kicks at a time: each has a value of each tree
_SPAN: Final = 64.0  # as wide as the features' ranges
_HIGH: Final = np.array([feature.high for feature in FEATURES], np.float64)


class Part(NamedTuple):
    """Trees that give a probability together.

    Attributes:
        trees: t trees of the features in the order of `kickserve.features.NAMES`.
        score: takes the values of the leaves that n kicks reach, shape (t, n), to a score each, shape (n,).
        link: takes scores to the probability of the second class.
    """

    trees: list[Nodes]
    score: Map
    link: Map


class WalkedModel(ExternalModel):
    """The trees of a classifier, without an interval.

    Args:
        card: of the model.
        parts: the probability is the mean of theirs.
        success: the place of a kick that succeeds among the two classes, 0 or 1.

    Raises:
        ValueError: a node of a tree leads nowhere, or back.
    """

    def __init__(self, card: ModelCard, parts: Sequence[Part], success: int) -> None:
        super().__init__(card)
        self._walk = Walk([tree for part in parts for tree in part.trees])
        ends = np.cumsum([len(part.trees) for part in parts]).tolist()
        self._parts = [
            (slice(start, end), part.score, part.link)
            for start, end, part in zip([0, *ends], ends, parts, strict=False)
        ]
        self._success = success

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        probability = np.empty(len(matrix))
        for start in range(0, len(matrix), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            probability[chunk] = self._probability(self._walk.of_many(matrix[chunk]))
        return Answer(probability, None, None)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`; flags may be booleans.

        Returns:
            Probability, to the bit as `predict` gives it, and NaN twice: it gives no interval.
        """
        [probability] = self._probability(self._walk.of_one(row)[:, np.newaxis]).tolist()
        return probability, math.nan, math.nan

    def _probability(self, values: Numbers) -> Numbers:
        first, *others = (link(score(values[part])) for part, score, link in self._parts)
        second = sum(others, first) / len(self._parts) if others else first
        return second if self._success else 1 - second


def constant(value: float | np.floating[Any]) -> Nodes:
    """Return a tree of one leaf."""
    none = np.full(1, -1)
    return Nodes(none, np.zeros(1), none, none, np.array([value]))


def sum_of(values: Numbers) -> Numbers:
    """Add up the values of t trees for n kicks, shape (t, n), one tree after the other; shape (n,)."""
    # sum() adds in another order for one kick than for many.
    total: Numbers = np.add.accumulate(values)[-1]
    return total


def of_features(trees: Sequence[Nodes], prepare: Map, goes_left: GoesLeft) -> list[Nodes]:
    """Turn trees of a classifier's columns into trees of the features.

    Rounding included: each threshold becomes the highest value of the feature with which a kick goes left.

    Args:
        trees: their features are columns, their thresholds are of any kind.
        prepare: takes kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, to the columns.
        goes_left: takes values of a column and a threshold for each, and returns whether a kick goes left.

    Raises:
        ValueError: a column is anything but one feature that rises.
    """
    column, threshold = (np.concatenate([tree[at] for tree in trees]) for at in (0, 1))
    feature, highest = np.zeros(len(column), np.intp), np.zeros(len(column))
    for at, source in enumerate(_sources(prepare)):
        here = np.flatnonzero(column == at)
        if not len(here):  # scalers refuse an empty matrix
            continue
        distinct, places = np.unique(threshold[here], return_inverse=True)

        def is_left(kicks: Numbers, at: int = at, distinct: Numbers = distinct) -> NDArray[np.bool_]:
            return goes_left(prepare(kicks)[:, at], distinct)

        feature[here], highest[here] = source, _highest(is_left, source, len(distinct))[places]
    ends = np.cumsum([len(tree.left) for tree in trees])[:-1]
    parts = zip(trees, np.split(feature, ends), np.split(highest, ends), strict=True)
    return [tree._replace(feature=features, threshold=values) for tree, features, values in parts]


def _sources(prepare: Map) -> NDArray[np.intp]:
    """Return the feature that each of w columns holds, shape (w,)."""
    columns = prepare(np.vstack([np.zeros(COUNT), _SPAN * np.eye(COUNT)]))
    slopes = columns[1:] - columns[0]
    if np.any(slopes < 0) or np.any(np.count_nonzero(slopes, axis=0) != 1):
        raise ValueError("a column of it is not one feature that rises")
    sources: NDArray[np.intp] = slopes.argmax(axis=0)
    return sources


def _highest(is_left: Callable[[Numbers], NDArray[np.bool_]], feature: int, count: int) -> Numbers:
    """Return for each of some thresholds the highest value of a feature that is left of it, shape (count,).

    It is found by bisection among the numbers of double precision: those from 0 on have the same order as
    the integers of their bits.

    Args:
        is_left: takes a kick for each threshold, shape (count, 11).
        feature: its position.
        count: of thresholds.

    Returns:
        The highest value of the feature's range where all are left, and -1 where none is.
    """
    kicks = np.zeros((count, COUNT))
    low, high = np.zeros(count, np.int64), np.full(count, _HIGH[feature]).view(np.int64)
    while np.any(low < high):
        middle = high - (high - low) // 2
        kicks[:, feature] = middle.view(np.float64)
        left = is_left(kicks)
        low, high = np.where(left, middle, low), np.where(left, high, middle - 1)
    kicks[:, feature] = low.view(np.float64)
    return np.where(is_left(kicks), kicks[:, feature], -1.0)
