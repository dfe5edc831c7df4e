"""Takes a model's file from the Hugging Face hub, or from its cache on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast

from huggingface_hub import HfApi, constants, hf_hub_download
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
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented there

from kickserve.errors import ModelUnusable, first_line
from kickserve.model import Origin
from kickserve.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kickserve.settings import Settings

JSON: Final = "kickserve.json"
_NOT_HERE: Final = (
    "{0} at {1} is not in this machine's cache, and the hub can't be reached ({2}): connect once, unset"
    " HF_HUB_OFFLINE, or name a file with KICKSERVE_MODEL"
)
# The order matters: some of these are kinds of others.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (GatedRepoError, "{0} asks for consent: accept its terms on the hub, and set HF_TOKEN"),
    (RepositoryNotFoundError, "the hub has no {0}, or it is private: check HF_REPO_ID, or set HF_TOKEN"),
    (RevisionNotFoundError, "{0} has no revision {1}: check HF_REVISION"),
    (LocalEntryNotFoundError, _NOT_HERE),
    (OfflineModeIsEnabled, _NOT_HERE),
    (EntryNotFoundError, "{0} at {1} has just lost the file that it listed: try again"),
    (HFValidationError, "HF_REPO_ID={0} is no name of a repository: it must read owner/name"),
    (Exception, "the hub did not hand out {0}: {2}"),
)
_FOR_GOOD: Final = (RepositoryNotFoundError, RevisionNotFoundError)  # what the cache is no answer to
_UNKNOWN: Final = ". Check HF_TOKEN: the hub does not know it"
_UNAUTHORIZED: Final = 401
_SERVER: Final = 500  # the least HTTP status that says that the hub itself is at fault
_log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """A file from the hub, in the cache: where it is, and where it came from."""

    file: Path
    origin: Origin


class _Listing(NamedTuple):
    files: list[str]
    folder: Path | None  # of the cache, where the hub was not asked


def take(settings: Settings, kinds: Sequence[Sequence[str]]) -> Taken:
    """Take the model's file from a repository, downloading it where the cache has not got it.

    A name of a file that is known goes before others: `model.onnx` before `kicks.onnx`.

    Args:
        settings: `HF_REPO_ID`, `HF_REVISION`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
        kinds: endings of files, the kind that is best to have first; of JSON only `kickserve.json` counts.

    Raises:
        ModelUnusable: no network and not in the cache, no such repository or revision, no known file in it.
    """
    repository = settings.hf_repo_id or ""
    try:
        validate_repo_id(repository)
        listing = _listing(repository, settings)
        name = _choose(listing.files, kinds, repository)
        file = _fetch(repository, name, settings) if listing.folder is None else listing.folder / name
    except ModelUnusable:
        raise
    except Exception as error:  # the hub's library passes on those of its HTTP client, whichever that is
        raise _unusable(repository, settings, error) from error
    commit = _commit(file)
    return Taken(file, Origin(f"hf:{repository}@{commit}", repository, commit))


def _unusable(repository: str, settings: Settings, error: Exception) -> ModelUnusable:
    text = next(text for kind, text in _REASONS if isinstance(error, kind))
    if isinstance(error, HfHubHTTPError) and text is _REASONS[-1][1]:
        text += _UNKNOWN if error.response.status_code == _UNAUTHORIZED else ""
    return ModelUnusable(text.format(repository, settings.hf_revision, first_line(error)))


def _listing(repository: str, settings: Settings) -> _Listing:
    """List the files of the repository: as the hub says, or as the cache has it where that can't be asked."""
    reason = "HF_HUB_OFFLINE is set"
    if not settings.hf_offline:
        try:
            return _ask_hub(repository, settings)
        except _FOR_GOOD:
            raise
        except Exception as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < _SERVER:
                raise
            reason = first_line(error)
    folder = _cached(repository, settings.hf_revision)
    if folder is None:
        raise LocalEntryNotFoundError(reason)
    if not settings.hf_offline:
        _log.warning("the hub can't be reached (%s): %s is taken from the cache", reason, repository)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _Listing(files, folder)


def _ask_hub(repository: str, settings: Settings) -> _Listing:
    info = HfApi().model_info(
        repository,
        revision=settings.hf_revision,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        token=settings.hf_token,
    )
    return _Listing([each.rfilename for each in info.siblings or []], None)


def _cached(repository: str, revision: str) -> Path | None:
    """Return the cache's folder with the files of a revision: branches and tags stand in `refs`."""
    home = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    reference = home / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = home / "snapshots" / commit
    return folder if folder.is_dir() else None


def _choose(files: Sequence[str], kinds: Sequence[Sequence[str]], repository: str) -> str:
    for endings in kinds:
        found = [each for each in files if each.endswith(tuple(endings))]
        if ".json" in endings:
            found = [each for each in found if each == JSON]
        found = [each for each in found if each in {f"model{end}" for end in endings}] or found
        if len(found) > 1:
            shown = ", ".join(sorted(found))
            raise ModelUnusable(f"{repository} holds {shown}: download one, and name it with KICKSERVE_MODEL")
        if found:
            return found[0]
    known = ", ".join([JSON, *(f"*{end}" for endings in kinds for end in endings if end != ".json")])
    held = ", ".join(sorted(files)[:10]) or "nothing"
    raise ModelUnusable(f"{repository} holds no model that kickserve can load ({known}), but {held}")


def _fetch(repository: str, name: str, settings: Settings) -> Path:
    # By the revision's own name: so the cache learns what it stands for, and can answer when offline.
    file = hf_hub_download(
        repository,
        name,
        revision=settings.hf_revision,
        token=settings.hf_token,
        tqdm_class=cast("Any", _Bar),
    )
    return Path(file)


def _commit(file: Path) -> str:
    """Return the commit that a file of the cache belongs to: its folder is named after it."""
    parts = file.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


class _Bar:
    """The progress of a download, for the hub's library: what it uses of tqdm, drawn by rich."""

    def __init__(self, *, desc: str = "", total: float | None = None, initial: float = 0, **_: Any) -> None:
        self.n, self.total = initial, total
        self._bar = progress(in_bytes=True)
        self._task = self._bar.add_task(desc, total=total, completed=int(initial))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, n: float | None = 1) -> None:
        """Go on by n bytes."""
        self.n += n or 0
        self._bar.update(self._task, completed=self.n, total=self.total)

    def close(self) -> None:
        """End it."""
        self._bar.stop()

    def refresh(self) -> None:
        """Draw nothing: rich does, by itself."""

    def set_postfix_str(self, *_: Any, **__: Any) -> None:
        """Write nothing behind the bar: rich knows the rate."""
