"""Locations of files: a path of this machine, or a URL of any store that fsspec knows, such as s3://."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from kickserve.errors import KickserveError, MissingExtra, first_line
from kickserve.wholefile import atomic_write, sync
from kickserve_data import DataError
from kickserve_data.parquet import open_parquet, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

GLOB: Final = frozenset("*?[")
"""Characters that make a pattern of a name."""

_STAMPS: Final = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated")
_HIDDEN: Final = ("_", ".")  # names that begin so are no data, as other readers of Parquet have it too


class File(Struct, frozen=True):
    """A file of kicks.

    Attributes:
        url: where the file is.
        name: its path below the folder that was asked for.
        size: bytes.
        stamp: changes when the file is written anew: the store's ETag, or the time of the last write.
        groups: rows in each row group of Parquet; empty for a file that was not opened yet.
        others: names and types of the columns beside the features and the outcome.
    """

    url: str
    name: str
    size: int
    stamp: str
    groups: list[int] = []
    others: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class Location:
    """A file, a folder or an object.

    Attributes:
        url: as people write it.
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
        """The absolute path, or the URL: good for processes in other folders too."""
        return self.path if self.local else str(self.fs.unstrip_protocol(self.path))

    def child(self, name: str) -> Location:
        """Return the location below this folder under a name."""
        return Location(f"{self.url.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")

    def read(self) -> bytes | None:
        """Return its content; None for a file that does not exist."""
        with reached(self.url), suppress(FileNotFoundError):
            content: bytes = self.fs.cat_file(self.path)
            return content
        return None

    def write(self, content: bytes) -> None:
        """Write all of it, or nothing: a reader never finds a half."""
        with self.filled() as path, reached(self.url), atomic_write(path, durable=True) as part:
            part.write_bytes(content)

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """Give a path to write a file to; at the end the whole file is here."""
        name = self.path.rpartition("/")[2]
        if self.local:
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
            sync(path.parent)
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, name)
            with reached(self.url):
                self.fs.put_file(str(Path(folder, name)), self.path)

    def names(self) -> list[str]:
        """Return the names of the files directly in this folder; none without a folder."""
        with reached(self.url):
            self.fs.invalidate_cache(self.path)
            try:
                entries = self.fs.ls(self.path, detail=True)
            except FileNotFoundError:
                return []
        return [each["name"].rpartition("/")[2] for each in entries if each["type"] == "file"]

    def remove(self) -> None:
        """Remove a file, or a folder with all in it; it need not exist."""
        with reached(self.url):
            if self.fs.exists(self.path):
                self.fs.rm(self.path, recursive=True)

    def open_parquet(self) -> Any:
        """Open a Parquet file as a `pyarrow.parquet.ParquetFile`.

        Raises:
            DataError: the file can't be read.
            MissingExtra: pyarrow is not installed.
        """
        if self.local:
            return open_parquet(Path(self.path))
        with reached(self.url):
            return parquet().ParquetFile(self.fs.open(self.path, "rb"), pre_buffer=True)


def is_many(text: str) -> bool:
    """Say whether a text means more than a file of this machine: a folder, a pattern, or a URL."""
    path = Path(text)
    return "://" in text or path.is_dir() or (not path.exists() and not GLOB.isdisjoint(text))


def locate(url: str) -> Location:
    """Return the location that a path or URL means.

    Raises:
        MissingExtra: the package for such URLs is not installed.
        DataError: no file system takes such URLs.
    """
    from fsspec.core import url_to_fs

    try:
        return Location(url, *url_to_fs(url))
    except ImportError as error:
        if url.startswith("s3://"):
            raise MissingExtra("s3://", "s3", ["s3fs"]) from error
        raise DataError(f"{url} can't be read: {error}") from error
    except ValueError as error:
        raise DataError(f"{url} can't be used: {error}") from error


def find_files(place: Location) -> tuple[list[File], bool]:
    """Find the Parquet files that a path, a folder, a pattern or a URL means, in the order of their names.

    Returns:
        The files, and whether one single file was asked for.

    Raises:
        DataError: there are none, or the location can't be reached.
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
    found = [_found(place, each, base.rstrip("/")) for each in entries.values() if each["type"] == "file"]
    found = [each for each in found if each.name.endswith(".parquet") and not _hidden(each.name)]
    if not found:
        raise DataError(
            f"{place.url} holds no Parquet files: name a file, a folder of *.parquet, or a pattern"
        )
    return sorted(found, key=lambda each: each.url), False


@contextmanager
def reached(url: str) -> Iterator[None]:
    """Turn any error of a file system into a `DataError` that names the location."""
    try:
        yield
    except KickserveError:
        raise
    except Exception as error:  # each file system of fsspec has errors of its own
        raise DataError(f"{url} can't be used: {first_line(error)}") from error


def _found(place: Location, info: dict[str, Any], base: str) -> File:
    path = info["name"]
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name) is not None), "")
    url = Location("", place.fs, path).address
    return File(url, path.removeprefix(base).lstrip("/"), info["size"], stamp.strip('"'))


def _hidden(name: str) -> bool:
    return any(step.startswith(_HIDDEN) for step in name.split("/"))
