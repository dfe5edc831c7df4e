"""Measures models on kicks that they had not seen: cross-validation, standard errors, the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.plugins import expit
from kickserve_scores.quality import assess
from kickserve_train.dataset import folds_of
from kickserve_train.families import BOOSTED, CONSTANT, LOGISTIC, RECALIBRATED, SPLINES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve_train.boosting import Boosted
    from kickserve_train.dataset import Dataset
    from kickserve_train.families import Logistic
    from kickserve_train.recalibration import Recalibrated

    Statistic = Callable[[NDArray[np.bool_]], NDArray[np.float64]]

_BLOCKS: Final = 40
_NAMES: Final = ("brier", "log_loss", "ece", "auc")


class Measure(Struct, kw_only=True, frozen=True):
    """A number and its standard error."""

    value: float
    se: float


class Measures(Struct, kw_only=True, frozen=True):
    """How good predictions were; `kickserve_scores.quality.assess` has the definitions."""

    brier: Measure
    log_loss: Measure
    ece: Measure
    auc: Measure


class Candidate(Struct, kw_only=True, frozen=True):
    """A family that was tried.

    Attributes:
        kind: its name.
        measured: how good it is, before calibration, on kicks that it had not seen.
        behind: how much more log loss it has than the best; the error is that of the difference.
    """

    kind: str
    measured: Measures
    behind: Measure


class Evaluator:
    """Measures predictions of the same kicks.

    Standard errors are those of a jackknife that leaves out one of 40 blocks at a time (Kott 2001, "The
    delete-a-group jackknife"); a block holds whole groups, so that the kicks of one kicker, which are alike,
    don't count as independent.

    Args:
        success: shape (n,), the outcome of each kick; both outcomes are among them.
        groups: shape (n,), as of `kickserve_train.dataset.groups_of`.
        seed: of how groups are put into blocks.
    """

    def __init__(self, success: NDArray[np.bool_], groups: NDArray[np.intp], seed: int) -> None:
        self._success = success
        blocks = folds_of(groups, _BLOCKS, seed)
        # Some are empty where there are few groups, and some may leave one outcome only.
        kept = [blocks != block for block in np.unique(blocks)]
        self._kept = [mask for mask in kept if success[mask].any() and not success[mask].all()]

    def measure(self, prediction: NDArray[np.float64]) -> Measures:
        """Measure probabilities, shape (n,)."""
        return self._with_errors(lambda mask: _statistics(prediction[mask], self._success[mask]))

    def difference(self, mine: NDArray[np.float64], other: NDArray[np.float64]) -> Measures:
        """Measure how much more each measure is of some probabilities than of others, both of shape (n,)."""

        def statistic(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
            success = self._success[mask]
            return _statistics(mine[mask], success) - _statistics(other[mask], success)

        return self._with_errors(statistic)

    def loss_difference(self, mine: NDArray[np.float64], other: NDArray[np.float64]) -> Measure:
        """Measure how much more log loss some log-odds have than others; shape (n,) each."""
        sign = np.where(self._success, -1, 1)
        more = np.logaddexp(0, sign * mine) - np.logaddexp(0, sign * other)
        without = np.array([[more[mask].mean()] for mask in self._kept])
        return Measure(value=float(more.mean()), se=float(_jackknife(without)[0]))

    def _with_errors(self, statistic: Statistic) -> Measures:
        values = statistic(np.ones(len(self._success), dtype=bool))
        errors = _jackknife(np.array([statistic(mask) for mask in self._kept]))
        pairs = zip(_NAMES, values.tolist(), errors.tolist(), strict=True)
        return Measures(**{name: Measure(value=value, se=error) for name, value, error in pairs})


def _statistics(prediction: NDArray[np.float64], success: NDArray[np.bool_]) -> NDArray[np.float64]:
    quality = assess(prediction, success)
    return np.array([getattr(quality, name) for name in _NAMES], dtype=np.float64)


def _jackknife(without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard errors, shape (m,), of m statistics, each worked out without each block: (b, m)."""
    count = len(without)
    result: NDArray[np.float64] = np.sqrt((count - 1) / count * np.sum((without - without.mean(0)) ** 2, 0))
    return result


def cross_validate(
    families: Sequence[Logistic | Boosted | Recalibrated],
    dataset: Dataset,
    folds: NDArray[np.intp],
    seed: int,
    advance: Callable[[str], None],
) -> dict[str, NDArray[np.float64]]:
    """Return for each family the log-odds of each kick, shape (n,), by models that had not seen its fold."""
    found = {family.kind: np.empty(len(dataset)) for family in families}
    for family in families:
        for fold in np.unique(folds):
            here = folds == fold
            model = family.fit(dataset.take(~here), seed)
            found[family.kind][here] = model.log_odds(dataset.matrix[here])
            advance(f"comparing: {family.kind}")
    return found


def candidates_of(found: Mapping[str, NDArray[np.float64]], evaluator: Evaluator) -> list[Candidate]:
    """Measure the log-odds of `cross_validate`, in its order."""
    measured = {kind: evaluator.measure(expit(z)) for kind, z in found.items()}
    best = min((kind for kind in found if kind != CONSTANT), key=lambda kind: measured[kind].log_loss.value)
    return [
        Candidate(kind=kind, measured=measured[kind], behind=evaluator.loss_difference(z, found[best]))
        for kind, z in found.items()
    ]


def choose(candidates: Sequence[Candidate]) -> str:
    """Return the first family that is within one standard error of the best.

    The rule is that of Breiman et al. 1984 (section 3.4.3), with the error of the difference between the two
    log losses: they are of the same kicks, so that the difficulty of these cancels out. A recalibrated model
    comes first; of the families from scratch the splines do, as they hold the logistic regression's formula,
    and what it may be wrong by. The constant is not among the choices.
    """
    behind = {each.kind: each.behind for each in candidates}
    return next(
        kind
        for kind in (RECALIBRATED, SPLINES, LOGISTIC, BOOSTED)
        if kind in behind and behind[kind].value <= behind[kind].se
    )
