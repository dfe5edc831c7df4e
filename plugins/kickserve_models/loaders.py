"""The settings of the plugin, and the tables of its sources and loaders of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kickserve.plugins import ModelFile, Origin, SettingsTable, header_of, kinds, setting
from kickserve_trees import model as trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kickserve.plugins import Model

    Loader = Callable[[bytes, Origin], Model | None]

_HUB: Final = "hf:"
_PICKLES: Final = (".pkl", ".pickle", ".joblib")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings(SettingsTable):
    """The settings of the hub and of pickles."""

    hf_repo_id: str | None = setting(
        "HF_REPO_ID", "", kinds.text, "Repository on the Hugging Face hub that holds the model."
    )
    hf_revision: str = setting(
        "HF_REVISION",
        "main",
        str.strip,
        "Branch, tag or commit of `HF_REPO_ID`; only a commit never changes.",
    )
    hf_token: str | None = setting(
        "HF_TOKEN", "", kinds.text, "Token for a private or gated repository on the hub.", secret=True
    )
    hf_offline: bool = setting(
        "HF_HUB_OFFLINE", "0", kinds.switch, "Whether files of the hub come from the local cache alone."
    )
    allow_pickle: bool = setting(
        "KICKSERVE_ALLOW_PICKLE",
        "0",
        kinds.switch,
        "Whether a model may be a pickle (.pkl, .pickle, .joblib); loading a pickle runs the code in the"
        " file.",
    )


def fetch_model(source: str, settings: ModelsSettings) -> ModelFile | None:
    """Return the file of a repository of the hub; None for any other source.

    Args:
        source: `hf:owner/name` or `hf:owner/name@revision`; empty for the repository of the settings.
        settings: of the plugin.

    Raises:
        ModelUnusable: the hub has no such model, or the source is a pickle, and those are not allowed.
    """
    if source.startswith(_HUB):
        name, _, revision = source.removeprefix(_HUB).partition("@")
    elif not source and settings.hf_repo_id is not None:
        name, revision = settings.hf_repo_id, settings.hf_revision
    else:
        path = Path(source).expanduser()
        if path.is_file():
            _check_allowed(path, Origin(str(path), path.stem), settings)
        return None
    from kickserve_models.hub import Repository, download

    path, origin = download(Repository(name, revision or "main", settings.hf_token, settings.hf_offline))
    _check_allowed(path, origin, settings)
    return ModelFile(path.read_bytes(), path.suffix.lower(), origin)


def _check_allowed(path: Path, origin: Origin, settings: ModelsSettings) -> None:
    if path.suffix.lower() in _PICKLES and not settings.allow_pickle:
        raise origin.unusable(
            f"{path.name} is a pickle, which can run any code when loaded, so kickserve did not read the"
            " file. If you trust the author, set KICKSERVE_ALLOW_PICKLE=1; better, save the model with"
            " skops or as ONNX"
        )


def load_model(file: ModelFile) -> Model | None:
    """Return the model of a file; None for a kind of file without a loader here.

    Raises:
        ModelUnusable: it can't be trusted, or is no model of its kind.
        MissingExtra: its kind needs an extra that is not installed.
    """
    return _LOADERS[file.ending](file.data, file.origin) if file.ending in _LOADERS else None


# Loaders import their libraries when they are called: a service of one kind of model needs no other's.


def _trees(data: bytes, origin: Origin) -> Model | None:
    return trees.load_trees(data, origin) if header_of(data, origin).format == trees.FORMAT else None


def _onnx(data: bytes, origin: Origin) -> Model:
    from kickserve_models.onnx import load_onnx

    return load_onnx(data, origin)


def _skops(data: bytes, origin: Origin) -> Model:
    from kickserve_models.sklearn import load_skops

    return load_skops(data, origin)


def _pickle(data: bytes, origin: Origin) -> Model:
    from kickserve_models.sklearn import load_pickle

    return load_pickle(data, origin)


_LOADERS: Final[Mapping[str, Loader]] = {
    ".json": _trees,
    ".onnx": _onnx,
    ".skops": _skops,
    **dict.fromkeys(_PICKLES, _pickle),
}
