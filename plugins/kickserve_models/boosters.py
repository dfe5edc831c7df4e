"""XGBoost and LightGBM: classifiers in files of their own formats, and the trees of their boosters."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from kickserve.errors import first_line
from kickserve.features import COUNT
from kickserve.plugins import expit
from kickserve_models.walked import Part, constant, of_features, sum_of
from kickserve_trees.walk import Nodes, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Origin
    from kickserve_models.walked import Map, Numbers

_LOGISTIC: Final = ("binary:logistic", "reg:logistic")
_HIGHEST: Final = 88.7  # exponent that XGBoost computes
_CATEGORY: Final = 0b0001  # bits of a decision's type in LightGBM
_MISSING: Final = 0b1100
_ZERO_IS_MISSING: Final = 0b0100


def read_xgboost(data: bytes, origin: Origin) -> Any:
    """Return the classifier in a file of XGBoost's own, JSON or UBJSON; raises as `read_lightgbm`."""
    _need("xgboost", origin)
    import xgboost

    classifier = xgboost.XGBClassifier(n_jobs=1)
    try:
        classifier.load_model(bytearray(data))
        _check([_xgboost_nodes(tree) for tree in _learner(classifier.get_booster())[0]])
    except Exception as error:  # its errors have nothing else in common
        raise _spoilt(error, "XGBoost", origin) from error
    return classifier


def read_lightgbm(data: bytes, origin: Origin) -> Any:
    """Return the classifier in a file of LightGBM's own, text.

    Args:
        data: the file.
        origin: where it came from.

    Raises:
        ModelUnusable: it can't be read, or splits on categories or unknown features, or a library is missing.
    """
    _need("lightgbm", origin)
    try:
        _check([tree.nodes for tree in _lightgbm_trees(data.decode())[1]])
        classifier = LightGBMFile(data)
    except Exception as error:  # as above
        raise _spoilt(error, "LightGBM", origin) from error
    return classifier


def _need(module: str, origin: Origin) -> None:
    packages = {module: module, "sklearn": "scikit-learn"}
    if missing := [package for name, package in packages.items() if find_spec(name) is None]:
        names = " and ".join(missing)
        raise origin.unusable(
            f"it takes {names}: pip install {' '.join(missing)}, or export the model to ONNX"
        )


def _check(trees: Sequence[Nodes]) -> None:
    """Refuse trees that would send the library anywhere: its compiled code does not look."""
    Walk(trees)
    features = np.concatenate([tree.feature[tree.left >= 0] for tree in trees])
    if np.any((features < 0) | (features >= COUNT)):
        raise ValueError("a tree of it splits on an unknown feature")


def _spoilt(error: Exception, library: str, origin: Origin) -> Exception:
    return origin.unusable(f"{library} can't read it ({first_line(error)}): save it again")


# XGBoost.


def xgboost_part(booster: Any, prepare: Map) -> Part:
    """Read the trees off a booster of XGBoost; raises as `kickserve_models.forests.read_parts`."""
    trees, learner = _learner(booster)
    if learner["gradient_booster"]["name"] != "gbtree" or learner["objective"]["name"] not in _LOGISTIC:
        raise ValueError("it is no sum of trees, or gives no log-odds")
    nodes = [_xgboost_nodes(tree) for tree in trees]
    # It computes in single precision: so does this, and in its order.
    one, share = np.float32(1), np.float32(learner["learner_model_param"]["base_score"].strip("[]"))
    base = constant(np.float32(-math.log(one / share - one)))

    def link(score: Numbers) -> Numbers:
        odds: Numbers = np.exp(np.minimum(-score, _HIGHEST), dtype=np.float64).astype(np.float32)
        return one / (one + odds)

    return Part([base, *of_features(nodes, prepare, _is_less)], sum_of, link)


