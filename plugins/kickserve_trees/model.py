"""The model of trees: boosted decision trees as plain numbers in JSON, which numpy alone predicts with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta

from kickserve.documents import (
    NORMAL_975,
    Document,
    DocumentModel,
    Header,
    answer_in_place,
    answer_one,
    mean_shrink,
    read,
    revision_of,
)
from kickserve_trees.ensembles import Ensemble, Sums, wrong_ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.model import Answer, Origin

FORMAT: Final = "kickserve/trees"
VERSION: Final = 1

_LEAST_LN: Final = -40.0  # a variance whose logarithm is not between these makes no sense
_MOST_LN: Final = 10.0


class TreesDocument(Document, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A model of trees as its file has it: the fields of `kickserve.documents.Document`, and these.

    Attributes:
        format: `kickserve/trees`.
        version: of the format.
        log_odds: the trees that add up to the log-odds, before calibration.
        slope: calibration: the factor of the log-odds, above 0.
        offset: calibration: the summand after that.
        ln_variance: the trees that add up to the logarithm of the variance of the log-odds before
            calibration.
    """

    format: str = FORMAT
    version: int = VERSION
    log_odds: Ensemble
    slope: Annotated[float, Meta(gt=0, le=1e3)] = 1.0
    offset: Annotated[float, Meta(ge=-1e3, le=1e3)] = 0.0
    ln_variance: Ensemble


def fingerprint(document: TreesDocument) -> str:
    """Return 12 hexadecimal digits (SHA-256) that change with any change of a prediction of the model."""
    return revision_of(document, document.log_odds, document.slope, document.offset, document.ln_variance)


class TreesModel(DocumentModel[TreesDocument]):
    """A model of trees that is ready to predict; a `kickserve.model.Model`.

    With f the sum of the trees of a kick, v its variance, a and b slope and offset of the calibration (Platt
    1999) and s the spread of ability:

    - The probability is expit(a·f + b): the mean over kickers, as the trees were fitted to kicks of all.
    - The interval is expit(m ∓ 1.96·√(a²·v + s²)) around m = (a·f + b)·√(1 + π·s²/8), the log-odds of a
      kicker of middling ability (MacKay 1992; see `kickserve.documents.mean_shrink`).

    Args:
        document: the model.
        origin: where it came from.

    Raises:
        ModelUnusable: the document contradicts itself.
    """

    def __init__(self, document: TreesDocument, origin: Origin) -> None:
        super().__init__(
            document,
            origin,
            kind="trees",
            revision=fingerprint(document),
            checks=(_wrong_ensembles,),
        )
        self._sums = Sums([document.log_odds, document.ln_variance])
        self._slope, self._offset = document.slope, document.offset
        self._ability = document.ability_sd
        self._stretch = mean_shrink(document.ability_sd)

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Predict n kicks.

        Args:
            matrix: shape (n, 11), in the order of `kickserve.features.NAMES`, within the ranges given there.

        Returns:
            Probability, low and high, each of shape (n,), with low <= probability <= high.
        """
        total, spread = self._sums.of_many(matrix)
        z = self._slope * total + self._offset
        variance = self._slope**2 * np.exp(np.clip(spread, _LEAST_LN, _MOST_LN)) + self._ability**2
        half, middle = NORMAL_975 * np.sqrt(variance), z * self._stretch
        return answer_in_place(np.array([z, middle - half, middle + half]))

    def predict_one(self, row: Sequence[float]) -> tuple[float, float, float]:
        """Predict one kick, without the cost of arrays of one row.

        Args:
            row: its eleven numbers, in the order of `kickserve.features.NAMES`, flags as 0 and 1.

        Returns:
            Probability, low and high: the same as `predict` gives.
        """
        total, spread = self._sums.of_one(row)
        z = self._slope * total + self._offset
        variance = self._slope**2 * math.exp(min(max(spread, _LEAST_LN), _MOST_LN)) + self._ability**2
        half, middle = NORMAL_975 * math.sqrt(variance), z * self._stretch
        return answer_one(z, middle - half, middle + half) or self.predict_among(row)


def load_trees(data: bytes, origin: Origin) -> TreesModel:
    """Make a model of the bytes of its JSON file.

    Args:
        data: the file.
        origin: where it came from.

    Raises:
        ModelUnusable: it can't be read or used; the message names the fault.
    """
    expected = Header(format=FORMAT, version=VERSION)
    return TreesModel(read(data, origin, TreesDocument, expected), origin)


def _wrong_ensembles(document: TreesDocument) -> str:
    return wrong_ensemble(document.log_odds) or wrong_ensemble(document.ln_variance)
