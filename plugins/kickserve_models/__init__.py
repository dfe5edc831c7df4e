"""The plugin `models`: ONNX, scikit-learn and boosted trees, from files and from the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.plugins import Plugin
from kickserve_models import loaders

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Model, ModelFile, Settings

__all__ = ["ModelsPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> ModelsPlugin:
    """Make the plugin: the entry point names this function."""
    return ModelsPlugin(settings)


class ModelsPlugin(Plugin):
    """Fetches and loads kinds of models, and brings the command `kickserve model`.

    Args:
        settings: of the core.
    """

    table: loaders.ModelsSettings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table = loaders.ModelsSettings.load(settings.environ)

    def fetch_model(self, source: str) -> ModelFile | None:
        """Return the file of a repository of the hub; None for any other source."""
        return loaders.fetch_model(source, self.table)

    def load_model(self, file: ModelFile) -> Model | None:
        """Return the model of a file of trees, ONNX, skops or pickle; None for any other."""
        return loaders.load_model(file)

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
        from kickserve_models.commands import command

        cli.add_command(command)