def _learner(booster: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the trees that a booster predicts with, and all that it knows."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"]
    model = model.get("gbtree", model)["model"]  # of a dart
    trees = model["trees"]
    if "best_iteration" in learner["attributes"]:
        rounds = int(learner["attributes"]["best_iteration"]) + 1
        trees = trees[: rounds * int(model["gbtree_model_param"]["num_parallel_tree"])]
    return trees, learner


def _xgboost_nodes(tree: Mapping[str, Any]) -> Nodes:
    if any(tree["split_type"]):
        raise ValueError("a tree of it splits on categories: make the flags numbers")
    numbers = np.array(tree["split_conditions"], np.float32)  # a leaf has its value there
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    return Nodes(np.array(tree["split_indices"]), numbers, left, right, numbers)


def _is_less(column: Numbers, threshold: Numbers) -> NDArray[np.bool_]:
    return column.astype(np.float32) < threshold


# LightGBM.


class LightGBMFile:
    """A classifier of LightGBM's own kind of file, with as much of scikit-learn's interface as it needs.

    Args:
        data: the file.

    Attributes:
        booster: computes it.
        classes_: 0 and 1.
        n_features_in_: how many it takes.
        feature_names_in_: their names; missing where the file has none.
    """

    def __init__(self, data: bytes) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_str=data.decode())
        self.classes_ = np.arange(2)
        names = self.booster.feature_name()
        self.n_features_in_ = len(names)
        if names != [f"Column_{at}" for at in range(len(names))]:
            self.feature_names_in_ = np.array(names)

    def predict_proba(self, matrix: Numbers) -> Numbers:
        """Predict n kicks, shape (n, 11), their columns as in training; shape (n, 2)."""
        second = np.asarray(self.booster.predict(matrix, num_threads=1))
        return np.column_stack([1 - second, second])


class _LightGBMTree(NamedTuple):
    nodes: Nodes
    takes_zero_as_missing: bool


def lightgbm_part(booster: Any, prepare: Map) -> Part:
    """Read the trees off a booster of LightGBM; raises as `kickserve_models.forests.read_parts`."""
    header, trees = _lightgbm_trees(booster.model_to_string())
    objective, *settings = header["objective"].split()
    if objective != "binary" or any(tree.takes_zero_as_missing for tree in trees):
        raise ValueError("it gives no log-odds, or takes 0 as missing")
    steepness = float(dict(each.split(":") for each in settings)["sigmoid"])
    count = len(trees) if "average_output" in header else 1
    return Part(
        of_features([tree.nodes for tree in trees], prepare, np.less_equal),
        lambda values: sum_of(values) / count,
        lambda score: expit(steepness * score),
    )


def _lightgbm_trees(text: str) -> tuple[dict[str, str], list[_LightGBMTree]]:
    """Return the fields at the head of a file, and its trees."""
    header, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    return _fields(header), [_lightgbm_tree(_fields(tree)) for tree in trees]


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in lines}


def _lightgbm_tree(fields: Mapping[str, str]) -> _LightGBMTree:
    """Number the leaves behind the inner nodes: the file counts both from 0, and writes leaf l as -1 - l."""
    kinds, features, left, right = (
        np.array(fields.get(name, "").split(), np.intp)
        for name in ("decision_type", "split_feature", "left_child", "right_child")
    )
    if np.any(kinds & _CATEGORY) or fields.get("is_linear", "0") != "0":
        raise ValueError("a tree of it splits on categories, or its leaves are linear: make it without")
    thresholds = np.array(fields.get("threshold", "").split(), np.float64)
    values = np.array(fields["leaf_value"].split(), np.float64)
    leaves = np.full(len(values), -1)
    left, right = (
        np.concatenate([np.where(child < 0, len(child) - 1 - child, child), leaves])
        for child in (left, right)
    )
    numbers = np.concatenate([thresholds, values])
    nodes = Nodes(np.concatenate([features, leaves]), numbers, left, right, numbers)
    return _LightGBMTree(nodes, bool(np.any(kinds & _MISSING == _ZERO_IS_MISSING)))
