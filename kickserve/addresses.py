"""Addresses of clients, also behind trusted proxies; names of this machine; origins of the web."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from kickserve import kinds

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    Trusted = tuple[IPv4Network | IPv6Network, ...] | int

FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDED_PROTO: Final = b"x-forwarded-proto"
_FORWARDED_PREFIX: Final = b"x-forwarded-prefix"
_FORWARDED: Final = (b"x-forwarded-", b"forwarded")  # how the names of all such headers begin
_SECURE: Final = {"https": True, "wss": True, "http": False, "ws": False}
_REMEMBERED: Final = 4096
_OWN: Final = 8  # bytes of an IPv6 address: who has one has all that begin with these (/64)


def proxies(value: str) -> Trusted:
    """Parse the trusted proxies: addresses and networks, or the number of proxies in a row.

    Raises:
        ValueError: it is neither; the message is a clause that begins with "must".
    """
    word = value.strip()
    if word.isdecimal():
        return kinds.whole(word)
    try:
        return tuple(ip_network(each) for each in word.replace(",", " ").split())
    except ValueError:
        raise ValueError(
            "must be addresses or networks such as 10.0.0.0/8, separated by commas, or the number of proxies"
        ) from None


class Proxies:
    """The trusted proxies, and the clients behind them.

    Args:
        trusted: networks of proxies; or the number of proxies in a row, whatever their addresses, where every
            client has to pass them.
    """

    def __init__(self, trusted: Trusted) -> None:
        self._trusted = trusted
        # What clients and proxies send is from outside: what is remembered of it must not grow without end.
        self.trusts = lru_cache(_REMEMBERED)(self._trusts)
        self._behind = lru_cache(_REMEMBERED)(self._last_untrusted)

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """Return the address of a client.

        Args:
            peer: who has connected.
            forwarded: `X-Forwarded-For`, if there is one.
        """
        if forwarded is None or not self.trusts(peer):
            return peer
        return self._behind(forwarded[-1024:]) or peer

    def apply(self, scope: Any) -> None:
        """Set client, scheme and root path in the scope of a connection (ASGI) by a trusted proxy's headers.

        Without a trusted proxy the headers are anybody's: they are taken out, and nothing behind reads them.
        """
        headers = scope["headers"]
        for name, _ in headers:  # any() would cost each request a call for each header
            if name.startswith(_FORWARDED):
                break
        else:
            return
        client = scope.get("client")
        peer = client[0] if client else ""
        if not self.trusts(peer):
            scope["headers"] = [each for each in headers if not each[0].startswith(_FORWARDED)]
            return
        if chain := [value for name, value in headers if name == FORWARDED_FOR]:
            scope["client"] = (self.client(peer, b",".join(chain)), 0)
        schemes = next((value for name, value in headers if name == _FORWARDED_PROTO), b"")
        secure = _SECURE.get(schemes.decode("latin-1").partition(",")[0].strip().lower())
        for prefix in [value for name, value in headers if name == _FORWARDED_PREFIX]:
            with suppress(ValueError):  # any text
                scope["root_path"] = kinds.root_path(prefix.decode("latin-1").partition(",")[0])
            scope["headers"] = [each for each in scope["headers"] if each[0] != _FORWARDED_PREFIX]
        if secure is not None:
            scope["scheme"] = ("ws" if scope["type"] == "websocket" else "http") + "s" * secure

    def _trusts(self, peer: str) -> bool:
        if isinstance(self._trusted, int):
            return self._trusted > 0
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)

    def _last_untrusted(self, forwarded: bytes) -> str:
        """Return the client of a chain: each proxy adds at the end whom it has heard."""
        chain = [_bare(each) for each in forwarded.decode("latin-1").split(",")]
        if isinstance(self._trusted, int):
            found = chain[-min(self._trusted, len(chain))]
            return found if _address(found) is not None else ""
        heard = ""
        for each in reversed(chain):
            if _address(each) is None:  # no address: those before it can't be trusted either
                break
            heard = each
            if not self.trusts(each):
                break
        return heard


@lru_cache(_REMEMBERED)
def host_name(authority: str) -> str:
    """Return the name in a header `Host`, in small letters and without the port."""
    return _bare(authority).lower().rstrip(".")


@lru_cache(_REMEMBERED)
def is_loopback(name: str) -> bool:
    """Return whether a name is always this machine's: no name server can make it another's (RFC 6761)."""
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") if address is None else address.is_loopback


def same_origin(origin: str, authority: str) -> bool:
    """Return whether a page of an origin comes from a host.

    Args:
        origin: of a page, as in the header `Origin`: any text.
        authority: host and port, as in the header `Host`.
    """
    scheme, _, host = origin.partition("://")
    # A page of a file has no host (`file://`), nor has a header that was not sent.
    return bool(host) and kinds.origin(origin) == kinds.origin(f"{scheme}://{authority.strip()}")


@lru_cache(_REMEMBERED)
def identity(host: str) -> bytes:
    """Return a client's address as rate limits see it: of IPv6 its /64, which one client has all of."""
    address = _address(host)
    if address is None:
        return host.encode()[:64]
    return address.packed[:_OWN] if isinstance(address, IPv6Address) else address.packed


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _bare(text: str) -> str:
    """Take the port away from an address."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
