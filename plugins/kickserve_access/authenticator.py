"""Authentication by `API_KEY` and a file of keys, with rate limits by key, by address and for wrong keys."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.plugins import (
    ANONYMOUS,
    FORWARDED_FOR,
    NO_KEY,
    Authenticator,
    ConfigurationError,
    KeyRing,
    TooManyRequests,
    cancel_task,
    default_keys,
    find_slot,
    identity,
    integers,
    shared_array,
    sum_by_label,
)
from kickserve_access.keyfile import key_of, read
from kickserve_access.rates import Buckets, RateLimits, rate_limit_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from kickserve.plugins import Key, Principal, Settings
    from kickserve_access.settings import AccessSettings

RELOAD_EVERY: Final = 1.0  # seconds between checks of the file of keys
KICKS_A_REQUEST: Final = 100
"""Kicks of a batch that count as one request: about what they cost."""

_NAMES: Final = 64  # of keys that are counted apart; the last counts for all others
_COUNTER: Final = np.dtype([("label", "S64"), ("count", "i8")])

_log = logging.getLogger(__name__)


class AccessAuthenticator(Authenticator):
    """An authenticator with a file of keys and rate limits.

    It is made before workers are forked: its buckets and counters lie in memory that they share.

    Args:
        settings: `API_KEY`, trusted proxies and the number of workers.
        table: the file of keys and the rates.

    Attributes:
        counts: requests by name of their key.

    Raises:
        ConfigurationError: the file of keys can't be used.
    """

    def __init__(self, settings: Settings, table: AccessSettings) -> None:
        super().__init__(settings)
        self.guarded = self.guarded or table.keys is not None
        self.counts = KeyMeters(settings.workers)
        limited = table.rate or table.rate_address
        self._limits = RateLimits(table.rate, table.rate_address) if limited else None
        self._failures = None if table.rate_failures is None else Buckets(table.rate_failures)
        self._default_keys = default_keys(settings)
        self._file = table.keys
        self._signature = _signature(self._file)
        self.keys = self._read()

    def identify(self, sent: bytes, address: bytes) -> Key:
        """Return the valid key that a client sent.

        A valid key always passes: strangers share the address of a proxy with it. An address that has sent
        too many wrong keys gets no more answers about wrong ones.

        Raises:
            Unauthorized: the key is not valid.
            TooManyRequests: it is not, and neither were too many before it from the address.
        """
        key = self.keys.find(sent)
        if key is None and sent and self._failures is not None:
            place = self._failures.place(address)
            if wait := self._failures.wait(place):
                raise TooManyRequests(
                    "the key is not valid, and too many wrong keys came from this address: check the key",
                    wait,
                )
            self._failures.take(place)
        return super().identify(sent, address) if key is None else key

    def principal(self, key: Key, address: bytes) -> Principal:
        """Return the principal of a key and an address, with its rate limits."""
        if self._limits is None:
            return super().principal(key, address)
        return self._limits.principal(key, address)

    def enter(self, principal: Principal) -> None:
        """Count a request of a principal.

        Raises:
            TooManyRequests: one of its rate limits is used up.
        """
        if self._limits is not None and (refusal := self._limits.enter(principal)):
            raise refusal
        if principal.key is not NO_KEY:
            self.counts.add(principal.key.name)

    def admit(self, token: bytes, client: Any, sent: Mapping[bytes, bytes]) -> Principal | None:
        """Admit a prediction ahead of the router; see `Authenticator.admit`."""
        principal = self.find_predictor(token) if self.guarded else ANONYMOUS
        if principal is None:
            return None
        if self._limits is not None:
            peer = client[0] if client else ""
            address = identity(self.proxies.client(peer, sent.get(FORWARDED_FOR)))
            principal = self._limits.principal(principal.key, address)
            if self._limits.enter(principal):
                return None
        if self.guarded:
            self.counts.add(principal.key.name)
        return principal

    def charge(self, scope: Any, kicks: int, *, before: int = 0) -> None:
        """Count the kicks of an admitted batch beyond the first request's."""
        if self._limits is not None and (more := _requests(kicks) - _requests(before)):
            self._limits.take(scope["state"]["principal"], more)

    def headers(self, principal: Principal) -> list[tuple[bytes, bytes]]:
        """Return the `RateLimit` headers of an answer."""
        return rate_limit_headers(principal) if principal.limits else []

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the file of keys until the block ends."""
        task = None if self._file is None else asyncio.create_task(self._follow(), name="keys")
        try:
            yield
        finally:
            await cancel_task(task)

    def reload(self) -> None:
        """Read the file of keys if it has changed. After an error the keys stay as they were."""
        signature = _signature(self._file)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self.keys = self._read()
        except ConfigurationError as error:
            _log.error("%s; the previous keys stay valid", error)
            return
        _log.info("keys loaded: %s", ", ".join(sorted({key.name for key in self.keys})) or "none")

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_EVERY)
            self.reload()

    def _read(self) -> KeyRing:
        entries = [] if self._file is None else read(self._file)
        return KeyRing([*self._default_keys, *map(key_of, entries)])


class KeyMeters:
    """Counts requests by the name of their key, over all workers.

    Args:
        workers: number of processes that count. Where there are several, create this before they are forked,
            and call `join_worker` in each.
    """

    def __init__(self, workers: int = 1) -> None:
        self._all = shared_array(_COUNTER, workers, _NAMES)
        self.join_worker(0)

    def join_worker(self, number: int) -> None:
        """Write to row `number` from now on: that of a worker, from 0."""
        self._own = self._all[number]
        self._counts: dict[str, memoryview[int]] = {}

    def add(self, name: str) -> None:
        """Count a request that was let in with the key of this name."""
        count = self._counts.get(name)
        if count is None:
            slot = find_slot(self._own["label"], name)
            count = self._counts[name] = integers(self._own["count"][slot : slot + 1])
        count[0] += 1

    def read(self) -> dict[str, int]:
        """Add up the counts of all workers, by name."""
        return {name: int(count) for name, count in sum_by_label(self._all, "count").items()}


def _requests(kicks: int) -> int:
    """Return the number of requests that the kicks of a batch count as."""
    return max(1, math.ceil(kicks / KICKS_A_REQUEST))


def _signature(file: Path | None) -> object:
    """Return a value that changes with the file; None without one."""
    try:
        stat = None if file is None else file.stat()
    except OSError:
        return None
    return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)
