"""Kicks to evaluate, as rows of numbers: stored predictions, newest first, or a file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from kickserve.features import COUNT, NAMES
from kickserve.plugins import predict
from kickserve.schemas import UNDECODABLE, Record
from kickserve_drift.psi import MIN_KICKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.plugins import Model
    from kickserve_data.kicks import Block

    GetPage = Callable[..., Awaitable[list[Record]]]

ROW: Final = COUNT + 2
"""Numbers in a row of a kick: the features, the prediction, the outcome."""
PAGE: Final = 10_000  # stored predictions at a time: the most that a service gives
NEWEST: Final = 1_000
"""Stored predictions that are evaluated at most, where no option selects them."""

_cells = attrgetter(*NAMES, "prediction", "outcome")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the stored predictions to evaluate.

    Attributes:
        since: those made at this instant or later, UTC.
        until: those made before this instant, UTC.
        last: the newest of them, this number at most.
        model: those of the model of this name.
    """

    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    model: str | None = None

    @property
    def rule(self) -> str:
        """All but the model in words; empty where only the model is selected."""
        parts = [] if self.last is None else [f"the newest {self.last:,}"]
        for word, moment in (("since", self.since), ("until", self.until)):
            if moment is not None:
                parts.append(f"{word} {moment:%Y-%m-%d %H:%M:%S} UTC")
        return ", ".join(parts)


async def read_stored(get_page: GetPage, selection: Selection) -> AsyncIterator[list[Record]]:
    """Yield stored predictions in groups, newest first, in memory that does not grow with their number.

    Args:
        get_page: `kickserve.store.Store.page`, or a function like it.
        selection: which of them.
    """
    before, left = None, selection.last
    while left is None or left > 0:
        limit = PAGE if left is None or selection.model is not None else min(PAGE, left)
        page = await get_page(limit, before=before, since=selection.since, until=selection.until)
        chosen = [each for each in page if selection.model in {None, each.model}][:left]
        if chosen:
            yield chosen
        if len(page) < limit:
            return
        before = page[-1].id
        left = None if left is None else left - len(chosen)


def countable(records: Sequence[Record]) -> list[Record]:
    """Return the records that have a prediction, and are not of visitors of the page."""
    return [each for each in records if each.prediction is not None and each.source != "page"]


def rows_of(records: Sequence[Record]) -> NDArray[np.float64]:
    """Return stored predictions as rows, shape (n, 13); NaN where the outcome is unknown."""
    return np.array([_cells(record) for record in records], dtype=np.float64).reshape(-1, ROW)


def predicted_rows(block: Block, model: Model) -> NDArray[np.float64]:
    """Predict the kicks of a file; return them as rows, shape (n, 13); NaN where the outcome is unknown.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    count = len(block.lines)
    prediction = predict(model, block.matrix).probability if count else np.empty(0)
    outcome = np.full(count, np.nan) if block.outcome is None else block.outcome
    return np.column_stack([block.matrix, prediction, outcome])


class Evaluated(msgspec.Struct, frozen=True):
    """The kicks of an earlier report.

    Attributes:
        place: store or service that holds them.
        first: when the oldest was predicted, UTC.
        last: when the newest was.
    """

    place: str
    first: datetime
    last: datetime


def newest_evaluated(folder: Path, place: str) -> Evaluated | None:
    """Return the kicks of the newest report on predictions of this place; None without such a report."""
    for path in sorted(folder.glob("drift-*.json"), reverse=True):
        with suppress(OSError, LookupError, TypeError, *UNDECODABLE):  # of another program or version
            found = msgspec.json.decode(path.read_bytes())["details"]["current"]
            if found["place"] == place:
                return msgspec.convert(found, Evaluated)
    return None


def choose(records: Sequence[Record], evaluated: Evaluated | None) -> tuple[list[Record], str]:
    """Choose among the newest predictions where no option selects them.

    A new report is about the predictions since the last one: far kicks must not hide among those evaluated
    before. Where hardly any are new, the same kicks are evaluated again with them.

    Args:
        records: the newest predictions, `NEWEST` at most.
        evaluated: those of the last report.

    Returns:
        The chosen records, and the rule in words.
    """
    if evaluated is not None:
        new = [each for each in records if each.created_at > evaluated.last]
        if len(new) >= MIN_KICKS:
            return (new, f"new since the last report, {NEWEST:,} at most")
        again = [each for each in records if each.created_at >= evaluated.first]
        if len(again) >= MIN_KICKS:
            return (again, f"those of the last report, as only {len(new)} are new")
    return ([*records], f"the newest, {NEWEST:,} at most")


class Sample:
    """A sample of `size` of the rows that come part by part, each with the same chance, in their order.

    Each row draws a number, and the rows with the smallest stay: so the same seed and rows give the same
    sample, and the memory does not grow with the rows.

    Args:
        size: rows to keep at most.
        seed: of the draw.

    Attributes:
        rows: shape (m, 13), the sample.
        seen: number of rows that came.
    """

    def __init__(self, size: int, seed: int | Sequence[int]) -> None:
        self._size = size
        self._rng = np.random.default_rng(seed)
        self._drawn = np.empty(0)
        self.rows = np.empty((0, ROW))
        self.seen = 0

    @property
    def whole(self) -> bool:
        """Whether every row is in the sample."""
        return self.seen == len(self.rows)

    def add(self, rows: NDArray[np.float64]) -> None:
        """Offer rows, shape (n, 13)."""
        drawn = self._rng.random(len(rows))
        self.seen += len(rows)
        # A number above the largest of a full sample can't stay: most rows of a long stream end here.
        full = len(self.rows) == self._size
        hopeful = drawn < self._drawn.max(initial=0.0) if full else slice(None)
        self.rows = np.concatenate([self.rows, rows[hopeful]])
        self._drawn = np.concatenate([self._drawn, drawn[hopeful]])
        if len(self.rows) > self._size:
            kept = np.sort(np.argpartition(self._drawn, self._size)[: self._size])
            self.rows, self._drawn = self.rows[kept], self._drawn[kept]
