"""Boosted trees that never say that further away, or further aside, is easier; fitted by scikit-learn.

The module needs scikit-learn, so only a training that compares boosted trees imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from kickserve.features import NAMES
from kickserve.plugins import ModelUnusable, expit
from kickserve_train.dataset import folds_of, groups_of
from kickserve_train.families import BOOSTED
from kickserve_trees.ensembles import MOST_LEAVES, Ensemble, Sums, Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve_train.dataset import Dataset
    from kickserve_train.families import LogisticFit

REFITS: Final = 12
"""Fits that the error of a boosted model is estimated from."""

_MOST_TREES: Final = 300
_RATE: Final = 0.05
_LEAST_IN_LEAF: Final = 20
_ASIDE: Final = 5  # one part in so many of the kicks decides how many trees are best
_VARIANCE_TREES: Final = 60
_VARIANCE_LEAST: Final = 1e-8
_EXACT: Final = 1e-9
_COMPARED: Final = 1_000
_MONOTONE: Final = [-1 if name in {"distance", "angle"} else 0 for name in NAMES]


class Boosted:
    """Boosted trees; their number is found on a part of the kicks, and they are then fitted to all."""

    kind = BOOSTED

    def fit(self, dataset: Dataset, seed: int) -> BoostedFit:
        """Fit it."""
        trees = _best_count(dataset, seed)
        return BoostedFit(ensemble_of(_classifier(dataset, trees, seed), dataset.matrix), trees)


class BoostedFit(NamedTuple):
    """Fitted boosted trees, and how many there are."""

    ensemble: Ensemble
    trees: int

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of n kicks, shape (n,)."""
        return _sum(self.ensemble, matrix)


def fit_variance(
    fitted: BoostedFit, smooth: LogisticFit, dataset: Dataset, seed: int, advance: Callable[[str], None]
) -> Ensemble:
    """Fit trees to the squared error of boosted trees, kick by kick, in a world where the truth is known.

    A parametric bootstrap (Efron & Tibshirani 1993, chapter 6): the truth is taken to be a smooth model of
    the same kicks, outcomes are drawn from it, trees are fitted to them as they were to the kicks, and their
    squared distance from that truth, in log-odds, is averaged. So the bias of the trees counts as much as
    chance does. Other trees learn the average as a function of the features.

    Args:
        fitted: how many trees to fit.
        smooth: the model that is taken for the truth.
        dataset: the kicks.
        seed: of the outcomes that are drawn.
        advance: called after each of the `REFITS` fits.

    Returns:
        Trees that add up to the logarithm of the mean squared error.
    """
    truth = smooth.log_odds(dataset.matrix)
    chance, squares = expit(truth), np.zeros(len(dataset))
    for number in range(REFITS):
        drawn = np.random.default_rng([seed, 3, number]).random(len(dataset)) < chance
        again = _classifier(dataset.with_success(drawn), fitted.trees, seed)
        squares += (_sum(ensemble_of(again, dataset.matrix), dataset.matrix) - truth) ** 2
        advance("measuring the error")
    # The gamma deviance makes its trees add up to the logarithm of the mean, whatever the spread about it.
    model = HistGradientBoostingRegressor(loss="gamma", max_iter=_VARIANCE_TREES, **_settings(seed))
    with threadpool_limits(1):
        model.fit(dataset.matrix, np.maximum(squares / REFITS, _VARIANCE_LEAST))
    return ensemble_of(model, dataset.matrix)


def ensemble_of(model: Any, matrix: NDArray[np.float64]) -> Ensemble:
    """Read the trees out of a fitted model of scikit-learn.

    Args:
        model: a `HistGradientBoostingClassifier` for two classes, or such a regressor.
        matrix: kicks, shape (n, 11), to make sure that the trees predict the same as the model.

    Raises:
        ModelUnusable: they don't, as scikit-learn keeps its trees in another way.
    """
    base = float(np.ravel(model._baseline_prediction)[0])  # noqa: SLF001  no public attribute has it
    ensemble = Ensemble(base=base, trees=[_tree(each[0].nodes) for each in model._predictors])  # noqa: SLF001
    some = matrix[:_COMPARED]
    with threadpool_limits(1):
        raw = np.ravel(model._raw_predict(some))  # noqa: SLF001  public for classifiers alone
    if not np.allclose(_sum(ensemble, some), raw, rtol=0, atol=_EXACT):
        raise ModelUnusable(
            "the trees that scikit-learn made can't be read: this release keeps them in another way."
            " Install scikit-learn 1.9, or choose --kind logistic"
        )
    return ensemble


def _sum(ensemble: Ensemble, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = Sums([ensemble]).of_many(matrix)[0]
    return sums


def _tree(nodes: Any) -> Tree:
    """Turn the nodes of scikit-learn, in whatever order, into a tree of the file."""
    inner: dict[int, int] = {}
    leaves: dict[int, int] = {}

    def number(node: int) -> None:
        if nodes[node]["is_leaf"]:
            leaves[node] = len(leaves)
            return
        inner[node] = len(inner)
        number(int(nodes[node]["left"]))
        number(int(nodes[node]["right"]))

    def child(node: int) -> int:
        return inner[node] if node in inner else -1 - leaves[node]

    number(0)
    return Tree(
        feature=[int(nodes[node]["feature_idx"]) for node in inner],
        threshold=[float(nodes[node]["num_threshold"]) for node in inner],
        left=[child(int(nodes[node]["left"])) for node in inner],
        right=[child(int(nodes[node]["right"])) for node in inner],
        value=[float(nodes[node]["value"]) for node in leaves],
    )


def _settings(seed: int) -> dict[str, Any]:
    return {
        "learning_rate": _RATE,
        "max_leaf_nodes": MOST_LEAVES,
        "min_samples_leaf": _LEAST_IN_LEAF,
        "l2_regularization": 1.0,
        "early_stopping": False,
        "random_state": seed,
    }


def _classifier(dataset: Dataset, trees: int, seed: int) -> Any:
    model = HistGradientBoostingClassifier(max_iter=trees, monotonic_cst=_MONOTONE, **_settings(seed))
    with threadpool_limits(1):  # threads add up in an order of their own: the last bits would differ
        return model.fit(dataset.matrix, dataset.success)


def _best_count(dataset: Dataset, seed: int) -> int:
    """Return the number of trees with the least log loss on kicks that the trees were not fitted to.

    These kicks are whole groups, or, where most are of one group, any kicks.
    """
    folds = folds_of(groups_of(dataset), _ASIDE, seed)
    if folds.min() > 0 or folds.max() == 0:
        folds = folds_of(np.arange(len(dataset)), _ASIDE, seed)
    aside = dataset.take(folds == 0)
    model = _classifier(dataset.take(folds > 0), _MOST_TREES, seed)
    outcome = np.arange(len(aside)), aside.success.astype(np.intp)
    with threadpool_limits(1):
        likelihoods = [np.log(each[outcome]).mean() for each in model.staged_predict_proba(aside.matrix)]
    return int(np.argmax(likelihoods)) + 1
