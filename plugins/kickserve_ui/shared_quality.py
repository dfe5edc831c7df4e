"""How good the predictions were, assessed once for all who look at the model's page."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from kickserve_scores.report import report

if TYPE_CHECKING:
    from kickserve.service import Service
    from kickserve_scores.report import QualityReport

_REST: Final = 10  # times as long as it took, it is not done again: it reads all whose outcome is known


class SharedQuality:
    """Assesses what is kept, one assessment at a time, and a tenth of the time at most.

    Args:
        service: whose predictions.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._turn = asyncio.Lock()
        self._found: QualityReport | None = None
        self._until = 0.0

    async def newest(self) -> QualityReport:
        """Return the newest assessment; where it is too old, make another.

        Raises:
            StoreUnavailable: the store is away.
        """
        async with self._turn:
            started = time.monotonic()
            if self._found is None or started > self._until:
                await self._service.recorder.flush()
                self._found = await report(self._service.store.labelled())
                ended = time.monotonic()
                self._until = ended + _REST * (ended - started)
            return self._found
