"""Removes predictions that are older than they may get, so that nobody waits for it.

Whole months go at once where the store can do that, and the rest a few at a time.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kickserve.background import end
from kickserve.errors import StoreError
from kickserve.store import DropsWhole

if TYPE_CHECKING:
    from datetime import timedelta

    from kickserve.store import Store

GROUP: Final = 1_000  # removed in one transaction
EVERY: Final = 60.0
_BREATH: Final = 0.05  # between groups: writers go first

_log = logging.getLogger(__name__)


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
        await end(self._task)
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
