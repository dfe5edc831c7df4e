"""What a model is to the service, and how the one that the settings ask for is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve.schemas import ModelCard


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
