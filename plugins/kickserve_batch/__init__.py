"""The plugin `batch`: the commands `batch`, `outcomes` and `export`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group

    from kickserve.settings import Settings

__all__ = ["BatchPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> BatchPlugin:
    """Make the plugin: the entry point names this function."""
    return BatchPlugin(settings)


class BatchPlugin(Plugin):
    """Brings commands."""

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        for name in ("batch_command", "outcomes_command", "export_command"):
            cli.add_command(import_module(f"kickserve_batch.{name}").command)
