"""Clients of httpx with the proxies and certificates of the environment.

httpx reads these variables itself, but for all hosts at once: one entry of NO_PROXY that it can't read, such
as an IPv6 network, and no client can be made. A client of kickserve talks to one host.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from kickserve.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

H = TypeVar("H", httpx.Client, httpx.AsyncClient)

_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def http_client(kind: type[H], url: str, **options: Any) -> H:
    """Make a client for one host, through the proxy that the environment names for it: for loopback none.

    Args:
        kind: `httpx.Client` or `httpx.AsyncClient`.
        url: of the host.
        options: what `kind` takes. A `transport` decides itself about proxies and certificates.

    Raises:
        ConfigurationError: a variable of the environment can't be used; the message names it.
    """
    if options.get("transport") is not None:
        return kind(trust_env=False, **options)
    host = httpx.URL(url)
    proxy = _proxy_for(host)
    try:
        # Without TLS there is nothing to verify, and to read the certificates takes 40 ms.
        verify = httpx.create_ssl_context() if host.scheme == "https" or proxy else False
    except OSError as error:
        names = " or ".join(name for name in _CERTIFICATES if os.environ.get(name))
        raise ConfigurationError(
            f"{names} can't be used: {error.strerror or error}. Correct it, or unset it"
        ) from error
    try:
        return kind(trust_env=False, proxy=proxy, verify=verify, **options)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        names = " or ".join(name for name, value in os.environ.items() if proxy in {value, f"http://{value}"})
        raise ConfigurationError(
            f"{names} can't be used: it must be a URL such as http://proxy.example:3128 (for socks5://"
            " install the package socksio). Correct it, or unset it"
        ) from error


def _proxy_for(url: httpx.URL) -> str | None:
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or _goes_direct(url.host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _goes_direct(host: str, no_proxy: str) -> bool:
    """Say whether a host is reached without a proxy: by name, domain, address or network."""
    if host == "localhost" or proxy_bypass(host):
        return True
    with suppress(ValueError):  # a name
        address = ip_address(host)
        return address.is_loopback or any(address in network for network in _networks(no_proxy))
    return False


def _networks(no_proxy: str) -> Iterator[IPv4Network | IPv6Network]:
    for entry in no_proxy.split(","):
        with suppress(ValueError):  # a name
            yield ip_network(entry.strip().strip("[]"), strict=False)
