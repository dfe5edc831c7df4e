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
from kickserve.models.linear import load_linear

if TYPE_CHECKING:
    from kickserve.models.linear import LinearModel

FILE: Final = "kickserve.json"


def load_from_hub(repository: str, revision: str) -> LinearModel:
    """Load a kickserve model from a repository of the hub.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit.

    Raises:
        ModelUnusable: no network and not in the cache, no such repository or revision, no known file in it.
    """
    try:
        file = Path(hf_hub_download(repository, FILE, revision=revision))
    except Exception as error:
        raise ModelUnusable(_reason(repository, revision, error)) from error
    # The cache keeps a file under the commit that it was taken from.
    return load_linear(file.read_bytes(), f"hf:{repository}@{file.parent.name}")


def _reason(repository: str, revision: str, error: Exception) -> str:
    """Say what is wrong and what to do. The order matters: some of these are kinds of others."""
    match error:
        case GatedRepoError():
            return f"{repository} asks for consent: accept its terms on the hub, and set HF_TOKEN"
        case RepositoryNotFoundError():
            return (
                f"the hub has no repository {repository}, or it is private: check HF_REPO_ID, or set HF_TOKEN"
            )
        case RevisionNotFoundError():
            return f"{repository} has no revision {revision}: check HF_REVISION"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            return (
                f"{repository} is not in this machine's cache, and the hub can't be reached:"
                " connect once, or unset HF_HUB_OFFLINE, or name a file with KICKSERVE_MODEL"
            )
        case EntryNotFoundError():
            return f"{repository} holds no {FILE}, which is what kickserve can load from the hub"
        case HFValidationError():
            return f"HF_REPO_ID={repository!r} is no name of a repository: it must read owner/name"
        case HfHubHTTPError() | OSError():
            return f"the hub did not hand out {repository}: {str(error).splitlines()[0]}"
        case _:
            raise error
