"""What a model is to the service, and how it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kickserve.errors import PredictionFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve.documents import Profile
    from kickserve.schemas import ModelCard


TYPICAL: Final = np.array([[0.5, 30.0, 20.0, 10.0, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
"""A usual kick, to try a model on."""


class Answer(NamedTuple):
    """What a model says of n kicks.

    Attributes:
        probability: shape (n,), 0 to 1.
        low: shape (n,), lower end of the 95 % interval, or None where the model gives none.
        high: shape (n,), upper end, or None.
    """

    probability: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


class Model(Protocol):
    """A model that says how likely a kick is to succeed."""

    @property
    def card(self) -> ModelCard:
        """What it is."""
        ...

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Answer n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        ...

    def warnings(self, row: Sequence[float]) -> list[str]:
        """Say what makes one kick (its eleven numbers) unlike those that the model was trained on."""
        ...

    def outside(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say of n kicks, shape (n, 11), which ones `warnings` would warn of; shape (n,)."""
        ...


def ask(model: Model, matrix: NDArray[np.float64]) -> Answer:
    """Ask a model, and make sure that it answers with probabilities: it may be anybody's code.

    Args:
        model: what is asked.
        matrix: n kicks, shape (n, 11), in the order of `kickserve.features.NAMES`, within their ranges.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    name = model.card.name
    try:
        answer = model.predict(matrix)
        sound = is_sound(answer, len(matrix))
    except Exception as error:
        raise PredictionFailed(f"the model {name} raised {type(error).__name__}: {error}") from error
    if not sound:
        raise PredictionFailed(f"the model {name} returned something that is no probability")
    return answer


def is_sound(answer: Answer, count: int) -> bool:
    """Say whether a model answered so many kicks with probabilities; an end of the interval may be None.

    Raises:
        Exception: whatever comes of something that is no answer at all.
    """
    probability, *ends = answer
    parts: list[Any] = [probability, *(end for end in ends if end is not None)]
    # Anybody's model may leave out what it must not: then there is no shape.
    return all(
        part is not None and part.shape == (count,) and bool(np.all((part >= 0) & (part <= 1)))
        for part in parts
    )


@runtime_checkable
class AnswersOne(Protocol):
    """A model that answers one kick more quickly than a matrix of one row. A model need not be one."""

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Answer one kick.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`; flags may be booleans.

        Returns:
            Probability, low and high, as `predict` gives but for the last bits; NaN for low and high where it
            gives no interval.
        """
        ...


@runtime_checkable
class HasProfile(Protocol):
    """A model that remembers what it was trained on; `kickserve.loading.profile_of` helps others."""

    @property
    def profile(self) -> Profile | None:
        """What the kicks that it was trained on, and its answers to them, looked like."""
        ...
