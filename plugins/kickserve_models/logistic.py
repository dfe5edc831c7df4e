"""A logistic regression that was read off another model: a weight a feature, and an intercept."""

from __future__ import annotations

import math
from operator import mul
from typing import TYPE_CHECKING, Final

from kickserve.documents import expit
from kickserve.linear import product
from kickserve.model import Answer
from kickserve_models.foreign import ForeignModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kickserve.schemas import ModelCard

_NONE: Final = math.nan  # what stands for the ends of an interval that there is not


class LogisticModel(ForeignModel):
    """expit(weights · features + intercept), without an interval.

    Args:
        card: what it is.
        weights: log-odds a unit of each feature, shape (11,), in the order of `kickserve.features.NAMES`.
        intercept: log-odds.
    """

    def __init__(self, card: ModelCard, weights: NDArray[np.float64], intercept: float) -> None:
        super().__init__(card)
        self._row = weights[None, :]
        self._weights = weights.tolist()
        self._intercept = intercept

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Answer n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.
        """
        return Answer(expit(product(self._row, matrix.T)[0] + self._intercept), None, None)

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Answer one kick.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`; flags may be booleans.

        Returns:
            Probability, and NaN twice: it gives no interval.
        """
        z = sum(map(mul, self._weights, row), self._intercept)
        return 0.5 + 0.5 * math.tanh(0.5 * z), _NONE, _NONE
