"""Loads the model that the settings ask for: a file, one from the hub, or the one that is packaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve.errors import ModelUnusable
from kickserve.models import trees
from kickserve.models.documents import header_of
from kickserve.models.linear import load_default, load_linear

if TYPE_CHECKING:
    from pathlib import Path

    from kickserve.model import Model
    from kickserve.settings import Settings


def load_model(settings: Settings) -> Model:
    """Load a model.

    Raises:
        ModelUnusable: it can't be found, read or trusted; the message says what to do.
    """
    if settings.model is not None:
        return load_file(settings.model)
    if settings.hf_repo_id is not None:
        from kickserve.models.hub import load_from_hub

        return load_from_hub(settings.hf_repo_id, settings.hf_revision)
    return load_default()


def load_file(path: Path) -> Model:
    """Load a model from a file.

    Raises:
        ModelUnusable: it can't be read, or is no model that kickserve knows.
    """
    if path.suffix != ".json":
        raise ModelUnusable(
            f"{path} is no kickserve model: it must be a .json file as `kickserve train` makes it"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"the model {path} can't be read: {error.strerror}") from error
    return load_json(data, str(path))


def load_json(data: bytes, source: str) -> Model:
    """Make a model of the bytes of a kickserve JSON file, of whichever format it is.

    Raises:
        ModelUnusable: it can't be read or used; the message says what is wrong where.
    """
    if header_of(data, source).format == trees.FORMAT:
        return trees.load_trees(data, source)
    return load_linear(data, source)
