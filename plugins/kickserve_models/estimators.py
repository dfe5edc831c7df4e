"""Walks through a fitted scikit-learn estimator: makes it take arrays, extracts weights, checks trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.impute import SimpleImputer
from sklearn.tree._tree import Tree

from kickserve.features import COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NAMES: Final = "feature_names_in_"
_OUTPUT: Final = "_sklearn_output_config"  # may ask for DataFrames between the steps

# Estimators that hand their input to their trees unchanged.
_DIRECT: Final = (
    "sklearn.tree.",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting.",
)
# Maps that are affine for every finite input, but for those of `_bends`; by the exact name, as a class that
# inherits may compute something else.
_AFFINE: Final = frozenset(
    {
        "ColumnTransformer",
        "FunctionTransformer",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MaxAbsScaler",
        "MinMaxScaler",
        "Pipeline",
        "RobustScaler",
        "SimpleImputer",
        "StandardScaler",
    }
)
_SPAN: Final = 64.0  # as wide as the features' ranges, and a power of 2, so that no division rounds
_SPLIT: Final = "a tree of it has a node that leads nowhere, or back"
_LOST: Final = "the file holds a tree outside of any model"
_FEATURE: Final = "a tree of it splits on an unknown feature"


def _children(part: Any) -> list[Any]:
    """Return the parts of an estimator, or of a structure within one; none of anything else."""
    if isinstance(part, dict):
        return list(part.values())
    if isinstance(part, list | tuple):
        return list(part)
    if isinstance(part, np.ndarray):
        return list(part.flat) if part.dtype == object else []
    if isinstance(part, BaseEstimator) or type(part).__module__.startswith("sklearn."):
        return list(getattr(part, "__dict__", {}).values())
    return []


# By name to by position.


def drop_feature_names(estimator: Any) -> None:
    """Change an estimator and its parts: columns by name become columns by position, names are forgotten.

    Otherwise a column transformer refuses an array, and every other part warns of missing names each time.
    It is also set to work in one thread, and quietly.
    """
    for part in list(_estimators(estimator)):
        if isinstance(part, ColumnTransformer):
            _select_by_position(part)
        for name in (_NAMES, _OUTPUT):
            part.__dict__.pop(name, None)
        if getattr(part, "n_jobs", None) is not None:
            part.n_jobs = 1
        if type(part).__module__.startswith("lightgbm."):
            part.set_params(verbose=-1)  # else it prints what it thinks of its parameters at each prediction


def _estimators(whole: Any) -> Iterator[BaseEstimator]:
    waiting, seen = [whole], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, BaseEstimator):
            yield part
        waiting += _children(part)


def _select_by_position(part: ColumnTransformer) -> None:
    names = list(getattr(part, _NAMES, []))
    if names:
        part.transformers_ = [
            (name, step, _positions(columns, names)) for name, step, columns in part.transformers_
        ]


def _positions(columns: Any, names: list[str]) -> Any:
    if isinstance(columns, str):
        return names.index(columns)
    if isinstance(columns, slice):
        return slice(_end(columns.start, names, 0), _end(columns.stop, names, 1), columns.step)
    if np.size(columns) and all(isinstance(each, str) for each in columns):
        return [names.index(each) for each in columns]
    return columns


def _end(end: Any, names: list[str], beyond: int) -> Any:
    return names.index(end) + beyond if isinstance(end, str) else end  # a slice of names includes its end


# Weights.


def extract_linear(estimator: Any) -> tuple[NDArray[np.float64], float]:
    """Return weights, shape (11,), and intercept of the log-odds of the second class, in the columns' order.

    Known are pipelines of scalers, imputers and column transformers, ended by a logistic regression. The
    caller compares the probabilities of both: another version of scikit-learn may compute something else.

    Args:
        estimator: fitted to eleven features, changed by `drop_feature_names`.

    Raises:
        ValueError: a part of it is no affine map, or unknown.
    """
    if not is_affine(estimator) or not hasattr(estimator, "decision_function"):
        raise ValueError("a part of it is no affine map, or unknown")
    # An affine map is known by its values at 0 and on each axis.
    kicks = np.vstack([np.zeros(COUNT), _SPAN * np.eye(COUNT)])
    values = np.asarray(estimator.decision_function(kicks), dtype=np.float64)
    return (values[1:] - values[0]) / _SPAN, float(values[0])


def is_affine(whole: Any) -> bool:
    """Return whether an estimator and its parts are affine maps for every kick."""
    return all(
        type(part).__module__.startswith("sklearn.") and type(part).__name__ in _AFFINE and not _bends(part)
        for part in _estimators(whole)
    )


def _bends(part: Any) -> bool:
    """Return whether settings make one of `_AFFINE` another kind of map."""
    if isinstance(part, SimpleImputer):  # no feature is ever missing here
        missing = part.missing_values
        return part.add_indicator or not isinstance(missing, float) or not np.isnan(missing)
    clips = getattr(part, "clip", False)  # MinMaxScaler, and MaxAbsScaler of newer versions
    return bool(clips) or getattr(part, "func", None) is not None


# A skops file runs no code, but its numbers may be made up, and scikit-learn's compiled code checks nothing.
# A tree with a node whose child is beyond the last, or the node itself, would crash the process or never end.


def wrong_tree(estimator: Any) -> str:
    """Return the fault of some tree in an estimator, as a clause; empty where there is none."""
    waiting: list[tuple[Any, int | None]] = [(estimator, None)]
    seen = set()
    while waiting:
        part, width = waiting.pop()
        if (id(part), width) in seen:
            continue
        seen.add((id(part), width))
        width = _width(part, width)
        if reason := _wrong_part(part, width):
            return reason
        waiting += [(child, width) for child in _children(part)]
    return ""


def _width(part: Any, width: int | None) -> int | None:
    """Return how many features reach the trees directly in an estimator; None where there may be none."""
    if not isinstance(part, BaseEstimator):
        return width
    if not type(part).__module__.startswith(_DIRECT):
        return None
    own = int(getattr(part, "n_features_in_", 0))
    return own if width is None else min(own, width)


def _wrong_part(part: Any, width: int | None) -> str:
    if isinstance(part, Tree):
        return _LOST if width is None else _wrong_tree(part, width)
    if isinstance(part, TreePredictor):
        return _LOST if width is None else _wrong_predictor(part, width)
    if type(part).__module__ == "sklearn.ensemble._gb":
        shape, outputs = np.shape(part.estimators_), getattr(part, "n_trees_per_iteration_", 1)
        return "" if shape[1:] == (1,) and outputs == 1 else "its trees are not those of two classes"
    return ""


def _wrong_tree(tree: Any, width: int) -> str:
    if not 0 < tree.node_count <= tree.capacity or tree.n_outputs != 1 or tree.max_n_classes < 1:
        return "a tree of it is not as large as it says"
    left, right = tree.children_left, tree.children_right
    inner = left != -1
    places = np.flatnonzero(inner)
    return _wrong_nodes(places, (left[inner], right[inner]), tree.feature[inner], len(left), width)


def _wrong_predictor(predictor: Any, width: int) -> str:
    nodes = predictor.nodes
    if nodes.ndim != 1 or not len(nodes):
        return "a tree of it has no nodes"
    inner = nodes["is_leaf"] == 0
    if (nodes["is_categorical"][inner] != 0).any():
        return "a tree of it splits on categories, which can't be checked: make the flags numbers"
    split = nodes[inner]
    children = (split["left"], split["right"])
    return _wrong_nodes(np.flatnonzero(inner), children, split["feature_idx"], len(nodes), width)


def _wrong_nodes(
    places: NDArray[np.intp],
    children: tuple[NDArray[Any], NDArray[Any]],
    feature: NDArray[Any],
    count: int,
    width: int,
) -> str:
    """Check the nodes that split, at `places` among `count`: children come later, so that a walk ends."""
    for side in children:
        child = side.astype(np.int64)
        if not ((child > places) & (child < count)).all():
            return _SPLIT
    return "" if ((feature >= 0) & (feature < width)).all() else _FEATURE
