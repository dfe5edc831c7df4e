"""The protocols that plugins fill. The core calls these, and never a plugin by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from kickserve.schemas import Record


class Store(Protocol):
    """Where predictions are kept for good.

    Every method but `close` may raise `StoreUnavailable` for what may pass by itself (the database is
    away, locked, full) and `StoreMisconfigured` for what will not.
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

    async def delete(self, record_id: str) -> bool:
        """Remove one record; say whether it was there."""
        ...

    async def count(self) -> int:
        """Return how many records are kept."""
        ...

    async def ping(self) -> None:
        """Return when the store answers, raise when it doesn't."""
        ...


@runtime_checkable
class StoreProvider(Protocol):
    """A plugin that knows how to keep predictions.

    Attributes:
        schemes: the URL schemes that it serves, such as `sqlite`, without a `+driver`.
    """

    schemes: frozenset[str]

    def create_store(self, url: str) -> Store:
        """Make a store for a database URL, without connecting yet.

        Args:
            url: as in `DATABASE_URL`; its scheme is one of `schemes`, perhaps with a `+driver` behind it.

        Raises:
            StoreMisconfigured: the URL can't be understood.
            MissingExtra: the store's own package is not installed.
        """
        ...
