"""Binds the port, runs the application under uvicorn, and stops it gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from kickserve import __version__
from kickserve.app import reload
from kickserve.errors import ConfigurationError, KickserveError
from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from kickserve.middleware import App
    from kickserve.settings import Settings

# After SIGTERM, answers carry `Connection: close` for so long before connections are closed from this side:
# a client that keeps its connection learns of the end by an answer, not by a reset.
GRACE: Final = 0.5
_REST: Final = 0.3  # seconds that cancelled tasks may take to end
ENDING_MIN: Final = 2.0  # seconds that an end without anything to wait for may take
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BACKLOG: Final = 2048

_log = logging.getLogger(__name__)


def check_host(settings: Settings, *, guarded: bool) -> None:
    """Refuse an address that other machines can reach where no key is needed.

    Raises:
        ConfigurationError: it is such an address.
    """
    if not guarded and settings.host not in _LOOPBACK:
        raise ConfigurationError(
            f"KICKSERVE_HOST={settings.host!r} is reachable from other machines, and the service has no key:"
            " set API_KEY or KICKSERVE_KEYS, or listen on 127.0.0.1"
        )


def bind(settings: Settings, count: int, *, guarded: bool) -> list[socket.socket]:
    """Bind the port, with a queue of connections for each worker where the system has SO_REUSEPORT.

    Args:
        settings: host and port; port 0 takes a free one, the same for all workers.
        count: number of workers, from 1.
        guarded: whether clients need a key.

    Returns:
        A socket for each worker; without SO_REUSEPORT the same one for all.

    Raises:
        ConfigurationError: other machines can reach the address and no key is needed, or the port is taken.
    """
    check_host(settings, guarded=guarded)
    host, port = settings.host, settings.port
    try:
        return _listen(host, port, count)
    except (OSError, ValueError) as error:  # the last: a name that can not be encoded
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({reason}): choose another port with KICKSERVE_PORT or --port"
        ) from error


def run(
    app: App,
    settings: Settings,
    sockets: list[socket.socket],
    ready: Callable[[], None],
    *,
    lifeline: int | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress.

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
    # One that comes before uvicorn listens for it must not be lost.
    signal.signal(signal.SIGTERM, server.handle_exit)
    signal.signal(signal.SIGINT, server.handle_exit)
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.state.get("failure") is None)
    with contextlib.suppress(SystemExit):  # what uvicorn raises where the application does not start
        server.run(sockets=sockets)
    failure: KickserveError | None = app.state.get("failure")
    if failure is not None:
        raise failure
    return server.started


def configuration(app: App, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve the application."""
    return uvicorn.Config(
        app,
        http=_protocol(app),
        access_log=settings.debug or settings.access_log,
        log_config=None,
        lifespan="on",
        proxy_headers=False,  # kickserve.addresses reads them: on the fast lane too
        server_header=False,
        # The other half is for the journal. Parts of seconds are as good.
        timeout_graceful_shutdown=max(settings.shutdown_timeout / 2 - GRACE, 0.1),  # type: ignore[arg-type]
        timeout_keep_alive=settings.keep_alive,
    )


def preload() -> None:
    """Import what uvicorn imports when it starts: before a fork all workers share it."""
    for name in ("loops.auto", "protocols.http.auto", "protocols.websockets.auto", "lifespan.on"):
        import_module(f"uvicorn.{name}")


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, app: App, ready: Callable[[], None], lifeline: int | None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready
        self._lifeline = lifeline
        self._reloading: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets)
        # What runs this waits for every task and thread, also for one that waits for a frozen server.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        others.add(asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor()))
        if (await asyncio.wait(others, timeout=_REST))[1] and self.started:
            _log.warning("something does not end, and is left: what waits for the store is in the journal")
            logging.shutdown()
            os._exit(0)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # Ctrl-C reaches every process of a terminal, SIGTERM by systemd every process of a service: a worker
        # waits for what its supervisor makes of the first, and passes over the second.
        if self._lifeline is not None and (sig == signal.SIGINT or self.should_exit):
            return
        if self.should_exit:  # asked again: the next start takes what waits from the journal
            os._exit(1)
        self.should_exit = True
        # Whatever hangs, also in C code: what hung goes to the log, and what waits stays in the journal.
        faulthandler.dump_traceback_later(max(self._app.settings.shutdown_timeout, ENDING_MIN), exit=True)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        loop = asyncio.get_running_loop()
        if self._lifeline is not None:
            loop.add_reader(self._lifeline, self._orphaned, self._lifeline)
            # A worker that was asked to reload signals its supervisor, which signals all workers.
            self._app.state.reloaded = partial(os.kill, os.getppid(), signal.SIGHUP)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        if self.started:
            # Objects made so far stay: a full collection over them would delay all requests for 20 ms.
            gc.freeze()
            addresses = {"{}:{}".format(*each.getsockname()) for each in sockets or ()}
            _log.info("started: kickserve %s at %s", __version__, ", ".join(sorted(addresses)))
            # The reader of standard output may have gone: serve all the same.
            with contextlib.suppress(BrokenPipeError, SystemExit):
                self._ready()

    def _hang_up(self) -> None:
        reloading = asyncio.create_task(self._reload(), name="reload")
        self._reloading.add(reloading)  # held, or it may vanish; and another may be asked for meanwhile
        reloading.add_done_callback(self._reloading.discard)

    async def _reload(self) -> None:
        try:
            await reload(self._app)
        except KickserveError as error:
            _log.error("the model could not be reloaded, and the current model stays: %s", error)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        _log.error("the supervisor of this worker is gone: the worker ends too")
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # No new connections from here on. Open ones are closed with their next answer, and those
        # that are silent are closed when the grace is over.
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        self._app.drain()
        if not self.force_exit:
            await asyncio.sleep(GRACE)
        await super().shutdown(sockets=sockets)
        _log.info("stopped")


def _protocol(app: App) -> Any:
    """Return the connections of the first plugin that brings some, or else uvicorn's own."""
    found = (plugin.create_protocol(app) for plugin in app.plugins if isinstance(plugin, Plugin))
    return next((protocol for protocol in found if protocol is not None), "auto")


def _listen(host: str, port: int, count: int) -> list[socket.socket]:
    with ExitStack() as undo:
        # Bound as if alone, so that a port that another service shares with itself is refused too.
        first = undo.enter_context(_bound(host, port, shared=False))
        listeners = [first]
        if count > 1 and _share(first):
            with suppress(OSError):
                for _ in range(1, count):
                    port = first.getsockname()[1]
                    listeners.append(undo.enter_context(_bound(host, port, shared=True)))
        for each in listeners:
            each.listen(_BACKLOG)
        undo.pop_all()
    # Queues for some of the workers alone would be of no use: the rest shares the first.
    return listeners + [first] * (count - len(listeners))


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    addresses = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104  asked for
    family, *_, address = min(addresses)  # of a name with both, IPv4
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # :: takes IPv4 too
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if shared:
            _share(listener)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _share(listener: socket.socket) -> bool:
    """Let others of ours take the same port; say whether the system does that."""
    option: int | None = getattr(socket, "SO_REUSEPORT", None)
    if option is None or sys.platform != "linux":  # elsewhere all connections go to one of the sockets
        return False
    try:
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    except OSError:
        return False
    return True
