"""How often clients may ask, by their key and by their address, and what they are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kickserve.errors import TooManyRequests
from kickserve.keys import ANYONE, Key
from kickserve.rates import Buckets

if TYPE_CHECKING:
    from kickserve.rates import Rate
    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]


class Limit:
    """One of the limits.

    Args:
        name: what it is of, as answers name it.
        rate: how often.

    Attributes:
        name: the same.
        buckets: of those whom it limits.
        policy: what answers say of it.
    """

    def __init__(self, name: str, rate: Rate) -> None:
        self.name = name
        self.buckets = Buckets(rate)
        self.policy = b'"%b";q=%d;w=%d' % (name.encode(), *rate)
        self._left = b'"%b";r=%%d;t=%%d' % name.encode()

    def left(self, place: int) -> bytes:
        """Return what answers say of a bucket."""
        return self._left % self.buckets.left(place)

    def refusal(self, wait: float) -> TooManyRequests:
        """Return the answer to a client that has to wait so many seconds."""
        rate = self.buckets.rate
        return TooManyRequests(
            f"this {self.name} may ask {rate.most:,} times in {rate.seconds:,} s, and has: ask again when"
            " Retry-After says",
            wait,
        )


class Caller(NamedTuple):
    """Who makes a request.

    Attributes:
        key: that it came with; `keys.ANYONE` where none is asked for.
        address: what stands for where it came from; empty where nobody wants to know.
        shares: the limits that are its, with the place of its bucket in each.
    """

    key: Key
    address: bytes
    shares: tuple[tuple[Limit, int], ...] = ()


class RateLimits:
    """All limits of a service.

    Args:
        by_key: that of keys, if there is one.
        by_address: that of addresses, if there is one.
    """

    def __init__(self, by_key: Limit | None, by_address: Limit | None) -> None:
        self._by_key = by_key
        self._by_address = by_address

    @classmethod
    def from_settings(cls, settings: Settings) -> RateLimits | None:
        """Make what the settings want; None where they limit nothing."""
        by_key = None if settings.rate is None else Limit("key", settings.rate)
        by_address = None if settings.rate_address is None else Limit("address", settings.rate_address)
        return cls(by_key, by_address) if by_key or by_address else None

    def caller(self, key: Key, address: bytes) -> Caller:
        """Find what is a caller's."""
        shares = []
        if self._by_key is not None and key is not ANYONE:
            shares.append((self._by_key, self._by_key.buckets.place(key.name.encode())))
        if self._by_address is not None:
            shares.append((self._by_address, self._by_address.buckets.place(address)))
        return Caller(key, address, tuple(shares))

    def enter(self, caller: Caller) -> TooManyRequests | None:
        """Take a request from the buckets of a caller; where one of them is empty, from none, and say so."""
        for limit, place in caller.shares:
            if wait := limit.buckets.wait(place):
                return limit.refusal(wait)
        for limit, place in caller.shares:
            limit.buckets.take(place)
        return None

    def take(self, caller: Caller, count: int) -> None:
        """Take more requests of a caller, than there are in its buckets too."""
        # Its places are looked up again: it may have been long since they were.
        for limit, place in self.caller(caller.key, caller.address).shares:
            limit.buckets.take(place, count)


def told(caller: Caller) -> Headers:
    """Return what an answer says of the limits of its caller (draft-ietf-httpapi-ratelimit-headers-10)."""
    if not caller.shares:
        return []
    policies = b", ".join([limit.policy for limit, _ in caller.shares])
    left = b", ".join([limit.left(place) for limit, place in caller.shares])
    return [(b"ratelimit-policy", policies), (b"ratelimit", left)]
