"""The plugin `batch`: the commands `batch`, `outcomes` and `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Settings

__all__ = ["BatchPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> BatchPlugin:
    """Make the plugin: the entry point names this function."""
    return BatchPlugin(settings)


class BatchPlugin(Plugin):
    """Brings commands."""

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        from kickserve_batch import batch_command, record_commands

        for command in (batch_command.command, record_commands.outcomes, record_commands.export):
            cli.add_command(command)
