"""The library `client`: the client of a running service, for programs and for commands."""

from kickserve.errors import RemoteError, ServiceAway
from kickserve.schemas import Kick
from kickserve_client.client import AsyncClient, Client, connected, running_url
from kickserve_client.environment import http_client
from kickserve_client.frames import Answers

__all__ = [
    "Answers",
    "AsyncClient",
    "Client",
    "Kick",
    "RemoteError",
    "ServiceAway",
    "connected",
    "http_client",
    "running_url",
]
