"""`kickserve serve`: runs the service, in one process or in several."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import rich_click as click

from kickserve import logs
from kickserve import openapi as documentation
from kickserve.app import API, create_app
from kickserve.auth import Gate
from kickserve.errors import ConfigurationError
from kickserve.listening import bind, bind_all
from kickserve.metrics import Metrics
from kickserve.plugins import create_store, load_plugins
from kickserve.server import preload, run
from kickserve.settings import Settings, url_of
from kickserve.store import SharesMemory
from kickserve.terminal import print_facts, stdout

if TYPE_CHECKING:
    import socket

    from kickserve.middleware import KickserveApp
    from kickserve.plugins import Plugin
    from kickserve_workers.workers import Worker

_Facts = list[tuple[str, str]]
_PATHS: Final = frozenset({"page", "API", "docs"})  # facts that are paths of the service


@click.command("serve")
@click.option("--host", help="Address to listen on, over KICKSERVE_HOST.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port, over KICKSERVE_PORT; 0 picks a free one.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve, over KICKSERVE_WORKERS.")
def command(host: str | None, port: int | None, workers: int | None) -> int:
    r"""Serve predictions until SIGTERM or Ctrl-C.

    \b
    Examples:
      kickserve serve
      kickserve serve --workers 4
      KICKSERVE_PORT=8000 API_KEY=secret kickserve serve --host 0.0.0.0
    """
    settings = Settings.from_environment()
    settings = replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        workers=workers or settings.workers,
    )
    logs.set_up(settings)
    return _serve_alone(settings) if settings.workers == 1 else _serve_together(settings)


def _serve_alone(settings: Settings) -> int:
    with bind(settings) as listener:
        app = create_app(settings)
        went_well = run(app, settings, [listener], lambda: _welcome(listener, _facts(app, settings)))
    return _farewell(0 if went_well else 1)


def _serve_together(settings: Settings) -> int:
    if not hasattr(os, "fork"):
        raise ConfigurationError("this system can't fork processes: serve with KICKSERVE_WORKERS=1")
    from kickserve_workers.workers import Supervisor  # it names signals that not every system knows

    plugins = _prepare(settings)
    listeners = bind_all(settings, settings.workers)

    def welcome(message: bytes) -> None:
        facts = msgspec.json.decode(message, type=_Facts)
        _welcome(listeners[0], [*facts, ("workers", str(settings.workers))])

    # Made before the fork: all workers share their memory.
    metrics, gate = Metrics(settings.workers), Gate(settings)
    outcome = Supervisor(listeners, welcome).run()
    return (
        _farewell(outcome) if isinstance(outcome, int) else _work(outcome, settings, metrics, gate, plugins)
    )


def _prepare(settings: Settings) -> list[Plugin]:
    """Import what workers need, so that they share its memory, and find mistakes before there are any."""
    preload()
    plugins = load_plugins(settings)
    store = create_store(plugins, settings.database_url)
    if not getattr(store, "shared", True):
        raise ConfigurationError(
            f"{store.label} is seen by one process alone: serve with KICKSERVE_WORKERS=1, or choose another"
            " place with DATABASE_URL"
        )
    for plugin in plugins:
        if isinstance(plugin, SharesMemory):
            plugin.share(settings.workers)
    return plugins


def _work(worker: Worker, settings: Settings, metrics: Metrics, gate: Gate, plugins: list[Plugin]) -> int:
    """Serve as one of several."""
    logs.set_up(settings, worker.number + 1)
    # Made here and not before the fork: no two workers may have the same ids, journal or connections.
    metrics.join_worker(worker.number)
    gate.meters.join_worker(worker.number)
    for plugin in plugins:
        if isinstance(plugin, SharesMemory):
            plugin.take_place(worker.number)
    app = create_app(settings, metrics=metrics, plugins=plugins, gate=gate)

    def ready() -> None:
        worker.ready(msgspec.json.encode(_facts(app, settings)))

    went_well = run(app, settings, [worker.listener], ready, lifeline=worker.lifeline)
    return 0 if went_well else 1


def _facts(app: KickserveApp, settings: Settings) -> _Facts:
    """Say what is served, as names and values."""
    service = app.state.service
    facts = [
        ("API", API),
        ("docs", documentation.PATH),
        ("model", f"{service.predictor.model.card.name} ({service.predictor.model.card.source})"),
        ("store", service.store.label),
        ("key", "needed, in the header X-API-Key" if settings.guarded else "none: this machine only"),
    ]
    return [("page", app.state.home), *facts] if "home" in app.state else facts


def _welcome(listener: socket.socket, facts: _Facts) -> None:
    base = url_of(*listener.getsockname()[:2])
    stdout().print("[bold]kickserve[/] is ready")
    print_facts((name, base + value if name in _PATHS else value) for name, value in facts)


def _farewell(code: int) -> int:
    if code == 0:
        stdout().print("stopped")
    return code
