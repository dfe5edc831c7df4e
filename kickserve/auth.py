"""Who may do what: scopes, keys, and the authenticator that finds the principal of a request."""

from __future__ import annotations

import hashlib
import time
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kickserve.addresses import Proxies, host_name, identity, is_loopback
from kickserve.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Guard

    from kickserve.settings import Settings

    Headers = list[tuple[bytes, bytes]]


class Scope(StrEnum):
    """What a key may do. Each route requires one scope; `MEANINGS` lists the routes of each."""

    READ = "read"
    PREDICT = "predict"
    ADMIN = "admin"


MEANINGS: Final[Mapping[Scope, str]] = {
    Scope.READ: "read predictions, quality, drift and drift reports, the model, `/metrics`",
    Scope.PREDICT: "predict one kick or many, explain, and set outcomes",
    Scope.ADMIN: "all calls of `read` and `predict`; delete predictions, reload the model, profile,"
    " start drift reports",
}
_LENGTH_MIN: Final = 16  # characters of a key that guesses don't find
DEFAULT_KEY: Final = "default"
"""Name of the key in `API_KEY`."""

KEY_NAME: Final[ContextVar[str]] = ContextVar("kickserve_key", default="")
"""Name of the key of the current request, for the log."""


@dataclass(frozen=True, slots=True)
class Key:
    """A valid key.

    Attributes:
        name: its name; empty on a service without keys.
        scopes: granted scopes, implied ones included.
        digest: SHA-256 of the key.
        expires: end of its validity, in seconds since 1970.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes = b""
    expires: float = float("inf")


class Principal(NamedTuple):
    """The origin of a request.

    Attributes:
        key: the key that it came with; `NO_KEY` on a service without keys.
        address: the client's address as rate limits see it (`addresses.identity`); empty where none applies.
        limits: the rate limits of the client, opaque to the core (`kickserve_access.limits`).
    """

    key: Key
    address: bytes = b""
    limits: tuple[Any, ...] = ()


NO_KEY: Final = Key("", frozenset(Scope))
ANONYMOUS: Final = Principal(NO_KEY)
"""Every client of a service without keys."""


class KeyRing:
    """The valid keys of a service.

    Args:
        keys: of two that are equal, the first counts.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest: dict[bytes, Key] = {}
        for key in keys:
            self._by_digest.setdefault(key.digest, key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_digest.values())

    def find(self, sent: bytes) -> Key | None:
        """Return the valid key that a client sent, or None.

        The look-up compares digests: a client that doesn't know the key can't steer the digest, so the time
        of the look-up reveals nothing about the key.
        """
        key = self._by_digest.get(hashlib.sha256(sent).digest())
        return key if sent and key is not None and key.expires > time.time() else None


