"""The plugin `ui`: a pitch in the browser that answers, at `/ui`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.settings import Settings

__all__ = ["PATH", "UIPlugin", "create_plugin"]

PATH: Final = "/ui"

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> UIPlugin:
    """Make the plugin: what the entry point names."""
    return UIPlugin(settings)


class UIPlugin(Plugin):
    """Brings the page, and the command that opens it.

    Its own modules, and with them NiceGUI, are imported where an application is made: commands that serve
    nothing need not wait for them.

    Args:
        settings: the key stands there, and how many workers there are.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Mount the page, and have `/` lead to it.

        With several workers there is a word in its place: what the browser asks next would reach another
        process, which knows nothing of the page.
        """
        from kickserve_ui import mount

        if self._settings.workers > 1:
            _log.info("the page at %s needs a single worker: a word there says so", PATH)
            app_config.route_handlers.append(mount.apology(self._settings.workers))
            return app_config
        mount.mount(app_config, self._settings)
        app_config.state.setdefault("home", PATH)  # another plugin may have brought one
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add `kickserve ui`."""
        from kickserve_ui.command import command

        cli.add_command(command)
