"""Ids of predictions: UUIDs of version 7 (RFC 9562), so that sorting by id is sorting by time."""

from __future__ import annotations

import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTERS: Final = 1 << 26
_VERSION_7: Final = 7


class IdFactory:
    """Makes ids that only ever grow, also when the clock is set back.

    An id is 48 bits of milliseconds, a counter of 26 bits within the millisecond, and 48 bits that are
    drawn once for the factory: a fresh draw an id would cost more than the prediction. Two factories
    (processes) collide only if both draw the same 48 bits.
    """

    def __init__(self) -> None:
        self._tail = f"{secrets.randbits(48):012x}"
        self._millisecond = 0
        self._counter = 0
        self._head = ""

    def next(self) -> tuple[str, int]:
        """Return an id and the instant it holds, in milliseconds since 1970."""
        now = time.time_ns() // 1_000_000
        if now > self._millisecond:
            self._start(now)
        else:
            self._counter += 1
            if self._counter == _COUNTERS:
                self._start(self._millisecond + 1)
        counter = self._counter
        record_id = f"{self._head}-7{counter >> 14:03x}-{0x8000 | counter & 0x3FFF:04x}-{self._tail}"
        return record_id, self._millisecond

    def _start(self, millisecond: int) -> None:
        self._millisecond = millisecond
        self._counter = 0
        digits = f"{millisecond:012x}"
        self._head = f"{digits[:8]}-{digits[8:]}"


def instant(millisecond: int) -> datetime:
    """Turn milliseconds since 1970 into a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=millisecond)


def in_utc(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as UTC, which is what records carry; leave others as they are."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def first_id_at(moment: datetime) -> str:
    """Return the smallest id that a prediction made at this instant, to the millisecond, can have.

    With it a store finds records by time through the index on their ids.
    """
    # Rounded up, so that "at this instant or later" and "before this instant" hold for whole milliseconds.
    millisecond = -((_EPOCH - moment) // timedelta(milliseconds=1))
    digits = f"{max(millisecond, 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def canonical(text: str) -> str | None:
    """Return an id in the one spelling that is stored, or None where it is no id of ours."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    return str(parsed) if parsed.version == _VERSION_7 else None
