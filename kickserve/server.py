"""Runs the application under uvicorn, and ends it gently."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from kickserve.errors import KickserveError
from kickserve.listening import turn_away

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from kickserve.middleware import KickserveApp
    from kickserve.settings import Settings

# After SIGTERM, answers carry `Connection: close` for so long before connections are closed from this side:
# a client that keeps its connection learns of the end by an answer, not by a reset.
GRACE: Final = 0.5
# Between letting nobody in any more and closing: turns of the event loop in which those who are in come on.
_LAST_CALL: Final = 0.1
# Objects that come to be before the collector looks for cycles among them, and rounds before it looks among
# older ones. Predictions make no cycles, and Python's default takes half of the time of a batch. A plugin
# that makes many has them collected itself, as the page does.
_COLLECT: Final = (20_000, 5, 50)

_log = logging.getLogger(__name__)


def run(
    app: KickserveApp,
    settings: Settings,
    sockets: list[socket.socket],
    ready: Callable[[], None],
    *,
    lifeline: int | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    Args:
        app: what to serve.
        settings: how long it may take to end, and whether to log requests.
        sockets: where, bound.
        ready: called when requests are taken.
        lifeline: of a worker, a descriptor that becomes readable when its supervisor is gone.

    Raises:
        KickserveError: it could not start.

    Returns:
        Whether it came up and ended as it should.
    """
    server = _Server(configuration(app, settings), app, ready, lifeline)
    # uvicorn raises the signal again when it is done: without a handler the process would not end with 0.
    # And one that comes before uvicorn listens for it must not be lost.
    signal.signal(signal.SIGTERM, server.handle_exit)
    signal.signal(signal.SIGINT, server.handle_exit)
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.state.get("failure") is None)
    with contextlib.suppress(SystemExit):  # what uvicorn raises where the application does not start
        server.run(sockets=sockets)
    failure: KickserveError | None = app.state.get("failure")
    if failure is not None:
        raise failure
    return server.started


def configuration(app: KickserveApp, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve the application."""
    return uvicorn.Config(
        app,
        http=_connections(app, settings),
        access_log=settings.debug,
        log_config=None,
        lifespan="on",
        proxy_headers=False,  # kickserve.addresses reads them: on the fast lane too
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        timeout_keep_alive=30,
    )


def _connections(app: KickserveApp, settings: Settings) -> Any:
    """Return what makes connections: those that know the fast lane, where nothing else is to see requests."""
    if find_spec("httptools") is None:
        return "auto"
    from kickserve_lane.connection import LaneConnection
    from kickserve_lane.limits import ConnectionLimits, LimitedConnection

    limits = ConnectionLimits(settings)
    if app.lane is None or app.wrapped or settings.debug:
        return partial(LimitedConnection, app, limits)
    return partial(LaneConnection, app, limits, app.lane)


def preload() -> None:
    """Import what uvicorn imports when it starts: before a fork all workers share it."""
    for name in ("loops.auto", "protocols.http.auto", "protocols.websockets.auto", "lifespan.on"):
        import_module(f"uvicorn.{name}")


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, app: KickserveApp, ready: Callable[[], None], lifeline: int | None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready
        self._lifeline = lifeline
        self._owns_sockets = lifeline is None
        self._reloading: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches every process of a terminal. A worker waits for what its supervisor makes of it.
        if self._lifeline is None or sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        loop = asyncio.get_running_loop()
        if self._lifeline is not None:
            loop.add_reader(self._lifeline, self._orphaned, self._lifeline)
            # A worker that was asked to reload tells its supervisor, which tells them all.
            self._app.state.reloaded = partial(os.kill, os.getppid(), signal.SIGHUP)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if self.started:
            # What stands by now stays: a full collection that walked over it would hold all up for 20 ms.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT)
            # Nobody may listen to the good news any more: no reason to leave without closing what is open.
            with contextlib.suppress(BrokenPipeError, SystemExit):
                self._ready()

    def _hang_up(self) -> None:
        reloading = asyncio.create_task(self._reload(), name="reload")
        self._reloading.add(reloading)  # held, or it may vanish; and another may be asked for meanwhile
        reloading.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        try:
            await self._app.state.service.reload()
        except KickserveError as error:
            _log.error("the model could not be loaded anew, and the one before stays: %s", error)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        _log.error("the supervisor of this worker is gone: the worker ends too")
        self._owns_sockets = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # No new connections from here on. The standing ones are told to go by their next answer, and those
        # that are silent are closed when the grace is over.
        if self._owns_sockets:  # those of a worker may go on to the one that takes its place
            for each in sockets or ():
                turn_away(each)
        await asyncio.sleep(_LAST_CALL)
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        self._app.drain()
        if not self.force_exit:
            await asyncio.sleep(GRACE)
        await super().shutdown(sockets=sockets)
