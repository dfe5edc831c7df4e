"""Says once that the kicks have drifted, and once that they have come back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from kickserve_drift.drift import Limits, eased
from kickserve_drift.webhook import Event, Webhook

if TYPE_CHECKING:
    from kickserve.schemas import DriftSummary
    from kickserve_drift.live import Live

STARTED: Final = "drift.started"
ENDED: Final = "drift.ended"

_log = logging.getLogger(__name__)


class Alarm:
    """Watches the live figures cross the limits.

    They have come back only when they are below limits a fifth lower: figures that lie about a limit would
    otherwise cross it time and again.

    Args:
        live: the figures.
        limits: the limits.
        webhook: what is told, beside the log; None for nothing.
    """

    def __init__(self, live: Live, limits: Limits, webhook: Webhook | None) -> None:
        self._live = live
        self._limits = limits
        self._webhook = webhook

    def look(self) -> None:
        """Look at the figures, and say what has changed."""
        board = self._live.board
        summary = self._live.summary(eased(self._limits) if board.alarmed else self._limits)
        if summary is None or summary.drifted == board.alarmed:
            return
        board.alarmed = summary.drifted
        if summary.drifted:
            _log.warning("the kicks have drifted from those that the model knows: %s", _what(summary))
        else:
            _log.warning("the kicks are again like those that the model knows")
        if self._webhook is not None:
            kind = STARTED if summary.drifted else ENDED
            self._webhook.send(Event(type=kind, timestamp=summary.at, data=self._live.summary(self._limits)))

    async def stop(self) -> None:
        """End; see `Webhook.stop`."""
        if self._webhook is not None:
            await self._webhook.stop()


def _what(summary: DriftSummary) -> str:
    drifted = [each for each in [*summary.features, summary.prediction] if each.drifted]
    return ", ".join(f"{each.name} ({each.psi:.2f})" for each in drifted)
