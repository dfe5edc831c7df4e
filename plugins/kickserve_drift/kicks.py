"""Where the kicks come from that are evaluated: kept predictions, newest first, or a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from kickserve.features import COUNT, NAMES
from kickserve.model import predict
from kickserve_client import calls
from kickserve_data import reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.schemas import Record
    from kickserve_client.client import AsyncClient
    from kickserve_data.kicks import Block, RefusedRow

PAGE: Final = 10_000  # kept predictions at a time: the most that a service gives
_BLOCK: Final = 8_192  # rows of a file at a time

_cells = attrgetter(*NAMES, "prediction", "outcome")


@dataclass(frozen=True, slots=True)
class Window:
    """Which of the kept predictions are evaluated.

    Attributes:
        since: those made at this instant or later, UTC.
        until: those made before this instant, UTC.
        last: the newest of them, so many at most.
        model: those of the model of this name.
    """

    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the kicks that are evaluated.

    Attributes:
        matrix: shape (n, 11), in the order of `kickserve.features.NAMES`.
        prediction: shape (n,), what the model said of them.
        outcome: shape (n,), 1 for a success, 0 for a miss, NaN where unknown.
        made_by: how many of them each model predicted, by name and revision.
        times: when the first and the last of them were predicted, UTC; None where that is not known.
        failed: predictions beside these where the model failed.
        refusals: lines of a file that hold no kick.
        odd: shape (m, 12), the numbers in those lines, as `kickserve_data.kicks.Block.odd`.
    """

    matrix: NDArray[np.float64]
    prediction: NDArray[np.float64]
    outcome: NDArray[np.float64]
    made_by: Counter[str] = field(default_factory=Counter)
    times: tuple[datetime, datetime] | None = None
    failed: int = 0
    refusals: Sequence[RefusedRow] = ()
    odd: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, COUNT + 1)))

    @property
    def rows(self) -> NDArray[np.float64]:
        """Features, prediction and outcome side by side, shape (n, 13)."""
        return np.column_stack([self.matrix, self.prediction, self.outcome])


class Pages(Protocol):
    """Gives kept predictions page by page, as a store does."""

    async def page(
        self, limit: int, *, before: str | None, since: datetime | None, until: datetime | None
    ) -> list[Record]:
        """Return predictions newest first; see `kickserve.store.Store.page`."""
        ...


class FromService:
    """Gives the kept predictions of a running service."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def page(
        self, limit: int, *, before: str | None, since: datetime | None, until: datetime | None
    ) -> list[Record]:
        """Return predictions newest first.

        Raises:
            RemoteError: the service is away, refuses, or is none of ours.
        """
        query = {"limit": limit, "before": before, "since": since, "until": until}
        return (await self._client.send(calls.page(query))).records


async def kept(pages: Pages, window: Window) -> AsyncIterator[list[Record]]:
    """Yield kept predictions in groups, newest first, in memory that does not grow with their number."""
    before, left = None, window.last
    while left is None or left > 0:
        limit = PAGE if left is None or window.model is not None else min(PAGE, left)
        found = await pages.page(limit, before=before, since=window.since, until=window.until)
        chosen = [each for each in found if window.model in {None, each.model}][:left]
        if chosen:
            yield chosen
        if len(found) < limit:
            return
        before = found[-1].id
        left = None if left is None else left - len(chosen)


def part_of(records: Sequence[Record]) -> Part:
    """Turn kept predictions, from 1, newest first, into numbers."""
    whole = [record for record in records if record.prediction is not None]
    values = np.array([_cells(record) for record in whole], dtype=np.float64).reshape(-1, COUNT + 2)
    return Part(
        matrix=values[:, :COUNT],
        prediction=values[:, COUNT],
        outcome=values[:, COUNT + 1],
        made_by=Counter(f"{record.model} {record.revision}" for record in whole),
        times=(records[-1].created_at, records[0].created_at),
        failed=len(records) - len(whole),
    )


def of_file(path: Path, model: Model) -> Iterator[Part]:
    """Read the kicks of a CSV, Parquet or NDJSON file; what the model says of them it is asked now.

    Raises:
        DataError: the file can't be read, or features are missing.
        MissingExtra: Parquet, and pyarrow is not installed.
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    return parts_of(reader.read_blocks(path, size=_BLOCK), model)


def parts_of(blocks: Iterable[Block], model: Model) -> Iterator[Part]:
    """Ask the model what it says of kicks.

    Raises:
        PredictionFailed: the model raised, or returned something that is no probability.
    """
    card = model.card
    for block in blocks:
        count = len(block.lines)
        yield Part(
            matrix=block.matrix,
            prediction=predict(model, block.matrix).probability if count else np.empty(0),
            outcome=np.full(count, np.nan) if block.outcome is None else block.outcome,
            made_by=Counter({f"{card.name} {card.revision}": count}),
            refusals=block.refusals,
            odd=block.odd,
        )