class Authenticator:
    """Finds the principal of a request and checks its scope. This one knows the key in `API_KEY` alone.

    Args:
        settings: the key, and the trusted proxies.

    Attributes:
        guarded: whether requests need a key.
        keys: the valid keys.
        proxies: the trusted proxies.
    """

    def __init__(self, settings: Settings) -> None:
        self.guarded = settings.api_key is not None
        self.keys = KeyRing(default_keys(settings))
        self.proxies = Proxies(settings.trusted_proxies)
        self._hosts = frozenset(settings.allowed_hosts or ())
        self._last: tuple[KeyRing | None, bytes, Principal] = (None, b"", ANONYMOUS)

    def check(self, scope: Any, required: Scope) -> None:
        """Admit a routed request (ASGI), and note its principal in the scope's state.

        Raises:
            Unauthorized: it has no valid key.
            Forbidden: its key lacks the required scope.
            TooManyRequests: its client has used up a rate limit.
        """
        client = scope.get("client")
        address = identity(client[0]) if client else b""
        key = self.identify(credential(_first(scope["headers"])), address) if self.guarded else NO_KEY
        principal = self.principal(key, address)
        scope["state"]["principal"] = principal
        KEY_NAME.set(key.name)
        if required not in key.scopes:
            raise Forbidden(
                f"the key '{key.name}' lacks the scope '{required}', which this call requires",
                scope=required.value,
            )
        self.enter(principal)

    def identify(self, sent: bytes, address: bytes) -> Key:  # noqa: ARG002  access limits wrong keys by address
        """Return the valid key that a client sent.

        Args:
            sent: the key; empty where none came.
            address: the client's (`addresses.identity`).

        Raises:
            Unauthorized: the key is not valid.
        """
        key = self.keys.find(sent)
        if key is not None:
            return key
        if not sent:
            raise Unauthorized("send a key in the header X-API-Key, or as Authorization: Bearer")
        raise Unauthorized("the key in X-API-Key or Authorization: Bearer is not valid here: check the key")

    def takes_host(self, host: bytes) -> bool:
        """Return whether requests with this header `Host` are answered.

        Without a key, only names of this machine and `KICKSERVE_ALLOWED_HOSTS` are: a page of another site
        could have its own name resolve to 127.0.0.1 (DNS rebinding), and would be of our origin then.
        """
        if self.guarded or "*" in self._hosts or not host:
            return True
        name = host_name(host.decode("latin-1"))
        return is_loopback(name) or name in self._hosts

    def admit(self, token: bytes, client: Any, sent: Mapping[bytes, bytes]) -> Principal | None:  # noqa: ARG002
        """Admit a prediction ahead of the router.

        Args:
            token: the key that came with it (`credential`).
            client: address and port of the connection; None where they are not known.
            sent: headers, with an `X-Forwarded-For` that has not been applied yet.

        Returns:
            The principal, or None where the router has to answer (with the reason of a refusal).
        """
        return self.find_predictor(token) if self.guarded else ANONYMOUS

    def find_predictor(self, token: bytes) -> Principal | None:
        """Return the principal of a key that may predict.

        The last one is remembered: clients repeat theirs.
        """
        ring, before, principal = self._last
        if ring is self.keys and compare_digest(token, before) and principal.key.expires > time.time():
            return principal
        key = self.keys.find(token)
        if key is None or Scope.PREDICT not in key.scopes:
            return None
        principal = Principal(key)
        self._last = (self.keys, token, principal)
        return principal

    # What a plugin with rate limits overrides.

    def principal(self, key: Key, address: bytes) -> Principal:
        """Return the principal of a key and an address."""
        return Principal(key, address)

    def enter(self, principal: Principal) -> None:
        """Count a request against the rate limits; raises TooManyRequests where one is used up."""

    def charge(self, scope: Any, kicks: int, *, before: int = 0) -> None:
        """Count the kicks of an admitted batch against the rate limits.

        Args:
            scope: of the request (ASGI).
            kicks: number of kicks so far.
            before: number of kicks that have been counted already.
        """

    def headers(self, principal: Principal) -> Headers:  # noqa: ARG002
        """Return the headers that an answer carries about the rate limits of its principal."""
        return []


def requires(scope: Scope) -> Guard:
    """Make the guard of a route: `@get("/…", guards=[requires(Scope.READ)])`.

    Where the service has no keys, a page of another origin may change nothing: a browser would send its
    request without any.
    """

    # A coroutine: the framework calls a plain function in a thread, out of the context of the request.
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        app: Any = connection.app
        if not app.authenticator.guarded:
            app.security_headers.refuse_foreign_change(connection.scope)
        app.authenticator.check(connection.scope, scope)

    return guard


def default_keys(settings: Settings) -> list[Key]:
    """Return the key in `API_KEY`, where there is one: it may do everything."""
    if settings.api_key is None:
        return []
    digest = hashlib.sha256(settings.api_key.encode()).digest()
    return [Key(DEFAULT_KEY, frozenset(Scope), digest)]


def weakness(settings: Settings) -> str:
    """Return what to do about an API_KEY that guesses may find; empty where there is nothing to do."""
    if settings.api_key is None or len(settings.api_key) >= _LENGTH_MIN:
        return ""
    return "API_KEY is short: guesses may find it. Choose a random key, as of `openssl rand -hex 24`"


def credential(sent: Mapping[bytes, bytes]) -> bytes:
    """Return the key in the headers of a request; empty where there is none.

    `X-API-Key` goes first: a proxy in front of the service may want `Authorization` for itself.
    """
    key = sent.get(b"x-api-key")
    if key is not None:
        return key
    scheme, _, token = sent.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _first(headers: Headers) -> dict[bytes, bytes]:
    """Return headers by name; of a repeated one the first."""
    return dict(reversed(headers))
