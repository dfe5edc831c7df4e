"""The room for pages, open ones and those that wait for their browser: each takes 0.4 MB and 25 ms."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from nicegui import Client, app, core

from kickserve.plugins import identity
from kickserve_ui.messages import messages_for
from kickserve_ui.rendering import notice_page

_WAIT: Final = 15.0  # seconds for a browser to connect; one that takes longer loads the page anew
_PRUNE: Final = 1.0  # seconds between looks for pages that have waited too long
_MOST_OPEN: Final = 400  # pages in all: 160 MB, which fit into the 512 of a container with the service
_MOST: Final = 60  # of these, without a connection: waiting, or just left
_MOST_OF_ADDRESS: Final = 10  # of these, pages of an address that wait
_MOST_CONNECTIONS: Final = 100  # beside one for each page
_TRY_LATER: Final = 1013  # websocket close code
_RETRY: Final = 2  # seconds
_CONNECTIONS: Final = "/_nicegui_ws/"
_PAGES: Final = frozenset(
    {"", "/", "/kickers", "/history", "/model", "/compare", "/sign-in"}
)  # the others take no room


def drop_unopened() -> None:
    """Drop pages that no browser connects to within some seconds, from now on."""
    app.timer(_PRUNE, partial(Client.prune_instances, client_age_threshold=_WAIT))


class PageLimit:
    """Makes as many pages as fit into memory: a visitor beyond gets a light one, which asks again by itself.

    Args:
        served: the application of the pages (ASGI).
    """

    def __init__(self, served: Any) -> None:
        self._served = served
        self._building: Counter[bytes] = Counter()  # pages that are being made, by address
        self._turn = asyncio.Lock()  # of one of them at a time: predictions come in between

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, a page within the limits (ASGI)."""
        path = scope["path"].removeprefix(scope["root_path"])
        if path.startswith(_CONNECTIONS) and _too_many_connections(scope):
            await _refuse_connection(scope, receive, send)
        elif scope["type"] != "http" or scope["method"] != "GET" or path not in _PAGES:
            await self._served(scope, receive, send)
        else:
            await self._serve_page(scope, receive, send)

    async def _serve_page(self, scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        address = identity(client[0]) if client else b""
        if self._is_full(address):
            await _busy(Request(scope))(scope, receive, send)
            return
        self._building[address] += 1
        outer, made = [send], AsyncExitStack()

        async def send_made(message: Any) -> None:
            await made.aclose()
            await outer[0](message)

        try:
            async with made:
                await made.enter_async_context(self._turn)
                await self._served(scope, receive, send_made)
        finally:
            outer.clear()  # a page keeps its request, and with `send` would keep all that was sent
            self._building -= Counter([address])  # which drops an address at 0

    def _is_full(self, address: bytes) -> bool:
        apart = [each for each in Client.instances.values() if not each.has_socket_connection]
        # A page that was left has an environment, of the connection that it had.
        own = sum(each.environ is None and identity(each.ip) == address for each in apart)
        made = self._building.total()
        return (
            len(Client.instances) + made >= _MOST_OPEN
            or len(apart) + made >= _MOST
            or own + self._building[address] >= _MOST_OF_ADDRESS
        )


def _too_many_connections(scope: Any) -> bool:
    """Return whether a new connection is one too many: it takes memory before it names its page."""
    return (
        b"sid=" not in scope["query_string"]
        and len(core.sio.eio.sockets) >= len(Client.instances) + _MOST_CONNECTIONS
    )


async def _refuse_connection(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":  # polling, where a proxy takes no websockets
        await Response(status_code=503, headers={"Retry-After": str(_RETRY)})(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": _TRY_LATER})


def _busy(request: Request) -> HTMLResponse:
    messages = messages_for(request)
    page = notice_page(messages, messages("busy_title"), messages("busy_text"), refresh=_RETRY)
    return HTMLResponse(page, 503, headers={"Retry-After": str(_RETRY), "Cache-Control": "no-store"})
