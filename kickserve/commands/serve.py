"""`kickserve serve`: runs the service."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import rich_click as click
from rich.logging import RichHandler

from kickserve import documentation
from kickserve.app import API, create_app
from kickserve.listening import bind
from kickserve.server import run
from kickserve.settings import Settings
from kickserve.terminal import print_facts, stderr, stdout

if TYPE_CHECKING:
    import socket

    from kickserve.edge import KickserveApp


@click.command("serve")
@click.option("--host", help="Address to listen on, over KICKSERVE_HOST.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port, over KICKSERVE_PORT; 0 picks a free one.")
def command(host: str | None, port: int | None) -> int:
    r"""Serve predictions until SIGTERM or Ctrl-C.

    \b
    Examples:
      kickserve serve
      KICKSERVE_PORT=8000 API_KEY=secret kickserve serve --host 0.0.0.0
    """
    settings = Settings.from_environment()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    _set_up_logging(settings)
    with bind(settings) as listener:
        app = create_app(settings)
        went_well = run(app, settings, [listener], lambda: _welcome(app, listener, settings))
    if went_well:
        stdout().print("stopped")
    return 0 if went_well else 1


def _welcome(app: KickserveApp, listener: socket.socket, settings: Settings) -> None:
    base = address(listener)
    service = app.state.service
    facts = [
        ("API", f"{base}{API}"),
        ("docs", f"{base}{documentation.PATH}"),
        ("model", f"{service.predictor.model.card.name} ({service.predictor.model.card.source})"),
        ("store", service.store.label),
        ("key", "needed, in the header X-API-Key" if settings.api_key else "none: this machine only"),
    ]
    if "home" in app.state:
        facts.insert(0, ("page", f"{base}{app.state.home}"))
    stdout().print("[bold]kickserve[/] is ready")
    print_facts(facts)


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104  it is compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _set_up_logging(settings: Settings) -> None:
    handler = RichHandler(console=stderr(), show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("kickserve").setLevel("DEBUG" if settings.debug else settings.log_level.upper())
    if settings.debug:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
