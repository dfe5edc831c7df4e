"""Rate limits: token buckets in memory that workers share.

A bucket is one number, the instant at which it will be full again (the generic cell rate algorithm, ATM
Forum TM 4.0, appendix I: the same as a token bucket, without a clock that fills it). The buckets lie in a
table of fixed size, made before the fork, so that all workers know what a client has had from any of them:

    [tag | tag | …  | instant | instant | …]      tag i and instant i are a bucket; 8 of them a set

A salted hash finds a client's set. A full bucket needs no place, so its place goes to the next client; where
all eight of a set are in use, the fullest is dropped. There are no locks: two workers that take from one
bucket within the same microsecond may take one token for two.
"""

from __future__ import annotations

import math
import mmap
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve.plugins import NO_KEY, Principal, TooManyRequests, kinds

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve.plugins import Key

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
        block = memoryview(mmap.mmap(-1, 2 * _PLACES * _CELL))
        self._tags = block.cast("q")
        self._instants = block.cast("d")
        self._salt = secrets.token_bytes(8)

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
        self._instants[place] = max(self._instants[place], self._clock()) + count * self._step

    def left(self, place: int) -> tuple[int, int]:
        """Return how many requests a bucket holds, and the seconds until it is full, rounded up."""
        debt = max(0.0, self._instants[place] - self._clock())
        return max(0, int((self.rate.seconds - debt + _HAIR) / self._step)), math.ceil(debt)

    def _new_place(self, first: int, tag: int) -> int:
        at = min(range(first, first + _WAYS), key=lambda each: self._instants[_PLACES + each])
        self._instants[_PLACES + at] = 0.0
        self._tags[at] = tag
        return _PLACES + at


class Limit:
    """A rate limit, of keys or of addresses.

    Args:
        name: `key` or `address`, as answers name it.
        rate: the limit.

    Attributes:
        name: the same.
        buckets: one for each client.
        policy: the `RateLimit-Policy` of answers.
    """

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.buckets = Buckets(rate)
        self.policy = b'"%b";q=%d;w=%d' % (name.encode(), *rate)
        self._left = b'"%b";r=%%d;t=%%d' % name.encode()

    def left(self, place: int) -> bytes:
        """Return the `RateLimit` of answers about one bucket."""
        return self._left % self.buckets.left(place)

    def refusal(self, wait: float) -> TooManyRequests:
        """Return the error for a client that has to wait so many seconds."""
        rate = self.buckets.rate
        return TooManyRequests(
            f"the limit of this {self.name} is {rate.most:,} requests in {rate.seconds:,} s: retry after"
            " the seconds in Retry-After",
            wait,
        )


class RateLimits:
    """All rate limits of a service.

    Args:
        by_key: the limit of each key; None for no limit.
        by_address: the limit of each address; None for no limit.
    """

    def __init__(self, by_key: Rate | None, by_address: Rate | None) -> None:
        self._by_key = None if by_key is None else Limit("key", by_key)
        self._by_address = None if by_address is None else Limit("address", by_address)

    def principal(self, key: Key, address: bytes) -> Principal:
        """Return the principal of a key and an address, with the place of its bucket in each limit."""
        limits = []
        if self._by_key is not None and key is not NO_KEY:
            limits.append((self._by_key, self._by_key.buckets.place(key.name.encode())))
        if self._by_address is not None:
            limits.append((self._by_address, self._by_address.buckets.place(address)))
        return Principal(key, address, tuple(limits))

    def enter(self, principal: Principal) -> TooManyRequests | None:
        """Take one request from each bucket of a principal; from none where one is empty, and return why."""
        for limit, place in principal.limits:
            if wait := limit.buckets.wait(place):
                refusal: TooManyRequests = limit.refusal(wait)
                return refusal
        for limit, place in principal.limits:
            limit.buckets.take(place)
        return None

    def take(self, principal: Principal, count: int) -> None:
        """Take more requests of a principal, even more than its buckets hold."""
        # The places are looked up again: after a long body they may be another client's.
        for limit, place in self.principal(principal.key, principal.address).limits:
            limit.buckets.take(place, count)


def rate_limit_headers(principal: Principal) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer about the rate limits (draft-ietf-httpapi-ratelimit-headers-10)."""
    policies = b", ".join([limit.policy for limit, _ in principal.limits])
    left = b", ".join([limit.left(place) for limit, place in principal.limits])
    return [(b"ratelimit-policy", policies), (b"ratelimit", left)]
