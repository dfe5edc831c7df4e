"""Tries a model on a few kicks before it is served: one that can't answer these is refused."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.errors import PredictionFailed
from kickserve.features import FEATURES
from kickserve.model import TYPICAL, ask

if TYPE_CHECKING:
    from kickserve.model import Model
    from kickserve.origin import Origin

KICKS: Final = np.vstack(
    [TYPICAL, [feature.low for feature in FEATURES], [feature.high for feature in FEATURES]]
)
"""A typical kick, and the two corners of the features' ranges; shape (3, 11)."""

LONGEST_NAME: Final = 200
"""Characters of a model's name: it stands in each record."""


def wrong_name(name: str) -> str:
    """Say why a model can't have this name, as a clause; empty where it can."""
    # Postgres takes no NUL, and UTF-8 no half of a surrogate: what was answered could never be stored.
    if name.isprintable() and len(name) <= LONGEST_NAME:
        return ""
    return (
        f"its name must have at most {LONGEST_NAME} characters, all printable, and is {name[:LONGEST_NAME]!r}"
    )


def try_out(model: Model, origin: Origin) -> None:
    """Ask a model for one kick and for three together, and look at its name.

    Raises:
        ModelUnusable: it raised, or returned something that is no probability; or no record could bear its
            name.
    """
    if reason := wrong_name(model.card.name):
        raise origin.unusable(f"{reason}: name it otherwise")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library warns of here, it would of each kick
            ask(model, TYPICAL)
            ask(model, KICKS)
    except PredictionFailed as error:
        note = f". {model.card.description}" if model.card.description else ""
        raise origin.unusable(f"tried on a few kicks, {error}{note}") from error
