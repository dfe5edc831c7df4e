"""The plugin `profiling`: where a request's time goes, in development by request, in production on demand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar import Router

from kickserve.plugins import API, Plugin, Scope, requires

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from click import Group
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.settings import Settings

__all__ = ["ProfilingPlugin", "RequestProfilingPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> ProfilingPlugin:
    """Make the plugin: what the entry point names.

    Only where requests are to be profiled does it wrap them: otherwise they take their shortest way.
    """
    every = settings.profile_every
    if every is None:
        every = 1 if settings.debug else 0
    return RequestProfilingPlugin(settings, every) if every else ProfilingPlugin(settings)


class ProfilingPlugin(Plugin):
    """Brings `POST /api/v1/profile`, and the command `kickserve profile`.

    Args:
        settings: the key stands there.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route."""
        from kickserve_profiling.routes import profile

        app_config.route_handlers.append(
            Router(API, route_handlers=[profile], guards=[requires(Scope.ADMIN)])
        )
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
        from kickserve_profiling.commands import command

        cli.add_command(command)


class RequestProfilingPlugin(ProfilingPlugin):
    """Also profiles requests, each into a file of its own.

    Args:
        settings: where the files go, and how many.
        every: 1 for each request, n for every n-th.
    """

    def __init__(self, settings: Settings, every: int) -> None:
        super().__init__(settings)
        self._every = every

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the route, and what has to run along."""
        app_config.lifespan.append(self._watching_tasks)
        return super().on_app_init(app_config)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Profile requests on their way to `app`."""
        from kickserve_profiling import requests
        from kickserve_profiling.engine import ENGINE
        from kickserve_profiling.shelf import Shelf

        settings = self._settings
        self._shelf = Shelf(
            settings.profile_dir,
            most=settings.profile_keep,
            limit=settings.profile_max,
            hidden=[requests.__file__],
        )
        return requests.RequestProfiler(app, ENGINE, self._shelf, self._every)

    @asynccontextmanager
    async def _watching_tasks(self, _: Litestar) -> AsyncIterator[None]:
        from kickserve_profiling.engine import ENGINE
        from kickserve_profiling.requests import TaskFactory

        loop: Any = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(TaskFactory(ENGINE, before))
        try:
            yield
        finally:
            loop.set_task_factory(before)
            await asyncio.to_thread(self._shelf.close)
