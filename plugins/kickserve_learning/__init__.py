"""The plugin `learning`: answers learn from what came of earlier kicks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kickserve.plugins import Plugin
from kickserve_learning.settings import LearningSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.plugins import Learner, Metric, Settings

__all__ = ["LearningPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> LearningPlugin:
    """Make the plugin: the entry point names this function."""
    return LearningPlugin(settings)


class LearningPlugin(Plugin):
    """Learns the level and the kickers' abilities from outcomes; brings `/kickers` and the command `kickers`.

    Every process learns from the store by itself, and all learn the same.
    """

    table: LearningSettings

    def __init__(self, settings: Settings) -> None:
        from kickserve_learning.learner import FilterLearner
        from kickserve_learning.loop import LearningLoop

        super().__init__(settings)
        self.table = LearningSettings.load(settings.environ)
        self._learner = FilterLearner(self.table.learns)
        self._loop = LearningLoop(self._learner)

    @property
    def _learns(self) -> bool:
        return any(self.table.learns)

    def create_learner(self) -> Learner | None:
        """Return what adjusts answers; None where nothing is learned."""
        return self._learner if self._learns else None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes, and the learning in the background."""
        from kickserve_learning.routes import router

        app_config.route_handlers.append(router(level=self.table.learns.level))
        if self._learns:
            app_config.lifespan.append(self._running)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        from kickserve_learning import kickers_command, replay_command

        cli.add_command(kickers_command.command)
        cli.add_command(replay_command.command)

    def metrics(self) -> Iterable[Metric]:
        """Return what was learned, for `/metrics`."""
        return self._loop.metrics()

    def health(self) -> Mapping[str, str]:
        """Return whether answers know the newest outcomes."""
        return {"learning": self._loop.state} if self._learns else {}

    @asynccontextmanager
    async def _running(self, app: Any) -> AsyncIterator[None]:
        await self._loop.start(app)
        yield
        await self._loop.stop()
