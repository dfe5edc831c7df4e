"""What is found in the kicks that are evaluated, added up part by part in memory that does not grow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from kickserve.features import COUNT, FEATURES, INDEX, NAMES, acceptable
from kickserve_data.kicks import RefusedRow
from kickserve_drift.drift_bins import Counts
from kickserve_drift.expected import Expectation, Expected
from kickserve_scores.quality import EXACT, Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kickserve_drift.drift_bins import Reference
    from kickserve_drift.kicks import Part
    from kickserve_drift.sampling import Sample

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


class Share(NamedTuple):
    """What some of the kicks came to, in a form for another process.

    Attributes:
        counts: as in `Findings`.
        holes: shape (3, 11), values of each feature that are missing, out of range and unknown.
        quality: of the predictions with a known outcome.
        known: what to expect of these.
        open: what to expect of the others.
        seen: kicks.
        sample: shape (m, 13), those that were drawn.
        made_by: as in `Findings`, and so are the others.
        refused: see there.
        refusals: see there.
    """

    counts: Counts
    holes: NDArray[np.float64]
    quality: RunningQuality
    known: Expectation
    open: Expectation
    seen: int
    sample: NDArray[np.float64]
    made_by: Counter[str]
    refused: int
    refusals: list[RefusedRow]


class Findings:
    """Adds up the kicks that are evaluated.

    Args:
        reference: what they are held against.
        domain: by feature, the range in which the model was trained.
        sample: what takes some of them, for pictures.
        rows: how many there are, where that is known: of more than a million, quality is counted in cells.

    Attributes:
        counts: how many are in which bin of the reference, and the sums of the values.
        sample: that.
        made_by: how many each model predicted.
        first: when the oldest was predicted; None where that is not known.
        last: when the newest was.
        failed: predictions where the model failed.
        refused: lines of a file that hold no kick.
        refusals: the first of them, with their reasons.
    """

    def __init__(
        self,
        reference: Reference,
        domain: Mapping[str, tuple[float, float]],
        sample: Sample,
        rows: int | None = None,
    ) -> None:
        self._reference = reference
        self._low, self._high = _LOW.copy(), _HIGH.copy()
        for name, ends in domain.items():
            self._low[INDEX[name]], self._high[INDEX[name]] = ends
        self._missing, self._out, self._unknown = np.zeros((3, COUNT))
        self._quality = RunningQuality(EXACT if rows is None or rows <= EXACT else 0)
        self._known, self._open = Expectation(), Expectation()
        self.counts = Counts.none()
        self.sample = sample
        self.made_by: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.failed = self.refused = 0
        self.refusals: list[RefusedRow] = []

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
        self._refuse(part.refusals, len(part.refusals))
        if part.times is not None:
            first, last = part.times
            self.first = first if self.first is None else min(self.first, first)
            self.last = last if self.last is None else max(self.last, last)

    def share(self) -> Share:
        """Return what was added up from a file, for another one to take."""
        return Share(
            counts=self.counts,
            holes=np.array([self._missing, self._out, self._unknown]),
            quality=self._quality,
            known=self._known,
            open=self._open,
            seen=self.sample.seen,
            sample=self.sample.rows(),
            made_by=self.made_by,
            refused=self.refused,
            refusals=self.refusals,
        )

    def take(self, share: Share) -> None:
        """Add what another one has added up, all but the sample: that takes knowing all shares."""
        self.counts += share.counts
        missing, out, unknown = share.holes
        self._missing, self._out = self._missing + missing, self._out + out
        self._unknown = self._unknown + unknown
        self._quality.merge(share.quality)
        self._known.merge(share.known)
        self._open.merge(share.open)
        self.made_by += share.made_by
        self._refuse(share.refusals, share.refused)

    def _refuse(self, refusals: Sequence[RefusedRow], count: int) -> None:
        self.refused += count
        self.refusals += refusals[: _REFUSALS_KEPT - len(self.refusals)]

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
