"""NiceGUI's application: imported when the service is up, because it takes a second (`mount`)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from nicegui import ui
from starlette.middleware.sessions import SessionMiddleware

from kickserve_ui import PATH, pages
from kickserve_ui.plain import FAVICON

if TYPE_CHECKING:
    from litestar.types import ASGIApp

_RECONNECT: Final = 10.0  # seconds that a page which lost its connection finds the same state again
_SESSION: Final = 14 * 24 * 3600  # seconds after which the key is asked for again


def application(secret: str) -> tuple[FastAPI, ASGIApp]:
    """Return FastAPI's application, whose lifespan has to run, and what serves it with sessions.

    Args:
        secret: signs the sessions.
    """
    fast = _fast()
    signed: Any = SessionMiddleware(
        fast, secret, session_cookie="kickserve", max_age=_SESSION, path=PATH, same_site="lax"
    )
    return fast, signed


@cache
def _fast() -> FastAPI:
    """Make the FastAPI application around NiceGUI's: once a process, because there is one NiceGUI in it."""
    pages.register()
    fast = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        fast,
        title="kickserve",
        favicon=FAVICON,
        language="en-GB",
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,  # nothing is bound to what changes by itself
        reconnect_timeout=_RECONNECT,
        show_welcome_message=False,
    )
    return fast
