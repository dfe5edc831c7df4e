"""Takes a model from the Hugging Face hub, or from its cache on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from kickserve.errors import ModelUnusable
from kickserve.models.loading import load_json

if TYPE_CHECKING:
    from kickserve.model import Model

FILE: Final = "kickserve.json"
_NOT_HERE: Final = (
    "{0} is not in this machine's cache, and the hub can't be reached: connect once, unset HF_HUB_OFFLINE,"
    " or name a file with KICKSERVE_MODEL"
)
# The order matters: some of these are kinds of others.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (GatedRepoError, "{0} asks for consent: accept its terms on the hub, and set HF_TOKEN"),
    (RepositoryNotFoundError, "the hub has no {0}, or it is private: check HF_REPO_ID, or set HF_TOKEN"),
    (RevisionNotFoundError, "{0} has no revision {1}: check HF_REVISION"),
    (LocalEntryNotFoundError, _NOT_HERE),
    (OfflineModeIsEnabled, _NOT_HERE),
    (EntryNotFoundError, f"{{0}} holds no {FILE}, which is what kickserve can load from the hub"),
    (HFValidationError, "HF_REPO_ID={0} is no name of a repository: it must read owner/name"),
    (HfHubHTTPError, "the hub did not hand out {0}: {2}"),
    (OSError, "the hub did not hand out {0}: {2}"),
)
_KNOWN: Final = tuple(kind for kind, _ in _REASONS)


def load_from_hub(repository: str, revision: str) -> Model:
    """Load a kickserve model from a repository of the hub.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit.

    Raises:
        ModelUnusable: no network and not in the cache, no such repository or revision, no known file in it.
    """
    try:
        file = Path(hf_hub_download(repository, FILE, revision=revision))
        data = file.read_bytes()
    except _KNOWN as error:
        raise ModelUnusable(_reason(repository, revision, error)) from error
    # The cache keeps a file under the commit that it was taken from.
    return load_json(data, f"hf:{repository}@{file.parent.name}")


def _reason(repository: str, revision: str, error: Exception) -> str:
    text = next(text for kind, text in _REASONS if isinstance(error, kind))
    return text.format(repository, revision, str(error).partition("\n")[0])
