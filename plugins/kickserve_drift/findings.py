"""What is found in the kicks that are evaluated, added up part by part in memory that does not grow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from kickserve.drift_bins import Counts
from kickserve.features import COUNT, FEATURES, INDEX, NAMES, acceptable
from kickserve.quality import Quality, RunningQuality
from kickserve_drift.expected import Expectation, Expected
from kickserve_drift.sampling import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from kickserve.drift_bins import Reference
    from kickserve.kick_rows import Refusal
    from kickserve_drift.kicks import Part

SHOWN: Final = 20_000
"""Kicks that Evidently is shown at most; the figures are of all."""

WIDTH: Final = COUNT + 2
"""Numbers in a row of a sample: the features, the prediction, the outcome."""

_REFUSALS_KEPT: Final = 100
_LOW: Final = np.array([feature.low for feature in FEATURES])
_HIGH: Final = np.array([feature.high for feature in FEATURES])


class Holes(Struct, kw_only=True, frozen=True):
    """Values of one feature that tell little, as shares of all rows.

    Attributes:
        name: of the feature.
        missing: there is none, or it is no number.
        out_of_range: it is no value that the feature may take, so the row was refused.
        unknown: it may be, but lies beyond what the model was trained on.
    """

    name: str
    missing: float
    out_of_range: float
    unknown: float


class Known(Struct, kw_only=True, frozen=True):
    """How good the predictions were whose outcome is known.

    Attributes:
        quality: as measured.
        expected: what these very kicks should have shown, were the probabilities right.
    """

    quality: Quality
    expected: Expected


class Findings:
    """Adds up the kicks that are evaluated.

    Args:
        reference: what they are held against.
        domain: by feature, the range in which the model was trained.
        seed: of the sample.

    Attributes:
        counts: how many are in which bin of the reference.
        sample: some of them, for pictures.
        made_by: how many each model predicted.
        first: when the oldest was predicted; None where that is not known.
        last: when the newest was.
        failed: predictions where the model failed.
        refused: lines of a file that hold no kick.
        refusals: the first of them, with their reasons.
    """

    def __init__(self, reference: Reference, domain: Mapping[str, tuple[float, float]], seed: int) -> None:
        self._reference = reference
        self._low, self._high = _LOW.copy(), _HIGH.copy()
        for name, ends in domain.items():
            self._low[INDEX[name]], self._high[INDEX[name]] = ends
        self._missing, self._out, self._unknown = np.zeros((3, COUNT))
        self._quality = RunningQuality()
        self._known, self._open = Expectation(), Expectation()
        self.counts = Counts.none()
        self.sample = Sample(SHOWN, WIDTH, seed)
        self.made_by: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.failed = self.refused = 0
        self.refusals: list[Refusal] = []

    @property
    def kicks(self) -> int:
        """How many kicks were evaluated."""
        return self.sample.seen

    def add(self, part: Part) -> None:
        """Add some kicks."""
        self.counts += self._reference.count(part.matrix, part.prediction)
        self.sample.add(part.rows)
        self._unknown += ((part.matrix < self._low) | (part.matrix > self._high)).sum(axis=0)
        told = ~np.isnan(part.outcome)
        self._quality.add(part.prediction[told], part.outcome[told])
        self._known.add(part.prediction[told])
        self._open.add(part.prediction[~told])
        self._note(part)

    def _note(self, part: Part) -> None:
        odd = part.odd[:, :COUNT]
        self._missing += np.isnan(odd).sum(axis=0)
        self._out += (~acceptable(odd) & ~np.isnan(odd)).sum(axis=0)
        self.made_by += part.made_by
        self.failed += part.failed
        self.refused += len(part.refusals)
        self.refusals += part.refusals[: _REFUSALS_KEPT - len(self.refusals)]
        if part.times is not None:
            first, last = part.times
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)

    def holes(self) -> list[Holes]:
        """Say feature by feature how many values tell little."""
        rows = max(self.kicks + self.refused, 1)
        shares = zip(NAMES, *(each / rows for each in (self._missing, self._out, self._unknown)), strict=True)
        return [
            Holes(name=name, missing=float(missing), out_of_range=float(out), unknown=float(unknown))
            for name, missing, out, unknown in shares
        ]

    def known(self) -> Known | None:
        """Say how good the predictions were whose outcome is known; None where that is none."""
        quality, expected = self._quality.result(), self._known.result()
        return None if quality is None or expected is None else Known(quality=quality, expected=expected)

    def open(self) -> Expected | None:
        """Say what to expect of the predictions whose outcome is not known; None where that is none."""
        return self._open.result()
