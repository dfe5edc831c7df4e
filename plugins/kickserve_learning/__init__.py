"""The plugin `learning`: answers learn from what came of earlier kicks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.plugins import Plugin
from kickserve_learning.settings import LearningSettings

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Settings

__all__ = ["LearningPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> LearningPlugin:
    """Make the plugin: the entry point names this function."""
    return LearningPlugin(settings)


class LearningPlugin(Plugin):
    """Learns the level and the kickers' abilities from outcomes."""

    table: LearningSettings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table = LearningSettings.load(settings.environ)

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
