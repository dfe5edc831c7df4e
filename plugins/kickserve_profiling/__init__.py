"""The plugin `profiling`: where a request's time goes, in development by request, in production on demand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from litestar import Request, Response, Router, post
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema
from litestar.params import QueryParameter

from kickserve.plugins import API, InvalidInput, Plugin, Scope, refusals, requires
from kickserve.schemas import FieldError
from kickserve_profiling.formats import FORMATS
from kickserve_profiling.settings import ProfilingSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from click import Group
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.plugins import Settings

__all__ = ["ProfilingPlugin", "create_plugin"]

_LONGEST: Final = 60.0  # seconds
Seconds = Annotated[
    float,
    QueryParameter(ge=0.1, le=_LONGEST, description="Duration in seconds. Profiling slows the service down."),
]
FormatName = Annotated[
    str,
    QueryParameter(
        name="format",
        description="For snakeviz and `kickserve profile show`, kcachegrind, or speedscope.",
        schema_extra={"enum": [*FORMATS]},
    ),
]
ClockName = Annotated[
    Literal["cpu", "wall"],
    QueryParameter(description="cpu: processor time; wall: also the time in which threads wait."),
]


def create_plugin(settings: Settings) -> ProfilingPlugin:
    """Make the plugin: the entry point names this function."""
    return ProfilingPlugin(settings)


class ProfilingPlugin(Plugin):
    """Brings `POST /api/v1/profile` and `kickserve profile`; in development it profiles each request.

    Attributes:
        every: 1 to profile each request, n for every n-th, 0 for none.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table: ProfilingSettings = ProfilingSettings.load(settings.environ)
        self.every = int(settings.debug) if self.table.every is None else self.table.every

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route, and have the waits of tasks recorded where requests are profiled."""
        app_config.route_handlers.append(Router(API, route_handlers=[profile]))
        if self.every:
            app_config.lifespan.append(self._recording_tasks)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
        from kickserve_profiling.command import command

        cli.add_command(command)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Profile requests on their way to `app`; where none are, they take the shortest way."""
        if not self.every:
            return app
        from kickserve_profiling.profiler import PROFILER
        from kickserve_profiling.requests import ProfileStore, RequestProfiler

        self._store = ProfileStore(self.table.folder, most=self.table.keep, limit=self.table.limit)
        return RequestProfiler(app, PROFILER, self._store, self.every)

    @asynccontextmanager
    async def _recording_tasks(self, _: Litestar) -> AsyncIterator[None]:
        from kickserve_profiling.profiler import PROFILER
        from kickserve_profiling.requests import task_factory

        loop: Any = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(task_factory(PROFILER, before))
        try:
            yield
        finally:
            loop.set_task_factory(before)
            await asyncio.to_thread(self._store.close)


@dataclass
class _File(Operation):
    """Documents an answer that is a file of one of the formats."""

    def __post_init__(self) -> None:
        """Describe them."""
        answer: Any = (self.responses or {})["200"]
        answer.content = {
            each.media_type.partition(";")[0]: OpenAPIMediaType(schema=Schema()) for each in FORMATS.values()
        }


@post(
    "/profile",
    status_code=200,
    operation_class=_File,
    responses=refusals(409),
    tags=["service"],
    guards=[requires(Scope.ADMIN)],
)
async def profile(
    request: Request[Any, Any, Any],
    seconds: Seconds = 10.0,
    format_: FormatName = "pstat",
    clock: ClockName = "cpu",
) -> Response[bytes]:
    """Profile this process while it serves, and return the profile as a file.

    One at a time (409 otherwise). Of several workers it is the one that answers.
    """
    from kickserve_profiling.profiler import PROFILER  # yappi is imported by the first profile

    written = FORMATS.get(format_)
    if written is None:
        known = "; ".join(f"{name} ({each.opened_by})" for name, each in FORMATS.items())
        detail = f"must be one of {known}"
        raise InvalidInput(
            f"format {detail}", [FieldError(field="format", detail=detail, value=format_[:60])]
        )
    app: Any = request.app
    title = f"kickserve-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    found = await PROFILER.profile_process(seconds, clock, lambda: app.draining)
    return Response(
        await asyncio.to_thread(written.write, found, title),
        media_type=written.media_type,
        headers={"Content-Disposition": f'attachment; filename="{title}{written.suffix}"'},
    )
