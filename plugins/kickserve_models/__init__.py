"""The plugin `models`: ONNX, scikit-learn and boosted trees, from files and from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kickserve.plugins import Cancellable, ModelFile, Origin, Plugin, header_of
from kickserve_models.settings import ModelsSettings
from kickserve_trees.model import FORMAT, load_trees

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Model, Settings

__all__ = ["ModelsPlugin", "create_plugin"]

_HUB: Final = "hf:"
_MANY: Final = 10  # times what the service gives a model for a call, where a call is for a part of a file
_PICKLES: Final = (".pkl", ".pickle", ".joblib")


def create_plugin(settings: Settings) -> ModelsPlugin:
    """Make the plugin: the entry point names this function."""
    return ModelsPlugin(settings)


class ModelsPlugin(Plugin):
    """Fetches and loads kinds of models, and brings the command `kickserve model`.

    Args:
        settings: of the core.
    """

    table: ModelsSettings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table = ModelsSettings.load(settings.environ)

    def fetch_model(self, source: str) -> ModelFile | None:
        """Return the file of a repository of the hub; None for any other source.

        Args:
            source: `hf:owner/name` or `hf:owner/name@revision`; empty for the repository of the settings.

        Raises:
            ModelUnusable: the hub has no such model, or the source is a pickle, and those are not allowed.
        """
        if source.startswith(_HUB):
            name, _, revision = source.removeprefix(_HUB).partition("@")
        elif not source and self.table.hf_repo_id is not None:
            name, revision = self.table.hf_repo_id, self.table.hf_revision
        else:
            path = Path(source).expanduser()
            if path.is_file():
                self._check_allowed(path, Origin.of_file(path))
            return None
        from kickserve_models.hub import Repository, download

        repository = Repository(name, revision or "main", self.table.hf_token, self.table.hf_offline)
        path, origin = download(repository)
        self._check_allowed(path, origin)
        return ModelFile(path.read_bytes(), path.suffix.lower(), origin, path)

    def _check_allowed(self, path: Path, origin: Origin) -> None:
        if path.suffix.lower() in _PICKLES and not self.table.allow_pickle:
            raise origin.unusable(
                f"{path.name} is a pickle, which can run any code when loaded, so kickserve did not read the"
                " file. If you trust the author, set KICKSERVE_ALLOW_PICKLE=1; better, save the model with"
                " skops or as ONNX"
            )

    def load_model(self, file: ModelFile) -> Model | None:
        """Return the model of a file of trees, XGBoost, LightGBM, ONNX, skops or pickle; None for any other.

        Raises:
            ModelUnusable: it can't be trusted, or is no model of its kind.
            MissingExtra: its kind needs an extra that is not installed.
        """
        model: Any = self._load(file)
        if isinstance(model, Cancellable):
            model.limit = _MANY * self.settings.model_timeout
        return model  # type: ignore[no-any-return]  # it is one, or None

    def _load(self, file: ModelFile) -> Model | None:
        # Each imports its libraries only here: a service of one kind of model needs no other's.
        if file.ending == ".onnx":
            from kickserve_models.onnx import load_onnx

            return load_onnx(file, self.table.success_label, self.settings.model_timeout)
        if file.ending == ".skops":
            from kickserve_models.sklearn import load_skops

            return load_skops(file.data, file.origin, self.table.success_label)
        if file.ending in _PICKLES:
            from kickserve_models.sklearn import load_pickle

            return load_pickle(file.data, file.origin, self.table.success_label)
        return self._load_boosted(file)

    def _load_boosted(self, file: ModelFile) -> Model | None:
        is_xgboost = file.ending == ".ubj"
        if file.ending == ".json":
            header = header_of(file.data, file.origin)
            if header.format == FORMAT:
                return load_trees(file.data, file.origin)
            is_xgboost = isinstance(header.version, list)
        if not is_xgboost and file.ending != ".txt":
            return None
        from kickserve_models.boosters import read_lightgbm, read_xgboost
        from kickserve_models.sklearn import of_estimator

        classifier = (read_xgboost if is_xgboost else read_lightgbm)(file.data, file.origin)
        return of_estimator(classifier, [], file.data, file.origin, self.table.success_label)

    def on_cli_init(self, cli: Group) -> None:
        """Add the command."""
        from kickserve_models.commands import command

        cli.add_command(command)
