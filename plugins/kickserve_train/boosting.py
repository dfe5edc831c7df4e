"""Boosted trees that never say that further away, or further aside, is easier; fitted by scikit-learn.

The module needs scikit-learn, so it is imported where a model is trained, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from kickserve.documents import expit
from kickserve.errors import ModelUnusable
from kickserve.features import NAMES
from kickserve_train.families import BOOSTED
from kickserve_train.folds import folds_of, groups_of
from kickserve_trees.ensembles import MOST_LEAVES, Ensemble, Sums, Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kickserve_train.data import Known
    from kickserve_train.families import Fitted

REFITS: Final = 12
"""Fits that the error of a boosted model is estimated from."""

_MOST_TREES: Final = 300
_RATE: Final = 0.05
_LEAST_IN_LEAF: Final = 20
_ASIDE: Final = 5  # one part in so many of the kicks tells how many trees are best
_VARIANCE_TREES: Final = 60
_VARIANCE_LEAST: Final = 1e-8
_EXACT: Final = 1e-9
_COMPARED: Final = 1_000
_MONOTONE: Final = [-1 if name in {"distance", "angle"} else 0 for name in NAMES]


class Boosted:
    """Boosted trees; how many is found on a part of the kicks that is then taken in again."""

    kind = BOOSTED

    def fit(self, known: Known, seed: int) -> BoostedFitted:
        """Fit it."""
        trees = _best_count(known, seed)
        return BoostedFitted(ensemble_of(_classifier(known, trees, seed), known.matrix), trees)


class BoostedFitted(NamedTuple):
    """Fitted boosted trees, and how many there are."""

    ensemble: Ensemble
    trees: int

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-odds of n kicks, shape (n,)."""
        return _sum(self.ensemble, matrix)


def errors_of(
    fitted: BoostedFitted, smooth: Fitted, known: Known, seed: int, advance: Callable[[], None]
) -> Ensemble:
    """Learn how far boosted trees are from the truth, kick by kick, where the truth is known.

    A parametric bootstrap (Efron & Tibshirani 1993, chapter 6): the truth is taken to be a smooth model of
    the same kicks, outcomes are drawn from it, trees are fitted to them as they were to the kicks, and their
    squared distance from that truth, in log-odds, is averaged. So what is smoothed away counts as much as
    what is due to chance. Other trees learn the average as a function of the features.

    Args:
        fitted: how many trees to fit.
        smooth: the model that stands for the truth.
        known: the kicks.
        seed: of the outcomes that are drawn.
        advance: called after each of the `REFITS` fits.

    Returns:
        Trees that add up to the logarithm of the mean squared error.
    """
    truth = smooth.log_odds(known.matrix)
    chance, squares = expit(truth), np.zeros(len(known))
    for number in range(REFITS):
        drawn = np.random.default_rng([seed, 3, number]).random(len(known)) < chance
        again = _classifier(known.with_success(drawn), fitted.trees, seed)
        squares += (_sum(ensemble_of(again, known.matrix), known.matrix) - truth) ** 2
        advance()
    return _learnt(known.matrix, np.maximum(squares / REFITS, _VARIANCE_LEAST), seed)


def ensemble_of(model: Any, matrix: NDArray[np.float64]) -> Ensemble:
    """Read the trees out of a fitted model of scikit-learn.

    Args:
        model: a `HistGradientBoostingClassifier` for two classes, or such a regressor.
        matrix: kicks, shape (n, 11), to make sure that the trees say what the model says.

    Raises:
        ModelUnusable: they don't, as scikit-learn keeps its trees in another way.
    """
    base = float(np.ravel(model._baseline_prediction)[0])  # noqa: SLF001  no public attribute has it
    ensemble = Ensemble(base=base, trees=[_tree(each[0].nodes) for each in model._predictors])  # noqa: SLF001
    some = matrix[:_COMPARED]
    if not np.allclose(_sum(ensemble, some), _raw(model, some), rtol=0, atol=_EXACT):
        raise ModelUnusable(
            "the trees that scikit-learn made can't be read: this release keeps them in another way."
            " Install scikit-learn 1.9, or choose --kind logistic"
        )
    return ensemble


def _raw(model: Any, matrix: NDArray[np.float64]) -> Any:
    with threadpool_limits(1):
        return np.ravel(model._raw_predict(matrix))  # noqa: SLF001  public for classifiers alone


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


def _classifier(known: Known, trees: int, seed: int) -> Any:
    model = HistGradientBoostingClassifier(max_iter=trees, monotonic_cst=_MONOTONE, **_settings(seed))
    with threadpool_limits(1):  # threads add up in an order of their own: the last bits would differ
        return model.fit(known.matrix, known.success)


def _aside(known: Known, seed: int) -> NDArray[np.bool_]:
    """Choose a part of the kicks, shape (n,): whole groups, or where most are of one group, any of them."""
    folds = folds_of(groups_of(known), _ASIDE, seed)
    if folds.min() > 0 or folds.max() == 0:
        folds = folds_of(np.arange(len(known)), _ASIDE, seed)
    aside: NDArray[np.bool_] = folds == 0
    return aside


def _best_count(known: Known, seed: int) -> int:
    aside = _aside(known, seed)
    told = known.take(aside)
    model = _classifier(known.take(~aside), _MOST_TREES, seed)
    with threadpool_limits(1):
        staged = [np.ravel(each) for each in model._staged_raw_predict(told.matrix)]  # noqa: SLF001  quicker
    sign = np.where(told.success, -1, 1)
    losses = [float(np.logaddexp(0, sign * z).mean()) for z in staged]
    return int(np.argmin(losses)) + 1


def _learnt(matrix: NDArray[np.float64], squares: NDArray[np.float64], seed: int) -> Ensemble:
    # The gamma deviance makes its trees add up to the logarithm of the mean, whatever the spread about it.
    model = HistGradientBoostingRegressor(loss="gamma", max_iter=_VARIANCE_TREES, **_settings(seed))
    with threadpool_limits(1):
        model.fit(matrix, squares)
    return ensemble_of(model, matrix)
