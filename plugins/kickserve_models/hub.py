"""Downloads a model's file from the Hugging Face hub, or finds it in the cache on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
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
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented there

from kickserve.errors import first_line
from kickserve.plugins import ModelUnusable, Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON: Final = "kickserve.json"
# The first kind that a repository holds is taken.
_KINDS: Final = ((".json",), (".onnx",), (".skops",), (".pkl", ".pickle", ".joblib"))
_NOT_CACHED: Final = (
    "{0} at {1} is not in this machine's cache, and the hub can't be reached ({2}): connect once, unset"
    " HF_HUB_OFFLINE, or name a file with KICKSERVE_MODEL"
)
_OTHER: Final = "the hub refused {0}: {2}"
# The order matters: some of these are kinds of others.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (GatedRepoError, "{0} asks for consent: accept its terms on the hub, and set HF_TOKEN"),
    (RepositoryNotFoundError, "the hub has no {0}, or it is private: check HF_REPO_ID, or set HF_TOKEN"),
    (RevisionNotFoundError, "{0} has no revision {1}: check HF_REVISION"),
    (LocalEntryNotFoundError, _NOT_CACHED),
    (OfflineModeIsEnabled, _NOT_CACHED),
    (EntryNotFoundError, "{0} at {1} has just lost the file that it listed: try again"),
    (HFValidationError, "HF_REPO_ID={0} is no name of a repository: it must read owner/name"),
    (Exception, _OTHER),
)
_FINAL: Final = (RepositoryNotFoundError, RevisionNotFoundError)  # final also where the cache has files
_UNAUTHORIZED: Final = 401
_SERVER: Final = 500  # the least HTTP status of a fault of the hub itself
_log = logging.getLogger(__name__)


class Repository(NamedTuple):
    """A repository of the hub, and the way to ask for it.

    Attributes:
        name: `owner/name`.
        revision: branch, tag or commit.
        token: for one that is private or gated.
        offline: whether to use this machine's cache alone.
    """

    name: str
    revision: str = "main"
    token: str | None = None
    offline: bool = False


class _Listing(NamedTuple):
    files: list[str]
    folder: Path | None  # of the cache, where the hub was not asked


def download(repository: Repository) -> tuple[Path, Origin]:
    """Return the model's file of a repository, in the cache, and its origin.

    The first kind of file that the repository holds is taken: JSON (only `kickserve.json`), ONNX, skops,
    pickle; and of one kind `model.onnx` before `kicks.onnx`.

    Raises:
        ModelUnusable: no network and not in the cache, no such repository or revision, no known file in it.
    """
    try:
        validate_repo_id(repository.name)
        file = _find(repository)
    except ModelUnusable:
        raise
    except Exception as error:  # the hub's library passes on those of its HTTP client, whichever that is
        raise _unusable(repository, error) from error
    commit = _commit(file)
    return file, Origin(f"hf:{repository.name}@{commit}", repository.name, commit)


def _find(repository: Repository) -> Path:
    listing = _list_files(repository)
    name = _choose(listing.files, repository.name)
    if listing.folder is not None:
        return listing.folder / name
    try:
        file = _download(repository, name)
        data = file.read_bytes() if file.suffix == ".onnx" else b""
        for other in listing.files:  # of weights that it keeps in other files
            if other != name and Path(other).name.encode() in data:
                _download(repository, other)
    except OSError as error:
        # A cache that can't be written may hold an earlier revision. Errors of the hub are of this kind too.
        if isinstance(error, HfHubHTTPError) or (folder := _cached(repository)) is None:
            raise
        _log.warning("the cache can't be written (%s): %s is taken as it is there", error, repository.name)
        return folder / _choose(_files_in(folder), repository.name)
    return file


def _cached(repository: Repository) -> Path | None:
    """Return the cache's folder with the files of a revision."""
    try:
        return Path(snapshot_download(repository.name, revision=repository.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _unusable(repository: Repository, error: Exception) -> ModelUnusable:
    text = next(text for kind, text in _REASONS if isinstance(error, kind))
    if text is _OTHER and isinstance(error, HfHubHTTPError) and error.response.status_code == _UNAUTHORIZED:
        text += ". Check HF_TOKEN: the hub does not accept the token"
    return ModelUnusable(text.format(repository.name, repository.revision, first_line(error)))


def _list_files(repository: Repository) -> _Listing:
    """List the files of the repository at the hub, or in the cache where the hub can't be asked."""
    reason = "HF_HUB_OFFLINE is set"
    if not repository.offline:
        try:
            return _Listing(_ask_hub(repository), None)
        except _FINAL:
            raise
        except Exception as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < _SERVER:
                raise
            reason = first_line(error)
    folder = _cached(repository)
    if folder is None:
        raise LocalEntryNotFoundError(reason)
    if not repository.offline:
        _log.warning("the hub can't be reached (%s): %s is taken from the cache", reason, repository.name)
    return _Listing(_files_in(folder), folder)


def _ask_hub(repository: Repository) -> list[str]:
    info = HfApi(token=repository.token).model_info(
        repository.name, revision=repository.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    return [each.rfilename for each in info.siblings or []]


def _choose(files: Sequence[str], repository: str) -> str:
    for endings in _KINDS:
        found = [each for each in files if each.endswith(endings) and (endings != (".json",) or each == JSON)]
        found = [each for each in found if each in {f"model{end}" for end in endings}] or found
        if len(found) > 1:
            shown = ", ".join(sorted(found))
            raise ModelUnusable(f"{repository} holds {shown}: download one, and name it with KICKSERVE_MODEL")
        if found:
            return found[0]
    known = ", ".join([JSON, *(f"*{end}" for endings in _KINDS[1:] for end in endings)])
    held = ", ".join(sorted(files)[:10]) or "nothing"
    raise ModelUnusable(f"{repository} holds no model that kickserve can load ({known}), but {held}")


def _download(repository: Repository, name: str) -> Path:
    # By the revision's own name: so the cache learns its commit, and can answer when offline.
    return Path(hf_hub_download(repository.name, name, revision=repository.revision, token=repository.token))


def _commit(file: Path) -> str:
    """Return the commit of a file in the cache: its folder is named after it."""
    parts = file.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]
