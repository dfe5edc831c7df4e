"""The protocols that plugins fill. The core calls these, and never a plugin by name."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from kickserve.batching import cancel_task
from kickserve.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import timedelta

    from kickserve.record import RecordBatch, SetOutcome
    from kickserve.schemas import Record

GROUP: Final = 1_000  # records removed in one transaction
EVERY: Final = 60.0  # seconds between two searches for old predictions
_BREATH: Final = 0.05  # seconds between two groups: writers go first

_log = logging.getLogger(__name__)


class LabelledPrediction(NamedTuple):
    """A prediction whose outcome is known.

    Attributes:
        created_at: when it was made, UTC.
        model: name of the model that made it.
        prediction: probability of success that it gave.
        success: what came of the kick.
        shadow: name of the second model that was asked as well, if one was.
        shadow_prediction: probability of success that that one gave.
    """

    created_at: datetime
    model: str
    prediction: float
    success: bool
    shadow: str | None = None
    shadow_prediction: float | None = None


class Store(Protocol):
    """Where predictions are kept for good.

    Every method but `close` may raise `StoreUnavailable` for what may pass by itself (the database is
    away, locked, full) and `StoreMisconfigured` for what will not; those that write, `RecordUnfit` for a
    record that will never go in, though others do: it is put aside, and the others pass. A store that other
    processes can't see (memory) says so by an attribute `shared` that is false: several workers can't serve
    from it.
    """

    @property
    def label(self) -> str:
        """Where it stores, for people and logs: never with a password in it."""
        ...

    async def open(self) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        ...

    async def close(self) -> None:
        """Let go of every connection. May be called more than once, and without `open`."""
        ...

    async def add(self, records: Sequence[Record]) -> None:
        """Keep all of these or none, in one transaction. A record whose id is kept already is passed over."""
        ...

    async def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""
        ...

    async def page(
        self,
        limit: int,
        *,
        before: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Record]:
        """Return records newest first, that is by falling id.

        Args:
            limit: how many at most, from 1.
            before: only records with a smaller id than this one (keyset pagination).
            since: only records made at this instant or later.
            until: only records made before this instant.
        """
        ...

    def stream(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[Record]]:
        """Yield all records in groups, oldest first, in memory that does not grow with their number."""
        ...

    async def delete(self, record_id: str) -> bool:
        """Remove one record; say whether it was there."""
        ...

    async def set_outcome(self, record_id: str, *, success: bool, at: datetime) -> bool:
        """Keep what came of the kick and when it was told, over what was told before.

        Returns:
            Whether the record is there.
        """
        ...

    def labelled(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[LabelledPrediction]]:
        """Yield, in groups, the predictions whose outcome is known: what quality is computed from."""
        ...

    async def purge(self, until: datetime, limit: int) -> int:
        """Remove the oldest records made before this instant, `limit` at most; say how many."""
        ...

    async def count(self) -> int:
        """Return how many records are kept."""
        ...

    async def ping(self) -> None:
        """Return when the store answers, raise when it doesn't."""
        ...


@runtime_checkable
class TakesBatches(Protocol):
    """A store that takes what comes from the journal as it stands there. A store need not be one.

    To make a record for each prediction only to take it apart again costs as much as to store it.
    """

    async def add_batches(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all of these or of none: the same as `add` with their records."""
        ...


@runtime_checkable
class TakesOutcomes(Protocol):
    """A store that takes many outcomes at once. A store need not be one: it is told them one by one then."""

    async def set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Keep what came of some hundreds of kicks as `set_outcome` does; of two about one the later counts.

        Returns:
            The ids under which no record is there, spelt as they came.
        """
        ...


@runtime_checkable
class DropsWhole(Protocol):
    """A store that keeps what was made in a span of time together, and can drop that at once.

    A store need not be one: `purge` does the same record by record.
    """

    async def drop_whole(self, until: datetime) -> list[str]:
        """Drop what can be dropped at once and holds nothing but records made before this instant.

        Returns:
            Names of what was dropped, for people. Older records that are left are for `purge`.
        """
        ...


class Retention:
    """Looks once a minute for what is too old.

    Args:
        store: what to remove from.
        keep: how long predictions are kept; None for ever.
    """

    def __init__(self, store: Store, keep: timedelta | None) -> None:
        self._store = store
        self._keep = keep
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, where anything is to be removed at all."""
        if self._keep is not None:
            self._task = asyncio.create_task(self._go_on(self._keep), name="retention")

    async def stop(self) -> None:
        """End, between two groups."""
        await cancel_task(self._task)
        self._task = None

    async def remove_old(self, keep: timedelta) -> int:
        """Remove what is older than this; say how many were removed one by one."""
        until = datetime.now(UTC) - keep
        if isinstance(self._store, DropsWhole) and (dropped := await self._store.drop_whole(until)):
            _log.info("dropped %s: older than KICKSERVE_RETENTION", ", ".join(dropped))
        removed = 0
        while count := await self._store.purge(until, GROUP):
            removed += count
            await asyncio.sleep(_BREATH)
        return removed

    async def _go_on(self, keep: timedelta) -> None:
        while True:
            try:
                removed = await self.remove_old(keep)
            except StoreError as error:
                _log.info("old predictions could not be removed now: %s", error)
            except Exception:  # noqa: BLE001  a bug in a store must end neither this nor the service
                _log.exception(
                    "old predictions could not be removed: the store failed in a way it should not"
                )
            else:
                if removed:
                    _log.info("removed %d predictions older than KICKSERVE_RETENTION", removed)
            await asyncio.sleep(EVERY)
