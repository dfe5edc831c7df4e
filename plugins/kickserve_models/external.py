"""The common part of models that were made elsewhere: a card, no interval, and no domain to warn of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import FEATURES, INDEX, NAMES
from kickserve.plugins import Answer
from kickserve.schemas import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Origin, Profile

_USUAL: Final = frozenset({0, 1})  # missed and succeeded; true and false are them too


class ExternalModel:
    """All of `kickserve.model.Model` but `predict`, for a model without interval and warnings.

    Args:
        card: of the model.

    Attributes:
        limit: seconds that a call for many kicks may take; it counts where a model has `cancel`.
    """

    limit = 100.0

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def warnings(self, row: Sequence[float]) -> list[str]:  # noqa: ARG002  the protocol gives it one
        """Warn of nothing: its file says nothing of the kicks that it was trained on."""
        return []

    def out_of_domain(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return false for each of n kicks, shape (n, 11); shape (n,)."""
        return np.zeros(len(matrix), dtype=np.bool_)


class LogisticModel(ExternalModel):
    """expit(weights · features + intercept), without an interval.

    Args:
        card: of the model.
        weights: log-odds a unit of each feature, shape (11,), in the order of `kickserve.features.NAMES`.
        intercept: log-odds.
    """

    def __init__(self, card: ModelCard, weights: NDArray[np.float64], intercept: float) -> None:
        super().__init__(card)
        self._weights = weights
        self._intercept = intercept

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        z = np.einsum("ij,j->i", matrix, self._weights) + self._intercept  # in one thread, unlike @
        return Answer(0.5 + 0.5 * np.tanh(0.5 * z), None, None)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`; flags may be booleans.

        Returns:
            Probability, to the bit as `predict` gives it, and NaN twice: it gives no interval.
        """
        [probability] = self.predict(np.array([row], np.float64)).probability.tolist()
        return probability, math.nan, math.nan


def card_of(
    origin: Origin, data: bytes, kind: str, description: str, trained_on: Mapping[str, str]
) -> ModelCard:
    """Make the card of a model that brings none.

    Args:
        origin: where it came from.
        data: its file.
        kind: the library that computes it.
        description: one paragraph.
        trained_on: provenance, as far as its file has it.
    """
    return ModelCard(
        name=origin.name,
        revision=origin.revision(data),
        kind=kind,
        source=origin.source,
        description=description,
        features=list(NAMES),
        domain={},
        interval=None,
        trained_on=dict(trained_on),
        metrics={},
    )


def wrong_inputs(names: Sequence[str]) -> str:
    """Return the fault in the names of a model's inputs, as a clause; empty where there is none."""
    missing = [name for name in NAMES if name not in names]
    too_many = [name for name in names if name not in INDEX]
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"asks for {', '.join(too_many)}, which kickserve doesn't have"] if too_many else []
    return f"it must take the eleven features of a kick, and {' and '.join(parts)}" if parts else ""


def success_at(labels: Sequence[Any], wanted: str | None, origin: Origin) -> int:
    """Return which of the labels of a model is that of a kick that succeeds, by its place.

    Args:
        labels: numbers, booleans or words; two of them.
        wanted: `KICKSERVE_SUCCESS_LABEL`; 0 and 1 need none.
        origin: where the model came from.

    Raises:
        ModelUnusable: there are not two labels, or the setting must name one; the message names them.
    """
    shown = ", ".join(map(repr, labels)) or "not known"
    if len(labels) != len(_USUAL):
        raise origin.unusable(f"its labels are {shown}, and must be two: one of a kick that succeeds")
    chosen = [at for at, label in enumerate(labels) if wanted is not None and is_label(label, wanted)]
    if len(chosen) == 1:
        return chosen[0]
    if set(labels) != _USUAL:
        reason = "" if wanted is None else f", and KICKSERVE_SUCCESS_LABEL is {wanted!r}"
        raise origin.unusable(
            f"its labels are {shown}{reason}: set KICKSERVE_SUCCESS_LABEL to the one of a kick that succeeds"
        )
    return list(labels).index(1)


def is_label(label: Any, wanted: str) -> bool:
    """Return whether a label is written so: `1` is 1, 1.0 and true, words are the same in any case."""
    if isinstance(label, str):
        return label.strip().casefold() == wanted.casefold()
    words = {str(label).casefold(), f"{float(label):g}"}
    return wanted.casefold() in words


def random_kicks(count: int) -> NDArray[np.float64]:
    """Draw kicks from the whole of the features' ranges, the same each time; shape (count, 11)."""
    low = np.array([feature.low for feature in FEATURES])
    high = np.array([feature.high for feature in FEATURES])
    flags = [feature.kind == "flag" for feature in FEATURES]
    kicks = np.random.default_rng(0).uniform(low, high, (count, len(FEATURES)))
    kicks[:, flags] = kicks[:, flags].round()
    return kicks


def usual_kicks(count: int, profile: Profile) -> NDArray[np.float64]:
    """Draw kicks as a profile has them, each feature by itself, the same each time; shape (count, 11)."""
    chances = np.random.default_rng(0).random((len(FEATURES), count))
    columns = [
        chance < profile.shares[feature.name]
        if feature.kind == "flag"
        else np.interp(chance, profile.levels, profile.quantiles[feature.name])
        for feature, chance in zip(FEATURES, chances, strict=True)
    ]
    return np.column_stack(columns).astype(np.float64)
