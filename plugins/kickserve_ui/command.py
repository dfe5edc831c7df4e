"""`kickserve ui`: opens the page, and starts the service first where none answers."""

from __future__ import annotations

import threading
import time
import webbrowser
from typing import Final

import rich_click as click

from kickserve.commands import serve
from kickserve.plugins import Settings, stdout
from kickserve_client import Client, RemoteError, calls
from kickserve_ui.rendering import PATH

_POLL: Final = 0.2
_TIMEOUT: Final = 60.0


@click.command("ui")
@click.option(
    "--browser/--no-browser", default=True, help="Whether to open a browser, or only print the address."
)
@click.pass_context
def command(context: click.Context, *, browser: bool) -> int:
    r"""Open the page: a pitch with the probability of success at every spot.

    If no service answers at KICKSERVE_HOST and KICKSERVE_PORT, the command starts one, until Ctrl-C.

    \b
    Examples:
      kickserve ui
      kickserve ui --no-browser
    """
    settings = Settings.load()
    base = settings.own_url
    if _answers(base):
        _open(base, browser=browser)
        return 0
    threading.Thread(target=_open_when_ready, args=(base,), kwargs={"browser": browser}, daemon=True).start()
    code: int = context.invoke(serve, host=None, port=None, workers=1)
    return code


def _answers(base: str) -> bool:
    try:
        with Client(base, key="", timeout=2, retries=0) as client:
            client.send(calls.live())
    except RemoteError:
        return False
    return True


def _open_when_ready(base: str, *, browser: bool) -> None:
    until = time.monotonic() + _TIMEOUT
    while time.monotonic() < until:
        if _answers(base):
            _open(base, browser=browser)
            return
        time.sleep(_POLL)


def _open(base: str, *, browser: bool) -> None:
    if not (browser and webbrowser.open(base + PATH)):
        stdout().print(f"open {base}{PATH} in a browser")
