"""Profiles each request, or every n-th, into a file of its own, and tells how long it took in its answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kickserve_profiling.engine import TAG
from kickserve_profiling.waits import drive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from kickserve_profiling.engine import Engine, Profiled
    from kickserve_profiling.shelf import Shelf

_API: Final = "/api/"
_NEVER: Final = ("/api/v1/health", "/api/v1/profile")  # asked again and again; or a profile by itself
_SKIP: Final = b"x-skip-profiling"
_NO: Final = frozenset({b"", b"0", b"false", b"no"})
_LONGEST: Final = 60  # characters of each part of a name

_log = logging.getLogger(__name__)


class RequestProfiler:
    """An application that leads to another, and profiles it.

    Args:
        app: answers.
        engine: profiles.
        shelf: keeps the profiles.
        every: 1 for each request, n for every n-th.
    """

    def __init__(self, app: ASGIApp, engine: Engine, shelf: Shelf, every: int) -> None:
        self._app: Any = app
        self._engine = engine
        self._shelf = shelf
        self._every = every
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        path: str = scope["path"]
        if not path.startswith(_API):
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        profiled = self._begin(path, scope)
        if profiled is None:
            await self._app(scope, receive, answer)
        else:
            answer.profiled = True
            await self._profile(profiled, self._app(scope, receive, answer), answer)

    def _begin(self, path: str, scope: Any) -> Profiled | None:
        skipped = any(name == _SKIP and value.lower() not in _NO for name, value in scope["headers"])
        if skipped or path.startswith(_NEVER) or next(self._numbers) % self._every:
            return None
        return self._engine.begin()

    async def _profile(self, profiled: Profiled, call: Coroutine[Any, Any, None], answer: _Answer) -> None:
        token = TAG.set(profiled.tag)
        try:
            await drive(call, profiled.waits)
        finally:
            TAG.reset(token)
            self._end(profiled, answer.name())

    def _end(self, profiled: Profiled, name: str) -> None:
        try:
            figures = self._engine.end(profiled)
            if figures is not None:
                self._shelf.keep(name, figures, profiled.waits)
        except Exception:  # noqa: BLE001  the client has its answer: nothing may come after it
            _log.exception("the profile %s is lost", name)


class _Answer:
    """Adds to an answer how long it took until it began, and the name of its profile.

    Attributes:
        profiled: whether it has one.
    """

    __slots__ = ("_began", "_name", "_scope", "_send", "_started", "profiled")

    def __init__(self, scope: Any, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._began = datetime.now(UTC)
        self._started = time.perf_counter()
        self._name = ""
        self.profiled = False

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            took = time.perf_counter() - self._started
            headers = [*message.get("headers", ()), (b"x-process-time", b"%.6f" % took)]
            if self.profiled:
                headers.append((b"x-profile", self.name().encode()))
            message["headers"] = headers
        return self._send(message)

    def name(self) -> str:
        """Name the profile by time, endpoint and request; it stays as it is asked for first."""
        if not self._name:
            scope = self._scope
            endpoint = scope.get("path_template") or scope["path"]
            request_id = scope.get("state", {}).get("request_id", b"").decode()
            parts = (f"{self._began:%Y%m%dT%H%M%S.%fZ}", scope["method"], endpoint, request_id)
            self._name = "-".join(filter(None, map(_word, parts)))
        return self._name


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._{}]+", "-", text)[:_LONGEST].strip("-")


class TaskFactory:
    """Makes the event loop's tasks; those of a profiled request so that it is seen where they wait.

    Args:
        engine: knows which requests are being profiled.
        before: what made tasks before; None where the loop did so itself.
    """

    def __init__(self, engine: Engine, before: Callable[..., Any] | None) -> None:
        self._engine = engine
        self._before = before

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
        """Make a task."""
        context = more.get("context")
        tag = TAG.get() if context is None else context.get(TAG, 0)
        profiled = self._engine.of_this_context(tag) if tag else None
        if profiled is not None and asyncio.iscoroutine(coroutine):
            coroutine = drive(coroutine, profiled.waits)
        if self._before is not None:
            return self._before(loop, coroutine, **more)
        return asyncio.Task(coroutine, loop=loop, **more)
