"""The plugin `workers`: several processes serve one port (standard)."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from kickserve.plugins import ConfigurationError, Metrics, Plugin, create_authenticator, create_store

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from kickserve.commands import Facts
    from kickserve.plugins import Settings
    from kickserve_workers.workers import Worker

__all__ = ["WorkersPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> WorkersPlugin:
    """Make the plugin: the entry point names this function."""
    return WorkersPlugin(settings)


class WorkersPlugin(Plugin):
    """Serves with `KICKSERVE_WORKERS` processes."""

    def serve_workers(self, settings: Settings, plugins: Sequence[Plugin]) -> int:
        """Serve until SIGTERM or SIGINT. Returns in the supervisor alone: workers exit.

        All that workers share is made before they are forked: imports, counters, rate limits. Each makes its
        own ids, journal and connections after that.

        Raises:
            ConfigurationError: other processes can't see the store, the address needs a key, or the port is
                taken.
        """
        from kickserve.server import ENDING_MIN, bind, preload
        from kickserve_workers.workers import Supervisor

        preload()
        store = create_store(plugins, settings.database_url)
        if not store.shared:
            raise ConfigurationError(
                f"{store.label} belongs to a single process: serve with KICKSERVE_WORKERS=1, or choose"
                " another store in DATABASE_URL"
            )
        authenticator = create_authenticator(plugins, settings)
        for plugin in plugins:
            plugin.share_memory(settings.workers)
        listeners = bind(settings, settings.workers, guarded=authenticator.guarded)
        metrics = Metrics(settings.workers)
        # A worker ends by itself in this time, unless it is suspended.
        patience = max(settings.shutdown_timeout, ENDING_MIN) + 0.5
        outcome = Supervisor(listeners, partial(_report_ready, settings, listeners), patience).run()
        if isinstance(outcome, int):
            return outcome
        sys.exit(_work(outcome, settings, metrics, plugins))


def _report_ready(settings: Settings, listeners: Sequence[socket.socket], message: bytes) -> None:
    from kickserve.commands import Facts, report_ready

    facts = msgspec.json.decode(message, type=Facts)
    report_ready(settings, listeners[0], [*facts, ("workers", str(len(listeners)))])


def _work(worker: Worker, settings: Settings, metrics: Metrics, plugins: Sequence[Plugin]) -> int:
    """Serve as one of several workers."""
    from kickserve.commands import serve_app
    from kickserve.logs import configure

    configure(settings, plugins, worker.number + 1)
    metrics.join_worker(worker.number)
    for plugin in plugins:
        plugin.join_worker(worker.number)

    def ready(facts: Facts) -> None:
        worker.ready(msgspec.json.encode(facts))

    return serve_app(settings, plugins, worker.listener, ready, metrics=metrics, lifeline=worker.lifeline)
