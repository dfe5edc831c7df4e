"""Runs the application under uvicorn, and ends it gently."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from kickserve.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve.edge import KickserveApp
    from kickserve.errors import KickserveError
    from kickserve.settings import Settings

# After SIGTERM, answers carry `Connection: close` for so long before connections are closed from this side:
# a client that keeps its connection learns of the end by an answer, not by a reset.
GRACE: Final = 0.5
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def bind(settings: Settings) -> socket.socket:
    """Take the port.

    Raises:
        ConfigurationError: without a key, for an address that others can reach; or the port is taken.
    """
    host, port = settings.host, settings.port
    if settings.api_key is None and host not in _LOOPBACK:
        raise ConfigurationError(
            f"KICKSERVE_HOST={host!r} can be reached from other machines, and no key guards the service:"
            " set API_KEY, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({reason}): choose another with KICKSERVE_PORT or --port"
        ) from error


def run(
    app: KickserveApp, settings: Settings, sockets: list[socket.socket], ready: Callable[[], None]
) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    Args:
        app: what to serve.
        settings: how long it may take to end, and whether to log requests.
        sockets: where, bound.
        ready: called when requests are taken.

    Raises:
        KickserveError: it could not start.

    Returns:
        Whether it came up and ended as it should.
    """
    config = uvicorn.Config(
        app,
        http=_connections(app, settings),
        access_log=settings.debug,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        timeout_keep_alive=30,
    )
    server = _Server(config, app, ready)
    # uvicorn raises the signal again when it is done: without a handler the process would not end with 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.state.get("failure") is None)
    with contextlib.suppress(SystemExit):  # what uvicorn raises where the application does not start
        server.run(sockets=sockets)
    failure: KickserveError | None = app.state.get("failure")
    if failure is not None:
        raise failure
    return server.started


def _connections(app: KickserveApp, settings: Settings) -> Any:
    """Return what makes connections: those that know the fast lane, where nothing else is to see requests."""
    if app.lane is None or settings.debug or find_spec("httptools") is None:
        return "auto"
    from kickserve.connection import LaneConnection

    return partial(LaneConnection, app, app.lane)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: KickserveApp, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # No new connections from here on. The standing ones are told to go by their next answer, and those
        # that are silent are closed when the grace is over.
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        self._app.drain()
        if not self.force_exit:
            await asyncio.sleep(GRACE)
        await super().shutdown(sockets=sockets)
