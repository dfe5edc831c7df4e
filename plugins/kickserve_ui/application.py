"""NiceGUI's application: imported when the service is up, because it takes a second (`mount`)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import FastAPI
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware

from kickserve_ui import PATH, pages
from kickserve_ui.plain import FAVICON
from kickserve_ui.scripts import with_policy

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

    from kickserve.middleware import SecurityHeaders

_RECONNECT: Final = 10.0  # seconds that a page which lost its connection finds the same state again
_SESSION: Final = 14 * 24 * 3600  # seconds after which the key is asked for again
_PACKING: Final = 5  # of 9, the default, which takes three times as long and gains two percent


def application(secret: str, shield: SecurityHeaders) -> tuple[FastAPI, ASGIApp]:
    """Return FastAPI's application, whose lifespan has to run, and what serves it with sessions.

    Args:
        secret: signs the sessions.
        shield: what browsers are told.
    """
    fast = _fast()
    scripted: Any = with_policy(_Sessions(fast, secret, framed=shield.framed), shield)
    packed: Any = GZipMiddleware(scripted, compresslevel=_PACKING)
    return fast, packed


class _Sessions:
    """Signs sessions: by a cookie that no script sees, and that behind TLS goes by TLS alone.

    Args:
        app: what has them.
        secret: signs them.
        framed: whether pages of other origins may frame ours: behind TLS the cookie is sent there too.
    """

    def __init__(self, app: FastAPI, secret: str, *, framed: bool) -> None:
        def signed(same_site: Literal["lax", "none"], *, secure: bool) -> Any:
            return SessionMiddleware(
                app,
                secret,
                session_cookie="kickserve",
                max_age=_SESSION,
                path=PATH,
                same_site=same_site,
                https_only=secure,
            )

        self._open = signed("lax", secure=False)
        self._secure = signed("none" if framed else "lax", secure=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed = self._secure if scope["scheme"] in {"https", "wss"} else self._open
        await signed(scope, receive, send)


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
        gzip_middleware_factory=None,  # `application` packs, when scripts have their nonce
    )
    return fast
