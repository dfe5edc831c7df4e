"""kickserve: the honest probability that a rugby place kick goes over."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kickserve.errors import RemoteError, ServiceAway
    from kickserve.schemas import Kick
    from kickserve_client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "Kick", "RemoteError", "ServiceAway", "__version__"]
__version__ = version("kickserve")

# Imported when asked for (PEP 562): the command line need not wait for a client that it does not use.
_LATER: Final["Mapping[str, str]"] = {
    "AsyncClient": "kickserve_client.client",
    "Client": "kickserve_client.client",
    "Kick": "kickserve.schemas",
    "RemoteError": "kickserve.errors",
    "ServiceAway": "kickserve.errors",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
