"""Ids of predictions: UUIDs of version 7 (RFC 9562), so that sorting by id is sorting by time."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STORED: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
COUNTERS: Final = 1 << 26  # ids within a millisecond
_OWN: Final = COUNTERS // 2  # of them that a factory makes; the upper half is for ids that clients make
_OLDEST: Final = 30 * 86_400_000  # milliseconds: as long as a store remembers which records were deleted
_LOWER: Final = 1 << 14  # of them that differ in the lower digits alone
_VARIANT: Final = 0x8000  # the two bits in front of the lower digits, as RFC 9562 has them
LATEST: Final = 253_402_300_799_999  # milliseconds since 1970: the last that a datetime can hold
_VERSION_7: Final = 7
_YOUNG: Final = 5_000  # milliseconds after which a prediction is stored, unless its process has died
_LENGTH: Final = 36  # of an id
# Where an id holds its counter: four hexadecimal digits with the version, and four with the variant.
_COUNTER: Final = np.dtype(
    {"names": ["upper", "lower"], "formats": ["u4", "u4"], "offsets": [14, 19], "itemsize": _LENGTH}
)
_WRONG: Final = 60_000  # milliseconds that a clock is set back by, which is no correction any more


class Ids(Struct, frozen=True, gc=False):
    """Ids that follow one another within one millisecond.

    Attributes:
        millisecond: the instant that they hold, in milliseconds since 1970.
        counter: that of the first.
        number: how many they are.
        tail: the 48 bits that all ids of one factory share, as 12 hexadecimal digits.
    """

    millisecond: int
    counter: int
    number: int
    tail: str

    def texts(self) -> list[str]:
        """Return the ids in order."""
        number, tail = self.number, self.tail
        upper, low = divmod(self.counter, _LOWER)
        start = _start(self.millisecond, upper)
        if number <= 1:  # a lone kick's, in half of the time
            return [f"{start}{_VARIANT + low:x}-{tail}"] * number
        if low + number > _LOWER:  # the upper digits change on the way
            return [code.decode() for code in self.codes().tolist()]
        first = _VARIANT + low
        digits = np.arange(first, first + number, dtype=">u2").tobytes().hex(",", 2)
        # No loop over the ids: a third of the time of a format string for each.
        return f"{start}{digits}-{tail}".replace(",", f"-{tail},{start}").split(",")

    def codes(self) -> NDArray[np.bytes_]:
        """Return the ids in order as ASCII, shape (n,)."""
        counter, number = self.counter, self.number
        start = f"{_start(self.millisecond, 0)}8000-{self.tail}"
        table = np.frombuffer(bytearray(start.encode() * number), _COUNTER)
        upper, low = np.divmod(np.arange(counter, counter + number), _LOWER)
        for name, digits in (("upper", 0x7000 + upper), ("lower", _VARIANT + low)):
            table[name] = np.frombuffer(digits.astype(">u2").tobytes().hex().encode(), "u4")
        return table.view(f"S{_LENGTH}")

    def find(self, record_id: str) -> int | None:
        """Return the position of an id among these, or None where it is none of them."""
        sought = _parse(record_id)
        if sought.millisecond != self.millisecond or sought.tail != self.tail:
            return None
        at = sought.counter - self.counter
        return at if 0 <= at < self.number else None


class IdFactory:
    """Makes ids that only ever grow, also when the clock is set back a little.

    An id is 48 bits of milliseconds, a counter of 26 bits within the millisecond, and 48 bits that are
    drawn once for the factory: a fresh draw an id would cost more than the prediction. Two factories
    (processes) collide only if both draw the same 48 bits.

    A clock that is set back further than a correction goes was wrong before: the ids follow it, with 48
    new bits, as else all that is made until the next start would be dated to the wrong time.
    """

    def __init__(self) -> None:
        self._tail = f"{secrets.randbits(48):012x}"
        self._millisecond = 0
        self._counter = 0

    def take(self, number: int) -> Ids:
        """Return so many new ids, from 1 to 33 million."""
        now = time.time_ns() // 1_000_000
        if now > self._millisecond:
            self._millisecond, self._counter = now, 0
        elif self._millisecond - now > _WRONG:
            self._tail = f"{secrets.randbits(48):012x}"
            self._millisecond, self._counter = now, 0
        elif self._counter + number > _OWN:
            self._millisecond, self._counter = self._millisecond + 1, 0
        first = self._counter
        self._counter = first + number
        return Ids(self._millisecond, first, number, self._tail)


def _parse(record_id: str) -> Ids:
    value = uuid.UUID(record_id).int
    counter = (value >> 64 & 0xFFF) << 14 | value >> 48 & 0x3FFF
    return Ids(value >> 80, counter, 1, f"{value & (1 << 48) - 1:012x}")


def client_id(text: str) -> Ids:
    """Read an id that a client made for its kick, so that the kick can be sent again without a second record.

    It is none that a factory makes, so no client can take the id of a coming record.

    Raises:
        ValueError: it can't be one, and says why.
    """
    record_id = canonical(text)
    if record_id is None:
        raise ValueError("must be a UUID of version 7")
    ids, now = _parse(record_id), time.time_ns() // 1_000_000
    if ids.counter < _OWN:
        raise ValueError(
            "must have an 8 or more after the 7 of its version: lower ones are the service's own"
        )
    if ids.millisecond > now + _WRONG:
        raise ValueError("is of the future: the clock of the client that made it is ahead")
    if ids.millisecond < now - _OLDEST:
        raise ValueError("is of more than 30 days ago")
    return ids


def instant(millisecond: int) -> datetime:
    """Turn milliseconds since 1970 into a datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=millisecond)


def is_young(record_id: str) -> bool:
    """Return whether an id was made in the last seconds, by the clock of any process."""
    millisecond = int(record_id[:8] + record_id[9:13], 16)
    return abs(time.time_ns() // 1_000_000 - millisecond) < _YOUNG


def first_id_at(moment: datetime) -> str:
    """Return the smallest id that a prediction made at this instant, to the millisecond, can have.

    With it a store finds records by time through the index on their ids.
    """
    # Rounded up, so that "at this instant or later" and "before this instant" hold for whole milliseconds.
    millisecond = -((_EPOCH - moment) // timedelta(milliseconds=1))
    return first_id_in(max(millisecond, 0))


def first_id_in(millisecond: int) -> str:
    """Return the smallest id of a millisecond, counted since 1970."""
    return f"{_start(millisecond, 0)}8000-000000000000"


def canonical(text: str) -> str | None:
    """Return an id in the one spelling that is stored, or None where it is no id of ours."""
    if _STORED.fullmatch(text):  # a seventh of the time, and nearly all are spelt like this
        return text
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    return str(parsed) if parsed.version == _VERSION_7 else None


@lru_cache(maxsize=8)  # many ids are of one millisecond
def _start(millisecond: int, upper: int) -> str:
    """Return all in front of the lower digits of the counter."""
    digits = f"{millisecond:012x}"
    return f"{digits[:8]}-{digits[8:]}-7{upper:03x}-"
