"""Looks whether the trees of a scikit-learn model point where they may: its compiled code does not look.

A skops file runs no code, but its numbers are anybody's. A tree with a node whose child lies beyond the last,
or is the node itself, would crash the process, or never end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

from kickserve_models.by_position import held

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Estimators that hand their input to their trees as it is.
_DIRECT: Final = (
    "sklearn.tree.",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting.",
)
_SPLIT: Final = "a tree of it has a node that leads nowhere, or back"
_LOST: Final = "it holds a tree outside of any model"
_FEATURE: Final = "a tree of it splits on a feature that there is not"


def wrong_tree(estimator: Any) -> str:
    """Say what is wrong with some tree of a model, as a clause; empty where nothing is."""
    waiting: list[tuple[Any, int | None]] = [(estimator, None)]
    seen = set()
    while waiting:
        each, width = waiting.pop()
        if (id(each), width) in seen:
            continue
        seen.add((id(each), width))
        width = _width(each, width)
        reason = _wrong(each, width)
        if reason:
            return reason
        waiting += [(inner, width) for inner in held(each)]
    return ""


def _width(each: Any, width: int | None) -> int | None:
    """Return how many features reach the trees directly in an estimator; None where there may be none."""
    if not isinstance(each, BaseEstimator):
        return width
    if not type(each).__module__.startswith(_DIRECT):
        return None
    own = int(getattr(each, "n_features_in_", 0))
    return own if width is None else min(own, width)


def _wrong(each: Any, width: int | None) -> str:
    if isinstance(each, Tree):
        return _LOST if width is None else _wrong_tree(each, width)
    if isinstance(each, TreePredictor):
        return _LOST if width is None else _wrong_predictor(each, width)
    if type(each).__module__ == "sklearn.ensemble._gb":
        return _wrong_boosting(each)
    return ""


def _wrong_boosting(each: Any) -> str:
    shape, outputs = np.shape(each.estimators_), getattr(each, "n_trees_per_iteration_", 1)
    return "" if shape[1:] == (1,) and outputs == 1 else "its trees are not those of two classes"


def _wrong_tree(tree: Any, width: int) -> str:
    if not 0 < tree.node_count <= tree.capacity or tree.n_outputs != 1 or tree.max_n_classes < 1:
        return "a tree of it is not as large as it says"
    left, right = tree.children_left, tree.children_right
    inner = left != -1
    return _wrong_nodes(
        np.flatnonzero(inner), left[inner], right[inner], tree.feature[inner], len(left), width
    )


def _wrong_predictor(predictor: Any, width: int) -> str:
    nodes = predictor.nodes
    if nodes.ndim != 1 or not len(nodes):
        return "a tree of it has no nodes"
    inner = nodes["is_leaf"] == 0
    if (nodes["is_categorical"][inner] != 0).any():
        return "a tree of it splits on categories, which can't be checked: make the flags numbers"
    split = nodes[inner]
    return _wrong_nodes(
        np.flatnonzero(inner), split["left"], split["right"], split["feature_idx"], len(nodes), width
    )


def _wrong_nodes(
    at: NDArray[np.intp],
    left: NDArray[Any],
    right: NDArray[Any],
    feature: NDArray[Any],
    count: int,
    width: int,
) -> str:
    """Look at the nodes that split, at places `at` of `count`: children come after them, and so it ends."""
    for child in (left.astype(np.int64), right.astype(np.int64)):
        if not ((child > at) & (child < count)).all():
            return _SPLIT
    return "" if ((feature >= 0) & (feature < width)).all() else _FEATURE
