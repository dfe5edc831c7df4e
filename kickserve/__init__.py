"""kickserve: the honest probability that a rugby place kick goes over."""

import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

__all__ = ["__version__"]
__version__ = version("kickserve")

# Names of version 0.1 and the modules that have them now; to be removed in version 1.1.
_MOVED: Final = {
    "AsyncClient": "kickserve_client",
    "Client": "kickserve_client",
    "Kick": "kickserve_client",
    "RemoteError": "kickserve_client",
    "ServiceAway": "kickserve_client",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"kickserve.{name} has moved: use  from {_MOVED[name]} import {name}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(import_module(_MOVED[name]), name)
