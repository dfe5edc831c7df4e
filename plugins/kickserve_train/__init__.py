"""The plugin `train`: the commands `simulate` and `train`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group

    from kickserve.settings import Settings

__all__ = ["TrainPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> TrainPlugin:
    """Make the plugin: the entry point names this function."""
    return TrainPlugin(settings)


class TrainPlugin(Plugin):
    """Brings commands."""

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        for name in ("simulate_command", "train_command"):
            cli.add_command(import_module(f"kickserve_train.{name}").command)
