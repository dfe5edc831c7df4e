"""Who may come in: finds the key of a request, whether it is good for what is asked, and how often.

What the guards of routes (`kickserve.routes.guards_of`), the fast lane and the page have in common. Keys in a
file (`KICKSERVE_KEYS`) are read again when it changes, in every worker by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from kickserve import keys
from kickserve.addresses import Proxies, identity
from kickserve.batching import cancel_task
from kickserve.current import KEY
from kickserve.errors import ConfigurationError, Forbidden, TooManyRequests, Unauthorized
from kickserve.key_meters import KeyMeters
from kickserve.keys import ANYONE, Key, KeyRing, Scope
from kickserve.rate_limits import Caller, RateLimits
from kickserve.rates import Buckets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]

EVERY: Final = 1.0  # seconds between looks at the file of keys
KICKS_A_REQUEST: Final = 100
"""Kicks of a batch that count as one request: about what they cost."""

_log = logging.getLogger(__name__)


NOBODY: Final = Caller(ANYONE, b"")


class Gate:
    """Lets requests in, or says why not.

    Make it before workers are forked: all share what it remembers of how often clients have asked.

    Args:
        settings: the keys, the rates, and the proxies that are trusted.

    Attributes:
        guarded: whether a key is asked for.
        keys: those that open something now.
        limits: how often clients may ask; None where that is not limited.
        meters: counts requests by the name of their key.
        proxies: those that are trusted.

    Raises:
        ConfigurationError: the file of keys can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.guarded = settings.guarded
        self.proxies = Proxies(settings.trusted_proxies)
        self.limits = RateLimits.from_settings(settings)
        self.meters = KeyMeters(settings.workers)
        self._failures = None if settings.rate_failures is None else Buckets(settings.rate_failures)
        self._chosen = [] if settings.api_key is None else [keys.chosen(settings.api_key)]
        self._file = settings.keys
        self._seen = _signature(self._file)
        self.keys = self._read()
        self._lately: tuple[KeyRing | None, bytes, Caller] = (None, b"", NOBODY)
        self._task: asyncio.Task[None] | None = None

    def check(self, scope: Any, needs: Scope) -> None:
        """Let a request in that the framework has found a route for, and note whose it is (ASGI).

        Raises:
            Unauthorized: it has no key, or a wrong one.
            Forbidden: its key is not good for this.
            TooManyRequests: it has been here too often.
        """
        client = scope.get("client")
        address = identity(client[0]) if client else b""
        key = self.identify(_credential(_first(scope["headers"])), address) if self.guarded else ANYONE
        caller = Caller(key, address) if self.limits is None else self.limits.caller(key, address)
        scope["state"]["caller"] = caller
        KEY.set(key.name)
        if needs not in key.scopes:
            raise Forbidden(
                f"the key '{key.name}' may not do this: it needs the scope '{needs}'", scope=needs.value
            )
        if self.limits is not None and (refusal := self.limits.enter(caller)):
            raise refusal
        if key is not ANYONE:
            self.meters.add(key.name)

    def identify(self, sent: bytes, address: bytes) -> Key:
        """Return the key that was sent.

        An address that has sent too many wrong ones gets no answer for a while. Keys out of the file are
        let in all the same: no number of guesses finds one of those.

        Raises:
            Unauthorized: it is none that opens anything.
            TooManyRequests: see above.
        """
        key = self.keys.find(sent)
        if (key is None or key.guessable) and (wait := self._suspended(address)):
            raise TooManyRequests(
                "too many wrong keys came from this address: wait, and send the right one", wait
            )
        if key is not None:
            return key
        if not sent:
            raise Unauthorized("send a key in the header X-API-Key, or as Authorization: Bearer")
        if self._failures is not None:
            self._failures.take(self._failures.place(address))
        raise Unauthorized("the key that was sent (X-API-Key or Authorization: Bearer) opens nothing here")

    def opens(self, key: Key, scope: Scope) -> bool:
        """Say whether a key that was found some time ago is still one, and good for this."""
        return scope in key.scopes and (not self.guarded or self.keys.holds(key))

    def admits(self, sent: Mapping[bytes, bytes], peer: str, forwarded: bytes | None) -> Caller | None:
        """Say who sends a prediction, if it may come in; if not, the router will find out why.

        Args:
            sent: its headers, each of which is there once.
            peer: address of who has connected.
            forwarded: `X-Forwarded-For`, as far as that has not been made use of.
        """
        caller = self._predicting(_credential(sent)) if self.guarded else NOBODY
        if caller is None or (caller.key.guessable and self._fails_from(peer, forwarded)):
            return None
        if self.limits is not None:
            caller = self.limits.caller(caller.key, self._address(peer, forwarded))
            if self.limits.enter(caller):
                return None
        if self.guarded:
            self.meters.add(caller.key.name)
        return caller

    def _predicting(self, sent: bytes) -> Caller | None:
        """Return whose key this is, if it is good for predictions.

        The one that was found last is remembered: a client sends the same again and again.
        """
        ring, before, caller = self._lately
        if ring is self.keys and secrets.compare_digest(sent, before) and caller.key.expires > time.time():
            return caller
        key = self.keys.find(sent)
        if key is None or Scope.PREDICT not in key.scopes:
            return None
        caller = Caller(key, b"")
        self._lately = (self.keys, sent, caller)
        return caller

    def _fails_from(self, peer: str, forwarded: bytes | None) -> bool:
        """Say whether too many wrong keys have come from there."""
        if self._failures is None or self._failures.untouched:
            return False
        return bool(self._suspended(self._address(peer, forwarded)))

    def _address(self, peer: str, forwarded: bytes | None) -> bytes:
        return identity(self.proxies.client(peer, forwarded))

    def charge(self, scope: Any, kicks: int, *, before: int = 0) -> None:
        """Count the kicks of a batch that has been let in, as far as they are more than one request's.

        Args:
            scope: of the request (ASGI).
            kicks: how many it has brought by now.
            before: for how many of them it has been charged.
        """
        if self.limits is not None and (more := _requests(kicks) - _requests(before)):
            self.limits.take(scope["state"]["caller"], more)

    async def start(self) -> None:
        """Begin to look at the file of keys, where there is one."""
        if self._file is not None:
            self._task = asyncio.create_task(self._watch(), name="keys")

    async def stop(self) -> None:
        """End that."""
        await cancel_task(self._task)
        self._task = None

    def look(self) -> None:
        """Read the file of keys, if it has changed. One that can't be used changes nothing."""
        seen = _signature(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.keys = self._read()
        except ConfigurationError as error:
            _log.error("%s; the keys before stay", error)
            return
        _log.info("the keys are now: %s", ", ".join(sorted({key.name for key in self.keys})) or "none")

    def _read(self) -> KeyRing:
        entries = [] if self._file is None else keys.read(self._file)
        return KeyRing([*self._chosen, *map(keys.key_of, entries)])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.look()

    def _suspended(self, address: bytes) -> float:
        if self._failures is None or self._failures.untouched:
            return 0.0
        return self._failures.wait(self._failures.place(address))


def _requests(kicks: int) -> int:
    """Return as how many requests the kicks of one count."""
    return max(1, math.ceil(kicks / KICKS_A_REQUEST))


def _first(headers: Headers) -> dict[bytes, bytes]:
    """Return headers by their names; of one that is there twice the first."""
    return dict(reversed(headers))


def _credential(sent: Mapping[bytes, bytes]) -> bytes:
    """Return the key that came with a request; nothing where none did.

    `X-API-Key` goes first: what stands before the service may want `Authorization` for itself.
    """
    key = sent.get(b"x-api-key")
    if key is not None:
        return key
    scheme, _, token = sent.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _signature(file: Path | None) -> object:
    """Return what differs when a file has been written anew; None where there is none."""
    try:
        stat = None if file is None else file.stat()
    except OSError:
        return None
    return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)
