"""How often somebody may ask: token buckets in memory that workers share.

A bucket is one number, the instant at which it will be full again (the generic cell rate algorithm, ATM
Forum TM 4.0, appendix I: the same as a token bucket, without a clock that fills it). The buckets stand in a
table of fixed size, made before the fork, so that all workers know what a client has had from any of them:

    [tag | tag | …  | instant | instant | …]      tag i and instant i are a bucket; 8 of them a set

A client's set is found by a hash that it can't foresee. A bucket that is full again is as good as none: its
place goes to the next who comes. Only where all eight are in use at once, the fullest is forgotten. There are
no locks: two workers that take from one bucket within the same microsecond may take one token for two.
"""

from __future__ import annotations

import math
import mmap
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve import setting_kinds as kinds

if TYPE_CHECKING:
    from collections.abc import Callable

_SETS: Final = 4096
_WAYS: Final = 8
_PLACES: Final = _SETS * _WAYS
_CELL: Final = 8  # bytes
_HAIR: Final = 1e-6  # seconds that rounding may be off by
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Rate(NamedTuple):
    """So many requests in such a time: all at once or spread over it.

    Attributes:
        most: how many, from 1.
        seconds: how long, from 1.
    """

    most: int
    seconds: int

    def __str__(self) -> str:
        """Write it as it is read: 100/s."""
        unit = next(name for name, length in _UNITS.items() if length == self.seconds)
        return f"{self.most}/{unit}"


def rate(value: str) -> Rate | None:
    """Read a rate such as 100/s; None where it is empty.

    Raises:
        ValueError: it is none; the message is a clause that begins with "must".
    """
    word = value.strip().lower()
    if word in {"", "0"}:
        return None
    most, _, unit = word.partition("/")
    try:
        return Rate(kinds.count(most.replace("_", "")), _UNITS[unit.strip()])
    except (KeyError, ValueError):
        raise ValueError("must be a rate such as 100/s, 5000/m or 100000/h") from None


class Buckets:
    """A bucket for each client: 512 kB, however many there are.

    Make it before workers are forked. A bucket is named by its place, which `place` finds: use it at once,
    because it may become another's.

    Args:
        rate: how quickly a bucket fills, and how much it holds.
        clock: seconds, the same for all processes.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._step = rate.seconds / rate.most
        self._room = rate.seconds - self._step + _HAIR  # how far a bucket may be from full to hold a request
        block = memoryview(mmap.mmap(-1, (2 * _PLACES + 1) * _CELL))
        self._tags = block.cast("q")
        self._instants = block.cast("d")
        self._salt = secrets.token_bytes(8)

    @property
    def untouched(self) -> bool:
        """Whether all buckets are full: who wants to know no more need not find out who is asking."""
        return self._instants[2 * _PLACES] <= self._clock()

    def place(self, who: bytes) -> int:
        """Return where the bucket of a client is."""
        tag = hash(self._salt + who) or 1
        first = tag % _SETS * _WAYS
        tags = self._tags
        for at in range(first, first + _WAYS):
            if tags[at] == tag:
                return _PLACES + at
        return self._new_place(first, tag)

    def wait(self, place: int) -> float:
        """Return the seconds until there is something in a bucket: 0 where there is."""
        missing = self._instants[place] - self._clock() - self._room
        return missing if missing > 0 else 0.0

    def take(self, place: int, count: int = 1) -> None:
        """Take from a bucket; where that is more than there is in it, it stays empty for so much longer."""
        instants, now = self._instants, self._clock()
        full = max(instants[place], now) + count * self._step
        instants[place] = full
        instants[2 * _PLACES] = max(full, instants[2 * _PLACES])

    def left(self, place: int) -> tuple[int, int]:
        """Return how many requests a bucket holds, and the seconds until it is full, rounded up."""
        debt = max(0.0, self._instants[place] - self._clock())
        return max(0, int((self.rate.seconds - debt + _HAIR) / self._step)), math.ceil(debt)

    def _new_place(self, first: int, tag: int) -> int:
        at = min(range(first, first + _WAYS), key=lambda each: self._instants[_PLACES + each])
        self._instants[_PLACES + at] = 0.0
        self._tags[at] = tag
        return _PLACES + at
