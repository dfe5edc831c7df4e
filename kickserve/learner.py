"""A learner: what has come of earlier kicks, taken into account in an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kickserve.record import EncodedLearned

    Score = tuple[float, float, float]


class Learner(ABC):
    """Adjusts the scores of a model. Its methods are on the path of an answer: look-ups, and no I/O.

    Attributes:
        unnamed: whether it adjusts kicks without a kicker too, because it has learned a level.
    """

    unnamed: bool = False

    @abstractmethod
    def adjust(self, revision: str, score: Score, kicker: str | None) -> tuple[Score, EncodedLearned] | None:
        """Adjust the score of one kick.

        Args:
            revision: of the model that scored it.
            score: probability, low and high; NaN for both where the model gives no interval.
            kicker: label as `kickserve.schemas.kicker_of` returns it; None for an unnamed kicker.

        Returns:
            The adjusted score, and what was learned (`encode_learned`); None where the score stays as it is.
        """

    @abstractmethod
    def adjust_many(
        self, revision: str, scores: NDArray[np.float64], kickers: Sequence[str | None]
    ) -> tuple[NDArray[np.float64], Sequence[EncodedLearned]] | None:
        """Adjust the scores of n kicks that were scored together.

        Args:
            revision: as for `adjust`.
            scores: shape (n, 3): probability, low and high.
            kickers: label of each.

        Returns:
            The adjusted scores, shape (n, 3), and what was learned, `NOTHING_LEARNED` for each score that
            stays as it is; None where all do.
        """
