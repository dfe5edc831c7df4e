"""Files and objects: a path of this machine, or a URL of any store that fsspec knows, such as s3://."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kickserve.errors import DataError, KickserveError, MissingExtra, first_line
from kickserve.wholefile import atomic_write, sync_folder
from kickserve_data.reader import parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GLOB: Final = frozenset("*?[")
"""What makes a pattern of a name."""

_BUFFER: Final = 1 << 20
_AT_ONCE: Final = 500  # small objects that are fetched together
_STAMPS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
_HIDDEN: Final = ("_", ".")  # names that begin so are no data, as other readers of Parquet have it too


class Found(NamedTuple):
    """A file of kicks.

    Attributes:
        url: where it is.
        name: its path below the folder that was asked for.
        size: bytes.
        stamp: what changes when it is written anew: the store's ETag, or when it was last written.
    """

    url: str
    name: str
    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Place:
    """A file, a folder or an object.

    Attributes:
        url: where it is, as people write it.
        fs: the fsspec file system.
        path: the path there.
    """

    url: str
    fs: Any
    path: str

    @property
    def local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)

    @property
    def address(self) -> str:
        """Where it is, also for a process that stands in another folder."""
        return self.path if self.local else str(self.fs.unstrip_protocol(self.path))

    def child(self, name: str) -> Place:
        """Return what is below this folder under a name."""
        return Place(f"{self.url.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")

    def read(self) -> bytes | None:
        """Return its content; None where there is nothing."""
        with reached(self.url):
            try:
                content: bytes = self.fs.cat_file(self.path)
            except FileNotFoundError:
                return None
            return content

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        """Read files of this folder, in groups that are fetched at once."""
        paths = [self.child(name).path for name in names]
        for start in range(0, len(paths), _AT_ONCE):
            with reached(self.url):
                # `cat` would take a name with brackets for a pattern.
                group = self.fs.cat_ranges(paths[start : start + _AT_ONCE], None, None, on_error="raise")
                if failed := [each for each in group if isinstance(each, Exception)]:  # by an older fsspec
                    raise failed[0]
            yield from group

    def write(self, content: bytes) -> None:
        """Write all of it, or nothing: whoever looks never finds a half."""
        with reached(self.url):
            if not self.local:
                self.fs.pipe_file(self.path, content)
                return
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, durable=True) as part:
                part.write_bytes(content)
            sync_folder(path.parent)

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """Give a path to write to; afterwards its content stands here, whole."""
        if self.local:
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
            sync_folder(path.parent)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, self.path.rpartition("/")[2])
            yield path
            with reached(self.url):
                self.fs.put_file(str(path), self.path)

    def sizes(self) -> dict[str, int]:
        """Return the files right in this folder, by name, with their sizes; none where there is no folder."""
        with reached(self.url):
            self.fs.invalidate_cache(self.path)
            try:
                entries = self.fs.ls(self.path, detail=True)
            except FileNotFoundError:
                return {}
            return {
                each["name"].rstrip("/").rpartition("/")[2]: each["size"] or 0
                for each in entries
                if each["type"] == "file"
            }

    def remove(self) -> None:
        """Remove a file, or a folder with all in it; it need not be there."""
        with reached(self.url):
            if self.fs.exists(self.path):
                self.fs.rm(self.path, recursive=True)


def is_many(text: str) -> bool:
    """Say whether somebody asks for more than a file of this machine: a folder, a pattern, or a URL."""
    path = Path(text)
    return "://" in text or path.is_dir() or (not path.exists() and not GLOB.isdisjoint(text))


def place_of(url: str) -> Place:
    """Find what a path or URL means.

    Raises:
        MissingExtra: the package for such URLs is not installed.
        DataError: nobody knows such URLs.
    """
    from fsspec.core import url_to_fs

    try:
        return Place(url, *url_to_fs(url))
    except ImportError as error:
        scheme = url.partition("://")[0]
        if scheme == "s3":
            raise MissingExtra("s3://", "s3", ["s3fs"]) from error
        raise DataError(f"{url} can't be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{url} can't be used: {error}") from error


def files_of(place: Place) -> tuple[list[Found], bool]:
    """Find the Parquet files that a path, a folder, a pattern or a URL means, in the order of their names.

    Returns:
        The files, and whether it means just one.

    Raises:
        DataError: there are none, or the place can't be reached.
    """
    with reached(place.url):
        place.fs.invalidate_cache()
        if not (GLOB.isdisjoint(place.path) or (place.local and Path(place.path).exists())):
            entries = place.fs.glob(place.path, detail=True)
            base = place.path[: min(map(place.path.index, GLOB & {*place.path}))].rpartition("/")[0]
        elif place.fs.isfile(place.path):
            return [_found(place, place.fs.info(place.path), place.path.rpartition("/")[0])], True
        else:
            entries = place.fs.find(place.path, detail=True)
            base = place.path
    base = base.rstrip("/")
    found = [_found(place, each, base) for each in entries.values() if each["type"] == "file"]
    found = sorted(each for each in found if each.name.endswith(".parquet") and not _hidden(each.name))
    if not found:
        raise DataError(
            f"{place.url} holds no Parquet files: name a file, a folder of *.parquet, or a pattern"
        )
    return found, False


def open_parquet(url: str) -> Any:
    """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: it can't be read.
        MissingExtra: pyarrow, or the package for such URLs, is not installed.
    """
    place, module = place_of(url), parquet()
    with reached(url):
        if place.local:
            return module.ParquetFile(place.path, pre_buffer=False, buffer_size=_BUFFER)
        return module.ParquetFile(place.fs.open(place.path, "rb"), pre_buffer=True)


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into a `DataError` that names the place."""
    try:
        yield
    except KickserveError:
        raise
    except Exception as error:  # each file system of fsspec has errors of its own
        raise DataError(f"{url} can't be used: {first_line(error)}") from error


def _found(place: Place, info: dict[str, Any], base: str) -> Found:
    path = info["name"]
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name) is not None), "")
    name = path.removeprefix(base).lstrip("/")
    url = Place("", place.fs, path).address
    return Found(url, name, info["size"], stamp.strip('"'))


def _hidden(name: str) -> bool:
    return any(step.startswith(_HIDDEN) for step in name.split("/"))
