"""The store: where predictions are kept for good, and how old ones are removed from it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from kickserve.batching import cancel_task
from kickserve.errors import StoreError
from kickserve.schemas import Source

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
        created_at: UTC.
        model: name of the model.
        prediction: probability of success, 0 to 1.
        success: the outcome of the kick.
        shadow: name of a second model that was asked as well; None where there was none.
        shadow_prediction: its probability of success.
        source: what sent the kick: `api`, `page` or `batch`.
        base: the model's own probability, where `prediction` has something learned in it; else None.
    """

    created_at: datetime
    model: str
    prediction: float
    success: bool
    shadow: str | None = None
    shadow_prediction: float | None = None
    source: str = "api"
    base: float | None = None


class KnownOutcome(NamedTuple):
    """An outcome, and what learning and the alarm need of its prediction.

    Attributes:
        at: when the outcome became known, UTC, to the millisecond.
        revision: of the model that predicted the kick.
        base: the model's own probability of success, 0 to 1, with nothing learned in it.
        kicker: label of the kicker; None for an unnamed or forgotten one.
        success: the outcome.
        prediction: the answer, 0 to 1, with what was learned.
        source: what sent the kick: `api`, `page` or `batch`.
    """

    at: datetime
    revision: str
    base: float
    kicker: str | None
    success: bool
    prediction: float
    source: str = "api"


class OutcomeChanges(NamedTuple):
    """Whether outcomes have changed.

    Attributes:
        mark: of the present, for the next look.
        first: the earliest instant of an outcome that changed, as it was before or is since; None where none
            has.
    """

    mark: object
    first: datetime | None


BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""An instant before all outcomes."""


class Selection(NamedTuple):
    """Which records are sought; by default all.

    Attributes:
        since: made at this instant or later.
        until: made before this instant.
        newest: with this id, or a smaller one.
        after: with a greater id than this one.
        kicker: with this label.
        outcome: `open` (not yet known), `scored` or `missed`.
        source: what sent them.
    """

    since: datetime | None = None
    until: datetime | None = None
    newest: str | None = None
    after: str | None = None
    kicker: str | None = None
    outcome: Literal["open", "scored", "missed"] | None = None
    source: Source | None = None


ALL: Final = Selection()

Order = Literal["newest", "oldest", "likeliest", "unlikeliest", "furthest"]


class Store(ABC):
    """A database of predictions. `kickserve_testing.contract.StoreContract` tests one.

    No call takes for ever, whatever the database does, and `close` takes seconds at most.
    Every method but `close` may raise `StoreUnavailable` for trouble that may pass by itself (the database
    is away, locked, full) and `StoreMisconfigured` for trouble that will not. Methods that write may raise
    `RecordUnfit` for a record that will never go in, though others do: it becomes a dead letter, and the
    others pass.

    Attributes:
        shared: whether other processes see the same records. Several workers can't serve from memory.
    """

    shared: bool = True

    @property
    @abstractmethod
    def label(self) -> str:
        """The place of the database, for people and logs: never with a password in it."""

    @abstractmethod
    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and bring the schema to the version that this code knows.

        Args:
            read_only: the caller only reads, so the user's rights to read are enough.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every connection. May be called more than once, and without `open`."""

    @abstractmethod
    async def add(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all batches or none, in one transaction.

        Pass over ids that are there, and over ids that `delete` has removed: the journal of a process that
        died, or that lost the answer to its commit, brings the same predictions again.

        `RecordBatch.records` makes records of them. A store that takes their arrays as they are spends half
        the time.
        """

    @abstractmethod
    async def get(self, record_id: str) -> Record | None:
        """Return one record, or None."""

    @abstractmethod
    async def page(
        self,
        limit: int,
        *,
        before: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kicker: str | None = None,
    ) -> list[Record]:
        """Return records newest first, that is by falling id.

        Args:
            limit: how many at most, from 1.
            before: only records with a smaller id than this one (keyset pagination).
            since: only records made at this instant or later.
            until: only records made before this instant.
            kicker: only records with this label.
        """

    @abstractmethod
    def stream(
        self, *, since: datetime | None = None, until: datetime | None = None, kicker: str | None = None
    ) -> AsyncIterator[list[Record]]:
        """Yield all records in groups, oldest first, in memory that does not grow with their number."""

    @abstractmethod
    async def delete(self, record_id: str) -> bool:
        """Remove one record; return whether it was there.

        In the same transaction its id is remembered for 30 days at least, so that no `add` brings the record
        back. A journal that waited for longer may.
        """

    @abstractmethod
    async def was_deleted(self, record_id: str) -> bool:
        """Return whether `delete` has removed a record with this id in the last 30 days."""

    @abstractmethod
    async def forget(self, kicker: str, at: datetime) -> int:
        """Take the label of a kicker off all records made before an instant; return how many had it.

        In the same transaction a hash of the label is remembered for 30 days at least, so that no `add`
        brings the label back.
        """

    @abstractmethod
    async def set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        """Set some hundreds of outcomes; of two for one record the one with the later `at` counts.

        So an outcome that waited in a journal never replaces one that became known after it. Of two with the
        same `at`, to the millisecond, the one that comes last counts. Where it was taken back, outcome and
        time are null again.

        Returns:
            The ids under which there is no record, spelt as they came.
        """

    @abstractmethod
    def labelled(
        self, *, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[list[LabelledPrediction]]:
        """Yield, in groups, the predictions whose outcome is known: quality is computed from them."""

    @abstractmethod
    def known_outcomes(
        self, *, since: datetime = BEGINNING, revision: str | None = None
    ) -> AsyncIterator[list[KnownOutcome]]:
        """Yield, in groups, the outcomes of predictions in the order in which they became known, then by id.

        Args:
            since: only outcomes that became known at this instant or later.
            revision: only of predictions by the model of this revision.
        """

    @abstractmethod
    async def outcome_changes(self, mark: object = None) -> OutcomeChanges:
        """Return since when `known_outcomes` may yield others than at an earlier look.

        An outcome that is set, corrected or taken back, a record that is deleted or purged, and a kicker who
        is forgotten change it, also where the change comes to the store late or from another process.

        Args:
            mark: of the earlier look. Without one, or where it is too old, all may have changed.
        """

    @abstractmethod
    async def purge(self, until: datetime, limit: int) -> int:
        """Remove the oldest records made before an instant, `limit` at most; return how many."""

    @abstractmethod
    async def search(
        self, wanted: Selection, limit: int, *, offset: int = 0, order: Order = "newest"
    ) -> list[Record]:
        """Return some of the records that are sought, for people who leaf through them.

        Args:
            wanted: which.
            limit: how many at most, from 1.
            offset: how many come before them in the order.
            order: by time, probability or distance; of equal ones the newer comes first.
        """

    @abstractmethod
    async def count(self, wanted: Selection = ALL, most: int | None = None) -> int:
        """Return how many records are kept, or how many of those that are sought; at most `most`."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the database answers; raise where it doesn't."""

    async def drop_whole(self, until: datetime) -> list[str]:  # noqa: ARG002
        """Drop at once the parts of the database that hold only records made before an instant.

        Returns:
            Names of the dropped parts, for people. Older records that are left are for `purge`.
        """
        return []


class Retention:
    """Removes old predictions, once a minute: whole months where the store can drop them, then in groups.

    Args:
        store: where to remove them.
        keep: how long predictions are kept; None for ever.
    """

    def __init__(self, store: Store, keep: timedelta | None) -> None:
        self._store = store
        self._keep = keep
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, where anything is to be removed at all."""
        if self._keep is not None:
            self._task = asyncio.create_task(self._run(self._keep), name="retention")

    async def stop(self) -> None:
        """End, between two groups."""
        await cancel_task(self._task)
        self._task = None

    async def remove_old(self, keep: timedelta) -> int:
        """Remove predictions older than `keep`; return how many were removed one by one."""
        until = datetime.now(UTC) - keep
        if dropped := await self._store.drop_whole(until):
            _log.info("dropped %s: older than KICKSERVE_RETENTION", ", ".join(dropped))
        removed = 0
        while count := await self._store.purge(until, GROUP):
            removed += count
            await asyncio.sleep(_BREATH)
        return removed

    async def _run(self, keep: timedelta) -> None:
        while True:
            try:
                removed = await self.remove_old(keep)
            except StoreError as error:
                _log.info("old predictions could not be removed now: %s", error)
            except Exception:  # noqa: BLE001  a bug in a store must end neither this nor the service
                _log.exception(
                    "old predictions could not be removed: the store failed with an unexpected error"
                )
            else:
                if removed:
                    _log.info("removed %d predictions older than KICKSERVE_RETENTION", removed)
            await asyncio.sleep(EVERY)
