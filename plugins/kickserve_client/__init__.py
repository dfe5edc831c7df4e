"""The library `client`: the client of a running service, for programs and for commands."""

from kickserve.errors import RemoteError, ServiceAway
from kickserve.schemas import Kick
from kickserve_client.client import AsyncClient, Client, connected, running_url

__all__ = ["AsyncClient", "Client", "Kick", "RemoteError", "ServiceAway", "connected", "running_url"]
