"""The plugin `ui`: a pitch in the browser with the probability at every spot, at `/ui`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.plugins import Settings

__all__ = ["UIPlugin", "create_plugin"]

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> UIPlugin:
    """Make the plugin: the entry point names this function."""
    return UIPlugin(settings)


class UIPlugin(Plugin):
    """Brings the pages, and the command that opens them.

    Its modules are imported where an application is made: other commands need not wait for them.

    Args:
        settings: of the service.
    """

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Mount the pages, and redirect `/` to them.

        With several workers a notice takes their place: a browser's next request would reach another
        process, without the page.
        """
        from kickserve_ui import mount
        from kickserve_ui.rendering import PATH

        if self.settings.workers > 1:
            _log.info("the page at %s needs a single worker: a notice there explains it", PATH)
            app_config.route_handlers.append(mount.single_worker_notice(self.settings.workers))
            return app_config
        mount.mount(app_config)
        app_config.state.setdefault("home", PATH)  # another plugin may have set one
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add `kickserve ui`."""
        from kickserve_ui.command import command

        cli.add_command(command)
