"""Reads the trees off a fitted scikit-learn classifier, whatever it is wrapped in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import COUNT
from kickserve.plugins import expit
from kickserve_models.boosters import lightgbm_part, xgboost_part
from kickserve_models.estimators import is_affine
from kickserve_models.walked import Part, constant, of_features, sum_of
from kickserve_trees.walk import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kickserve_models.walked import Map, Numbers


def read_parts(estimator: Any, prepare: Map) -> list[Part]:
    """Read the trees off a fitted classifier of two classes.

    Known are trees, forests and boosting of scikit-learn, XGBoost and LightGBM, behind scalers and column
    transformers, calibrated or not. The caller compares the probabilities of both: another version of a
    library may compute something else.

    Args:
        estimator: changed by `kickserve_models.estimators.drop_feature_names`.
        prepare: takes kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, to its columns.

    Raises:
        Exception: any, where it is another, has settings that make it another, or is not as its library
            makes it.
    """
    kind = type(estimator)
    return _READERS[f"{kind.__module__.partition('.')[0]}.{kind.__name__}"](estimator, prepare)


def _of_pipeline(estimator: Any, prepare: Map) -> list[Part]:
    *steps, last = (step for _, step in estimator.steps if step not in (None, "passthrough"))
    if not all(map(is_affine, steps)):
        raise ValueError("a step of it bends")

    def prepare_further(kicks: Numbers) -> Numbers:
        columns = prepare(kicks)
        for step in steps:
            columns = step.transform(columns)
        return columns

    return read_parts(last, prepare_further)


def _of_calibrated(estimator: Any, prepare: Map) -> list[Part]:
    return [_of_one_calibrated(each, prepare) for each in estimator.calibrated_classifiers_]


def _of_one_calibrated(estimator: Any, prepare: Map) -> Part:
    [part], [calibrator] = read_parts(estimator.estimator, prepare), estimator.calibrators
    if hasattr(estimator.estimator, "decision_function"):
        return part._replace(link=calibrator.predict)
    return part._replace(link=lambda score: calibrator.predict(part.link(score)))


def _of_tree(estimator: Any, prepare: Map) -> list[Part]:
    return _mean_of([estimator], prepare)


def _of_forest(estimator: Any, prepare: Map) -> list[Part]:
    return _mean_of(estimator.estimators_, prepare)


def _mean_of(estimators: Sequence[Any], prepare: Map) -> list[Part]:
    shares = [each.tree_.value[:, 0] for each in estimators]
    trees = [
        _nodes(each.tree_, share[:, 1] / share.sum(axis=1))
        for each, share in zip(estimators, shares, strict=True)
    ]
    return [
        Part(
            of_features(trees, prepare, _is_at_most_in_single),
            lambda values: sum_of(values) / len(values),
            lambda score: score,
        )
    ]


def _of_boosting(estimator: Any, prepare: Map) -> list[Part]:
    rate, factor = estimator.learning_rate, 2.0 if estimator.loss == "exponential" else 1.0
    trees = [_nodes(each.tree_, rate * each.tree_.value[:, 0, 0]) for [each] in estimator.estimators_]
    [[base]] = estimator._raw_predict_init(np.zeros((1, COUNT)))  # noqa: SLF001  no other name has it
    trees = [constant(base), *of_features(trees, prepare, _is_at_most_in_single)]
    return [Part(trees, sum_of, expit if factor == 1 else lambda score: expit(factor * score))]


def _of_histograms(estimator: Any, prepare: Map) -> list[Part]:
    if estimator.is_categorical_ is not None:
        raise ValueError("it splits on categories")
    trees = [_nodes_of_predictor(each.nodes) for [each] in estimator._predictors]  # noqa: SLF001  as above
    base = constant(estimator._baseline_prediction.item())  # noqa: SLF001  as above
    return [Part([base, *of_features(trees, prepare, np.less_equal)], sum_of, expit)]


def _nodes(tree: Any, value: Numbers) -> Nodes:
    return Nodes(tree.feature, tree.threshold, tree.children_left, tree.children_right, value)


def _nodes_of_predictor(nodes: Any) -> Nodes:
    left = np.where(nodes["is_leaf"], -1, nodes["left"].astype(np.intp))
    right = nodes["right"].astype(np.intp)
    return Nodes(nodes["feature_idx"], nodes["num_threshold"], left, right, nodes["value"])


def _is_at_most_in_single(column: Numbers, threshold: Numbers) -> Any:
    return column.astype(np.float32) <= threshold  # scikit-learn's trees take kicks of single precision


_READERS: Final[Mapping[str, Callable[[Any, Map], list[Part]]]] = {
    "kickserve_models.LightGBMFile": lambda file, prepare: [lightgbm_part(file.booster, prepare)],
    "lightgbm.LGBMClassifier": lambda classifier, prepare: [lightgbm_part(classifier.booster_, prepare)],
    "sklearn.CalibratedClassifierCV": _of_calibrated,
    "sklearn.DecisionTreeClassifier": _of_tree,
    "sklearn.ExtraTreesClassifier": _of_forest,
    "sklearn.GradientBoostingClassifier": _of_boosting,
    "sklearn.HistGradientBoostingClassifier": _of_histograms,
    "sklearn.Pipeline": _of_pipeline,
    "sklearn.RandomForestClassifier": _of_forest,
    "xgboost.XGBClassifier": lambda classifier, prepare: [xgboost_part(classifier.get_booster(), prepare)],
}
