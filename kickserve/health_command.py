"""`kickserve health`: asks a running service whether it takes predictions, for whoever watches it."""

from __future__ import annotations

import http.client
import json
from typing import Any, Final
from urllib.parse import urlsplit

import rich_click as click

from kickserve.option_kinds import FiniteRange, ServiceUrl
from kickserve.settings import Settings
from kickserve.terminal import print_facts, say

# A container engine asks every few seconds: so neither the server is imported, nor a client that takes long.

_PATH: Final = "/api/v1/health/ready"
_READY: Final = 200


@click.command("health")
@click.option(
    "--url", type=ServiceUrl(), help="Base URL of the service; by default the one that the settings describe."
)
@click.option("--timeout", type=FiniteRange(0.1), default=2.0, help="Seconds that it may take to answer.")
def command(url: str | None, timeout: float) -> int:
    r"""Ask a running service whether it takes predictions: exit code 0 if it does, and 1 if not.

    One whose store is away does: its journal keeps them meanwhile.

    \b
    Examples:
      kickserve health
      kickserve health --url http://127.0.0.1:8000
    """
    base = url or Settings.from_environment().own_url
    try:
        status, health = _ask(base, timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        say(f"no service answers at {base} ({type(error).__name__}: {error})")
        return 1
    if not isinstance(health, dict) or "parts" not in health:
        say(f"what answers at {base} is no kickserve; is the URL right?")
        return 1
    print_facts([("status", health["status"]), *health["parts"].items()])
    return 0 if status == _READY else 1


def _ask(base: str, timeout: float) -> tuple[int, Any]:
    address = urlsplit(base)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=timeout)
    try:
        connection.request("GET", _PATH)
        response = connection.getresponse()
        return response.status, _decoded(response.read())
    finally:
        connection.close()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
