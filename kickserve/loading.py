"""Loads models: fetches the file that a source names, and finds its loader, with the help of plugins.

A source is a path, `default` for the packaged model, or anything that a plugin knows, such as
`hf:owner/name@revision`. The core itself loads the packaged model and linear documents.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from kickserve import linear
from kickserve.documents import header_of
from kickserve.limited import call_within
from kickserve.linear import load_default, load_linear
from kickserve.model import HasProfile, ModelFile, Origin, smoke_test
from kickserve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve.hooks import Plugin
    from kickserve.model import Model, Profile

_LONGEST: Final = 120.0  # seconds that loading may take, the import of its libraries included
_PACKAGED: Final = ModelFile(b"", "", Origin("the package", "default"))


def load_model(settings: Settings, plugins: Sequence[Plugin]) -> Model:
    """Load the model that the settings name.

    Raises:
        ModelUnusable: it can't be found, read or trusted; the message names the next step.
        MissingExtra: its kind needs an extra that is not installed.
    """
    return load_file(fetch_model(source_of(settings), plugins), plugins)


def load_source(source: str, plugins: Sequence[Plugin]) -> Model:
    """Load the model of a source; raises as `load_model` does."""
    return load_file(fetch_model(source, plugins), plugins)


def source_of(settings: Settings) -> str:
    """Return the source that the settings name; empty where they name none."""
    return "" if settings.model is None else str(settings.model)


def fetch_model(source: str, plugins: Sequence[Plugin]) -> ModelFile:
    """Fetch the file of a source, without loading it.

    Args:
        source: empty for that of a plugin's setting, or else the packaged model.
        plugins: asked first, for sources that they know.

    Raises:
        ModelUnusable: it can't be found, read or trusted; the message names the next step.
    """
    for plugin in plugins:
        if (file := plugin.fetch_model(source)) is not None:
            return file
    if source in ("", "default"):
        return _PACKAGED
    path = Path(source).expanduser()
    origin = Origin.of_file(path)
    return ModelFile(_read(path, origin), path.suffix.lower(), origin, path)


def load_file(file: ModelFile, plugins: Sequence[Plugin]) -> Model:
    """Load a model that was fetched, and test it on a few kicks.

    Raises:
        ModelUnusable: it can't be trusted, fails the test, or no loader knows it.
        MissingExtra: its kind needs an extra that is not installed.
    """
    if file == _PACKAGED:  # also where it came from another process
        return load_default()
    settings = plugins[0].settings if plugins else Settings()
    try:
        model = call_within(_LONGEST, lambda: _load(file, plugins))
    except TimeoutError as error:
        raise file.origin.unusable(f"while it was loaded, {error}") from error
    smoke_test(model, file.origin, settings.model_timeout)
    return model


def _load(file: ModelFile, plugins: Sequence[Plugin]) -> Model:
    reason = (
        f"no plugin reads files that end with {file.ending!r}: the plugins of kickserve read .json,"
        " .onnx, .skops, .pkl, .pickle, .joblib, .ubj (XGBoost) and .txt (LightGBM)"
    )
    if file.ending == ".json":
        name = header_of(file.data, file.origin).format
        if name == linear.FORMAT:
            return load_linear(file.data, file.origin)
        reason = (
            f"its format is {name!r} instead of {linear.FORMAT!r}, and no plugin that is loaded reads that"
        )
    for plugin in plugins:
        if (model := plugin.load_model(file)) is not None:
            return model
    raise file.origin.unusable(reason)


def profile_of(model: Model) -> Profile:
    """Return the profile of a model's training data; of the packaged model's, where a model brings none."""
    profile = model.profile if isinstance(model, HasProfile) else None
    return profile or cast("Profile", _packaged().profile)


_packaged: Final = cache(load_default)


def _read(path: Path, origin: Origin) -> bytes:
    if path.is_dir():
        raise origin.unusable("the path is a folder: name a file in the folder")
    if not path.exists():
        raise origin.unusable("the file does not exist")
    if not path.is_file():  # reading a pipe or a device may never end
        raise origin.unusable("the path is not a regular file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise origin.unusable(f"the file can't be read: {error.strerror}") from error
    if not data:
        raise origin.unusable("it is empty")
    return data
