"""Compares families of models by cross-validation; picks the simplest that is about as good as the best."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from kickserve.documents import expit
from kickserve.errors import MissingExtra
from kickserve_train.families import (
    BOOSTED,
    CONSTANT,
    KINDS,
    LOGISTIC,
    SPLINES,
    Constant,
    logistic,
    splines,
)
from kickserve_train.measures import Judge, Measured, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve_train.data import Known
    from kickserve_train.families import Family


class Candidate(Struct, kw_only=True, frozen=True):
    """A family that was tried.

    Attributes:
        kind: its name.
        measured: how good it is, before calibration, on kicks that it had not seen.
        behind: how much more log loss it has than the best; the error is that of the difference.
    """

    kind: str
    measured: Measured
    behind: Value


def families_for(known: Known, kind: str | None) -> tuple[list[Family], list[str]]:
    """Make the families to compare, from simple to rich, and say what is left out.

    Args:
        known: the kicks, for what families take from features alone.
        kind: the one that is asked for, which is then the only one beside the constant.

    Raises:
        MissingExtra: what is asked for needs scikit-learn, and it is not installed.
    """
    kinds = KINDS if kind is None else (kind,)
    families: list[Family] = [Constant()]
    families += [make(known) for name, make in ((LOGISTIC, logistic), (SPLINES, splines)) if name in kinds]
    if BOOSTED not in kinds:
        return families, []
    if find_spec("sklearn") is None:
        error = MissingExtra("boosting", "train", ["scikit-learn"])
        if kind == BOOSTED:
            raise error
        return families, [f"boosted trees are not among what was compared: {error}"]
    from kickserve_train.boosting import Boosted

    return [*families, Boosted()], []


def cross_validate(
    families: Sequence[Family],
    known: Known,
    folds: NDArray[np.intp],
    seed: int,
    advance: Callable[[str], None],
) -> dict[str, NDArray[np.float64]]:
    """Return for each family the log-odds of each kick, shape (n,), by models that had not seen its fold."""
    found = {family.kind: np.empty(len(known)) for family in families}
    for family in families:
        for fold in np.unique(folds):
            here = folds == fold
            model = family.fit(known.take(~here), seed)
            found[family.kind][here] = model.log_odds(known.matrix[here])
            advance(f"comparing: {family.kind}")
    return found


def candidates_of(found: Mapping[str, NDArray[np.float64]], judge: Judge) -> list[Candidate]:
    """Measure what cross-validation found, in its order."""
    measured = {kind: judge.measure(expit(z)) for kind, z in found.items()}
    best = min((kind for kind in found if kind != CONSTANT), key=lambda kind: measured[kind].log_loss.value)
    return [
        Candidate(kind=kind, measured=measured[kind], behind=judge.loss_difference(z, found[best]))
        for kind, z in found.items()
    ]


def choose(candidates: Sequence[Candidate]) -> str:
    """Return the first family, from simple to rich, that is within one standard error of the best.

    The rule is that of Breiman et al. 1984 (section 3.4.3), with the error of the difference between the two
    log losses: they are of the same kicks, so that what makes these hard or easy cancels out. The constant
    is not among the choices.
    """
    return next(
        each.kind for each in candidates if each.kind != CONSTANT and each.behind.value <= each.behind.se
    )
