"""What models that others made have in common: a card, and no word on the kicks that they know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kickserve.features import INDEX, NAMES
from kickserve.schemas import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kickserve.model import Origin


class ForeignModel:
    """The part of `kickserve.model.Model` that does not answer; it gives no interval and warns of nothing.

    Args:
        card: what it is.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card

    @property
    def card(self) -> ModelCard:
        """What it is."""
        return self._card

    def warnings(self, row: Sequence[float]) -> list[str]:  # noqa: ARG002  the protocol gives it one
        """Warn of nothing: its file doesn't tell what kicks it was trained on."""
        return []

    def out_of_domain(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find none of n kicks, shape (n, 11), outside what it knows; shape (n,)."""
        return np.zeros(len(matrix), dtype=np.bool_)


def card_of(
    origin: Origin, data: bytes, kind: str, description: str, trained_on: Mapping[str, str]
) -> ModelCard:
    """Make the card of a model that doesn't bring one.

    Args:
        origin: where it came from.
        data: its file.
        kind: what computes it.
        description: one paragraph on what it is.
        trained_on: what its file tells of how it was made.
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
