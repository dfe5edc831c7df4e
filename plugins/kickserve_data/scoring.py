"""Scores blocks of kicks with a model, and adds up the figures of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kickserve.features import INDEX, NAMES
from kickserve.model import predict
from kickserve_data.columns import KICKERS
from kickserve_data.kicks import Block, RefusedRow
from kickserve_scores.quality import Quality, RunningQuality

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kickserve.model import Model

BLOCK: Final = 65_536
"""Kicks a block, for kicks that stay columns of numbers and are not kept."""
COLUMNS: Final = ("line", *NAMES, "success", "prediction", "confidence", "low", "high", "model", "revision")
"""The columns that are written of each kick; `id` of a kept one, and the kicker where a file names it."""

ROWS_REFUSED: Final = 3
"""The exit code of a command that did its work, but had to refuse rows."""
REFUSALS_KEPT: Final = 1_000


class Scores(NamedTuple):
    """The answers to n kicks of a block, in their order.

    Attributes:
        prediction: shape (n,), the probabilities.
        low: shape (n,), lower ends of the 95 % intervals; None where the model gives none.
        high: shape (n,), upper ends, or None.
        warned: the number of kicks out of the model's domain.
        model: name of the model; a name for each kick where they may differ.
        revision: its revision; None where it changed meanwhile.
        ids: under which the answers are kept; None for answers that are not kept.
    """

    prediction: NDArray[np.float64]
    low: NDArray[np.float64] | Sequence[float | None] | None
    high: NDArray[np.float64] | Sequence[float | None] | None
    warned: int
    model: str | Sequence[str]
    revision: str | None = None
    ids: Sequence[str] | None = None


NO_SCORES: Final = Scores(np.empty(0), None, None, 0, "")
"""The answers to no kicks."""


class ScoredBlock(NamedTuple):
    """A block of kicks and its scores."""

    block: Block
    scores: Scores


class Summary(msgspec.Struct):
    """The result of a run.

    Attributes:
        sent: kicks predicted.
        kept: whether the answers are kept, in the store or by the service.
        refused: rows that hold no kick.
        skipped: kicks left out by a filter.
        refusals: the first thousand of the refused rows, with their reasons.
        mean_prediction: mean probability, or null for no kicks.
        warned: kicks out of the model's domain.
        seconds: duration of the run.
        rate: kicks a second.
        quality: Brier score and the like, over the kicks with an outcome; see `RunningQuality`.
        not_carried: columns of the input that the output lacks, as it has a column of its own by that name.
    """

    sent: int = 0
    kept: bool = True
    refused: int = 0
    skipped: int = 0
    refusals: list[RefusedRow] = []
    mean_prediction: float | None = None
    warned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    quality: Quality | None = None
    not_carried: list[str] = []


class PartialStats(msgspec.Struct, frozen=True):
    """The figures of a part of a run, in a form for a file or another process.

    Attributes:
        summary: counts and refusals.
        total: sum of the predictions.
        quality: as `RunningQuality.to_bytes` writes it.
    """

    summary: Summary
    total: float
    quality: bytes


class RunStats:
    """Adds up a run while it goes on, in memory that does not grow with it.

    Args:
        keep: how many refusals are kept.
    """

    def __init__(self, keep: int = REFUSALS_KEPT) -> None:
        self._summary = Summary()
        self._keep = keep
        self._started = time.perf_counter()
        self._total = 0.0
        self._quality = RunningQuality()

    def skip(self, count: int) -> None:
        """Count kicks that were left out."""
        self._summary.skipped += count

    def refuse(self, refusals: Sequence[RefusedRow], count: int | None = None) -> None:
        """Count refused rows; `count` of them, where not all are given."""
        room = self._keep - len(self._summary.refusals)
        self._summary.refused += len(refusals) if count is None else count
        self._summary.refusals += refusals[:room]

    def add(self, scored: ScoredBlock) -> None:
        """Count a scored block."""
        block, scores = scored
        self.refuse(block.refusals)
        self._summary.sent += len(block.lines)
        self._summary.warned += scores.warned
        self._total += float(scores.prediction.sum())
        if block.outcome is not None:
            self._quality.add(scores.prediction, block.outcome)

    @property
    def rows(self) -> int:
        """The rows so far: predicted, refused and skipped."""
        return self._summary.sent + self._summary.refused + self._summary.skipped

    def partial(self) -> PartialStats:
        """Return the figures so far, for another process to merge."""
        return PartialStats(self._summary, self._total, self._quality.to_bytes())

    def merge(self, part: PartialStats) -> None:
        """Add the figures of another part of the run."""
        self.skip(part.summary.skipped)
        self.refuse(part.summary.refusals, part.summary.refused)
        self._summary.sent += part.summary.sent
        self._summary.warned += part.summary.warned
        self._total += part.total
        self._quality.merge(RunningQuality.from_bytes(part.quality))

    def summary(self, *, kept: bool = True, not_carried: Sequence[str] = ()) -> Summary:
        """Return the result of the run; the arguments are attributes of `Summary`."""
        summary = self._summary
        summary.kept, summary.not_carried = kept, list(not_carried)
        summary.seconds = round(time.perf_counter() - self._started, 3)
        summary.rate = round(summary.sent / max(summary.seconds, 0.001), 1)
        summary.mean_prediction = self._total / summary.sent if summary.sent else None
        summary.quality = self._quality.result()
        return summary


def score(blocks: Iterable[Block], model: Model) -> Iterator[ScoredBlock]:
    """Score blocks in this process, column by column, and keep nothing.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    for block in blocks:
        if not len(block.lines):
            yield ScoredBlock(block, NO_SCORES)
            continue
        probability, low, high = predict(model, block.matrix)
        warned = int(np.count_nonzero(model.out_of_domain(block.matrix)))
        yield ScoredBlock(block, Scores(probability, low, high, warned, model.card.name, model.card.revision))


def to_columns(scored: ScoredBlock) -> dict[str, Any]:
    """Return kicks and scores as columns, by the names of `COLUMNS`, and `id`."""
    block, scores = scored
    return {
        "line": block.lines,
        **dict(zip(NAMES, block.matrix.T, strict=True)),
        "success": block.outcome,
        "prediction": scores.prediction,
        "confidence": np.maximum(scores.prediction, 1 - scores.prediction),
        "low": scores.low,
        "high": scores.high,
        "model": scores.model,
        "revision": scores.revision,
        "id": scores.ids,
        KICKERS[0]: block.kickers,
    }


def only_from(blocks: Iterable[Block], min_distance: float, stats: RunStats) -> Iterator[Block]:
    """Leave out the kicks from nearer than this many metres."""
    for block in blocks:
        far = block.matrix[:, INDEX["distance"]] >= min_distance
        stats.skip(int((~far).sum()))
        yield block if far.all() else block.where(far)
