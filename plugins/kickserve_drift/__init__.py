"""The plugin `drift`: says when the kicks that come in have become unlike those that the model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar.plugins import CLIPlugin, InitPlugin

if TYPE_CHECKING:
    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.settings import Settings

__all__ = ["DriftPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> DriftPlugin:
    """Make the plugin: what the entry point names."""
    return DriftPlugin(settings)


class DriftPlugin(InitPlugin, CLIPlugin):
    """Live figures of drift, full reports, and the command `evaluate`.

    Args:
        settings: limits, folder of the reports, schedule and webhook stand there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the routes."""
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
