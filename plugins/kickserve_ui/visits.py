"""The room for pages, open ones and those that wait for their browser: each takes 0.4 MB and 25 ms."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from nicegui import Client, app, core

from kickserve.plugins import identity
from kickserve_ui.layout import messages_for
from kickserve_ui.rendering import notice_page

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Send

_WAIT: Final = 15.0  # seconds for a browser to connect; one that takes longer loads the page anew
_PRUNE: Final = 1.0  # seconds between looks for pages that have waited too long
_MOST_OPEN: Final = 400  # pages in all: 160 MB, which fit into the 512 of a container with the service
_MOST: Final = 60  # of these, without a connection: waiting, or just left
_MOST_OF_ADDRESS: Final = 10  # of these, pages of an address that wait
_MOST_CONNECTIONS: Final = 100  # beside one for each page
_TRY_LATER: Final = 1013  # websocket close code
_RETRY: Final = 2  # seconds
_CONNECTIONS: Final = "/_nicegui_ws/"
_NO_PAGE: Final = ("/_nicegui", "/history.csv", "/report", "/favicon.ico")


def drop_unopened() -> None:
    """Drop pages that no browser connects to within some seconds, from now on."""
    app.timer(_PRUNE, partial(Client.prune_instances, client_age_threshold=_WAIT))


def with_limit(served: Any) -> ASGIApp:
    """Make no more pages than fit into memory: a visitor beyond gets a light one, which asks again by itself.

    Args:
        served: the application of the pages (ASGI).
    """
    building: Counter[bytes] = Counter()  # pages that are being made, by address
    turn = asyncio.Lock()  # of one of them at a time: predictions come in between

    async def serve(scope: Any, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope["root_path"])
        if path.startswith(_CONNECTIONS) and _too_many_connections(scope):
            await _refuse_connection(scope, receive, send)
        elif scope["type"] != "http" or scope["method"] != "GET" or path.startswith(_NO_PAGE):
            await served(scope, receive, send)
        else:
            await serve_page(scope, receive, send)

    async def serve_page(scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        address = identity(client[0]) if client else b""
        if _is_full(address, building):
            await _busy(Request(scope))(scope, receive, send)
            return
        building[address] += 1
        outer = [send]
        made = AsyncExitStack()

        async def send_once(message: Any) -> None:
            await made.aclose()
            await outer[0](message)

        try:
            async with made:
                await made.enter_async_context(turn)
                await served(scope, receive, send_once)
        finally:
            outer.clear()  # a page keeps its request, and with `send` would keep all that was sent
            building[address] -= 1
            if not building[address]:
                del building[address]

    return serve


def _is_full(address: bytes, building: Counter[bytes]) -> bool:
    apart = [each for each in Client.instances.values() if not each.has_socket_connection]
    # A page that was left has an environment, of the connection that it had.
    own = sum(each.environ is None and identity(each.ip) == address for each in apart)
    made = building.total()
    return (
        len(Client.instances) + made >= _MOST_OPEN
        or len(apart) + made >= _MOST
        or own + building[address] >= _MOST_OF_ADDRESS
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
