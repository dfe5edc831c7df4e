"""The plugin `training`: the commands `simulate` and `train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Settings

__all__ = ["TrainingPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> TrainingPlugin:
    """Make the plugin: the entry point names this function."""
    return TrainingPlugin(settings)


class TrainingPlugin(Plugin):
    """Brings the commands."""

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        from kickserve_train.commands import simulate_command, train_command

        cli.add_command(simulate_command)
        cli.add_command(train_command)
