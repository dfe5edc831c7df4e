"""Loads the model that the settings ask for: a file, one from the hub, or the one that is packaged.

A kind of model is a loader: it takes the bytes of the file and where they came from, and makes a `Model`. A
table says which one reads which ending, and a second one, for JSON, which one reads which format.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from kickserve import linear
from kickserve.documents import header_of
from kickserve.errors import KickserveError
from kickserve.linear import load_default
from kickserve.model import HasProfile, Origin, smoke_test
from kickserve_trees import model as trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kickserve.model import Model, Profile
    from kickserve.settings import Settings

    Loader = Callable[[bytes, Origin], Model]

# Loaders import what they need when they are called: who serves one kind of model needs no other's libraries.


def _onnx(data: bytes, origin: Origin) -> Model:
    from kickserve_models.onnx import load_onnx

    return load_onnx(data, origin)


def _skops(data: bytes, origin: Origin) -> Model:
    from kickserve_models.sklearn import load_skops

    return load_skops(data, origin)


def _pickle(data: bytes, origin: Origin) -> Model:
    from kickserve_models.sklearn import load_pickle

    return load_pickle(data, origin)


def _json(data: bytes, origin: Origin) -> Model:
    header = header_of(data, origin)
    if header.format not in FORMATS:
        raise origin.unusable(f"its format is {header.format!r} instead of {' or '.join(map(repr, FORMATS))}")
    return FORMATS[header.format](data, origin)


FORMATS: Final[Mapping[str, Loader]] = {
    linear.FORMAT: linear.load_linear,
    trees.FORMAT: trees.load_trees,
}
"""Loaders of kickserve's own JSON, by the format that it names."""

LOADERS: Final[Mapping[str, Loader]] = {
    ".json": _json,
    ".onnx": _onnx,
    ".skops": _skops,
    ".pkl": _pickle,
    ".pickle": _pickle,
    ".joblib": _pickle,
}
"""Loaders by the ending of the file."""

_PICKLES: Final = (".pkl", ".pickle", ".joblib")


class ModelFile(NamedTuple):
    """A model as it is read, before it is loaded: so it can go to another process, or another machine.

    Attributes:
        data: the bytes of the file; empty for the model that is packaged.
        ending: what says how to load them.
        origin: where they came from.
    """

    data: bytes
    ending: str
    origin: Origin

    def load(self) -> Model:
        """Load it.

        Raises:
            ModelUnusable: it can't be trusted, or is no model that kickserve knows.
            MissingExtra: its kind needs an extra that is not installed.
        """
        if not self.data:
            return load_default()
        model = LOADERS[self.ending](self.data, self.origin)
        smoke_test(model, self.origin)
        return model


def file_of(settings: Settings) -> ModelFile:
    """Read the model that the settings ask for, and don't load it yet.

    Raises:
        ModelUnusable: it can't be found, read or trusted; the message says what to do.
    """
    if settings.model is not None:
        path, origin = settings.model, Origin(str(settings.model), settings.model.stem)
    elif settings.hf_repo_id is not None:
        from kickserve_models.hub import Repository, download

        path, origin = download(
            Repository(settings.hf_repo_id, settings.hf_revision, settings.hf_token, settings.hf_offline)
        )
    else:
        return ModelFile(b"", "", Origin("the package", "default"))
    return _file(path, origin, allow_pickle=settings.allow_pickle)


def load_model(settings: Settings) -> Model:
    """Load the model that the settings ask for.

    Raises:
        ModelUnusable: it can't be found, read or trusted; the message says what to do.
        MissingExtra: its kind needs an extra that is not installed.
    """
    return file_of(settings).load()


def load_shadow(settings: Settings) -> Model | None:
    """Load the second model that the settings ask for, to be asked as well; None where they ask for none.

    Raises:
        ModelUnusable: as `load_model`.
        MissingExtra: as there.
    """
    name = settings.shadow
    if name is None:
        return None
    if name == "default":
        return load_default()
    scheme, _, place = name.partition(":")
    if scheme != "hf":
        return load_file(Path(name).expanduser(), allow_pickle=settings.allow_pickle)
    repository, _, revision = place.partition("@")
    return load_model(replace(settings, model=None, hf_repo_id=repository, hf_revision=revision or "main"))


def load_file(path: Path, *, allow_pickle: bool = False) -> Model:
    """Load a model from a file.

    Args:
        path: of the file; its ending says what it is.
        allow_pickle: whether it may be a pickle, which runs the code that it holds.

    Raises:
        ModelUnusable: it can't be read or trusted, or is no model that kickserve knows.
        MissingExtra: its kind needs an extra that is not installed.
    """
    return _file(path, Origin(str(path), path.stem), allow_pickle=allow_pickle).load()


def profile_of(model: Model) -> Profile:
    """Return what a model was trained on; for one that does not tell, what the packaged one was."""
    profile = model.profile if isinstance(model, HasProfile) else None
    return profile or _default_profile()


@cache
def _default_profile() -> Profile:
    profile = load_default().profile
    if profile is None:
        raise KickserveError("the packaged model lost its reference profile: install kickserve again")
    return profile


def _file(path: Path, origin: Origin, *, allow_pickle: bool) -> ModelFile:
    # In this order: what is no file is said to be none whatever its ending, and a pickle is not even read.
    _check_file(path, origin)
    ending = path.suffix.lower()
    if ending not in LOADERS:
        raise origin.unusable(f"its ending is {ending!r}, and kickserve knows {', '.join(LOADERS)}")
    if ending in _PICKLES and not allow_pickle:
        raise origin.unusable(
            f"{path.name} is a pickle, which can run any code when it is loaded, and nothing of it was read."
            " If you trust who made it, set KICKSERVE_ALLOW_PICKLE=1; better, save it with skops or as ONNX"
        )
    return ModelFile(_read(path, origin), ending, origin)


def _check_file(path: Path, origin: Origin) -> None:
    if path.is_dir():
        raise origin.unusable("it is a folder: name a file in it")
    if not path.exists():
        raise origin.unusable("there is no such file")
    if not path.is_file():  # reading a pipe or a device may never end
        raise origin.unusable("it is no regular file")


def _read(path: Path, origin: Origin) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise origin.unusable(f"it can't be read: {error.strerror}") from error
    if not data:
        raise origin.unusable("it is empty")
    return data
