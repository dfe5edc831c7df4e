"""The plugin `models`: ONNX, scikit-learn and boosted trees, from files and from the Hugging Face hub."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kickserve.plugins import Plugin

if TYPE_CHECKING:
    from click import Group

    from kickserve.settings import Settings

__all__ = ["ModelsPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> ModelsPlugin:
    """Make the plugin: the entry point names this function."""
    return ModelsPlugin(settings)


class ModelsPlugin(Plugin):
    """Brings commands."""

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        for name in ("commands",):
            cli.add_command(import_module(f"kickserve_models.{name}").command)
