"""Profiles each request, or every n-th, into files of its own; its answer's headers have the seconds."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import yappi

from kickserve.plugins import atomic_write
from kickserve_profiling.formats import FORMATS
from kickserve_profiling.profile import correct
from kickserve_profiling.profiler import TAG, generators, record_waits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from kickserve_profiling.profile import Waits
    from kickserve_profiling.profiler import ProfiledRequest, Profiler

_API: Final = "/api/"
_NEVER: Final = ("/api/v1/health", "/api/v1/profile")  # asked again and again; or a profile by itself
_SKIP: Final = b"x-skip-profiling"
_NO: Final = frozenset({b"", b"0", b"false", b"no"})
_LONGEST: Final = 60  # characters of each part of a name
_WRITTEN: Final = (FORMATS["pstat"], FORMATS["callgrind"])
# Names of files that `ProfileStore` writes: other files in the folder are neither counted nor removed.
_OURS: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[\w.{}-]+\.(pstat|callgrind)")
_MOST_PENDING: Final = 50  # profiles, each of which takes some hundred kB until it is written
_HIDDEN: Final = frozenset({__file__, record_waits.__code__.co_filename})

_log = logging.getLogger(__name__)


class RequestProfiler:
    """ASGI middleware that profiles requests of the API.

    Args:
        app: answers.
        profiler: of the process.
        store: keeps the profiles.
        every: 1 for each request, n for every n-th.
    """

    def __init__(self, app: ASGIApp, profiler: Profiler, store: ProfileStore, every: int) -> None:
        self._app: Any = app
        self._profiler = profiler
        self._store = store
        self._every = every
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI); headers of its answer have the seconds until it began, and its profile."""
        path: str = scope["path"]
        if not path.startswith(_API):
            await self._app(scope, receive, send)
            return
        began, started, name = datetime.now(UTC), time.perf_counter(), ""
        request = self._profiler.begin() if self._is_due(path, scope) else None

        def answer(message: Message) -> Awaitable[None]:
            nonlocal name
            if message["type"] == "http.response.start":
                took = time.perf_counter() - started
                headers = [*message.get("headers", ()), (b"x-process-time", b"%.6f" % took)]
                if request is not None:
                    name = _name(scope, began)
                    headers.append((b"x-profile", name.encode()))
                message["headers"] = headers
            return send(message)

        if request is None:
            await self._app(scope, receive, answer)
            return
        token = TAG.set(request.tag)
        try:
            await record_waits(self._app(scope, receive, answer), request.waits)
        finally:
            TAG.reset(token)
            self._end(request, name or _name(scope, began))

    def _is_due(self, path: str, scope: Any) -> bool:
        skipped = any(name == _SKIP and value.lower() not in _NO for name, value in scope["headers"])
        return not (skipped or path.startswith(_NEVER) or next(self._numbers) % self._every)

    def _end(self, request: ProfiledRequest, name: str) -> None:
        try:
            figures = self._profiler.end(request)
            if figures is not None:
                self._store.keep(name, figures, request.waits)
        except Exception:  # noqa: BLE001  the client has its answer already
            _log.exception("the profile %s is lost", name)


def _name(scope: Any, began: datetime) -> str:
    """Name a profile by time, endpoint and request."""
    endpoint = scope.get("path_template") or scope["path"]
    request_id = scope.get("state", {}).get("request_id", b"").decode()
    parts = (f"{began:%Y%m%dT%H%M%S.%fZ}", scope["method"], endpoint, request_id)
    return "-".join(filter(None, map(_word, parts)))


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._{}]+", "-", text)[:_LONGEST].strip("-")


def task_factory(profiler: Profiler, before: Callable[..., Any] | None) -> Callable[..., Any]:
    """Make a factory of the event loop's tasks; those of a profiled request have their waits recorded.

    Args:
        profiler: knows which requests are being profiled.
        before: the factory until now; None for the loop's own.
    """

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
        context = more.get("context")
        tag = TAG.get() if context is None else context.get(TAG, 0)
        request = profiler.request_of(tag) if tag else None
        if request is not None and asyncio.iscoroutine(coroutine):
            coroutine = record_waits(coroutine, request.waits)
        if before is not None:
            return before(loop, coroutine, **more)
        return asyncio.Task(coroutine, loop=loop, **more)

    return make


class ProfileStore:
    """A folder of profiles, written by a thread of its own; the oldest are removed.

    Args:
        folder: made when there is something to keep.
        most: profiles that are kept.
        limit: bytes that they may take altogether.
    """

    def __init__(self, folder: Path, *, most: int, limit: int) -> None:
        self._folder = folder
        self._most = most
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "profiles")
        self._pending = 0
        self._failing = False

    def keep(self, name: str, figures: yappi.YFuncStats, waits: Waits) -> None:
        """Have a profile written soon. Where the disk can't keep up, the profile is dropped.

        Args:
            name: of the file, without its suffix.
            figures: of the request.
            waits: where the request waited.
        """
        if self._pending >= _MOST_PENDING:
            _log.debug("the profile %s is dropped: too many wait to be written", name)
            return
        self._pending += 1
        self._thread.submit(self._write, name, figures, waits)

    def close(self) -> None:
        """Wait until all profiles are written."""
        self._thread.shutdown()

    def _write(self, name: str, figures: yappi.YFuncStats, waits: Waits) -> None:
        try:
            profile = correct(yappi.convert2pstats(figures), waits, generators(figures), _HIDDEN)
            self._folder.mkdir(parents=True, exist_ok=True)
            for each in _WRITTEN:
                with atomic_write(self._folder / f"{name}{each.suffix}") as unfinished:
                    unfinished.write_bytes(each.write(profile, name))
            self._tidy()
        except OSError as error:
            if not self._failing:  # once, and again when it had worked in between
                _log.warning("profiles can't be written to %s: %s", self._folder, error.strerror)
            self._failing = True
        except Exception:  # noqa: BLE001  the executor would keep it to itself
            _log.exception("the profile %s could not be written", name)
        else:
            self._failing = False
        finally:
            self._pending -= 1

    def _tidy(self) -> None:
        """Remove the oldest until the rest is within its limits; the newest stays in any case."""
        sizes: dict[str, int] = {}
        for entry in os.scandir(self._folder):
            if _OURS.fullmatch(entry.name):
                stem = entry.name.rpartition(".")[0]
                sizes[stem] = sizes.get(stem, 0) + entry.stat().st_size
        total = sum(sizes.values())
        for number, stem in enumerate(sorted(sizes)[:-1]):
            if len(sizes) - number <= self._most and total <= self._limit:
                break
            total -= sizes[stem]
            for each in _WRITTEN:
                (self._folder / f"{stem}{each.suffix}").unlink(missing_ok=True)
