"""A SQLite file: its path, its place and mode, the WAL beside it, and SQLite's errors in our words."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from kickserve.plugins import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable

Inode: TypeAlias = tuple[int, int]  # with the device
_MODE: Final = 0o660  # as the journal's, before the umask
# The attribute of a WAL with the inodes of its file and of itself.
_BELONGS: Final = "user.kickserve.database"


def path_of(url: str) -> Path | None:
    """Read the path out of a URL such as `sqlite:///relative.db` or `sqlite:////absolute.db`.

    Returns:
        The absolute path, or None for a database in memory.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """
    try:  # the URL is never shown: it may be one of another database, with a password in it
        parts = urlsplit(url)
    except ValueError:  # its message may hold a password
        raise StoreMisconfigured("DATABASE_URL can't be understood: write sqlite:///file.db") from None
    if parts.netloc:
        raise StoreMisconfigured(
            "DATABASE_URL needs three slashes before a relative path (sqlite:///kickserve.db),"
            " and four before an absolute one"
        )
    if parts.query or parts.fragment:
        raise StoreMisconfigured(
            "DATABASE_URL: a SQLite URL takes no parameters. Take out what follows '?' or '#', or write these"
            " as %3F and %23 in a file's name"
        )
    name = unquote(parts.path).removeprefix("/")
    return None if name in ("", ":memory:") else Path(name).absolute()


def check_place(path: Path) -> None:
    """Raise StoreMisconfigured for a place where no file can be; SQLite's own error names no reason."""
    if not path.parent.is_dir():
        raise StoreMisconfigured(
            f"the folder {path.parent} for {path.name} does not exist: make the folder, or point"
            " DATABASE_URL elsewhere"
        )
    if path.is_dir():
        raise StoreMisconfigured(f"{path} is a folder: point DATABASE_URL to a file in it")


def create(path: Path) -> None:
    """Make an empty file where none is, which the group may read; SQLite gives its WAL the same mode."""
    with suppress(OSError):  # SQLite says what is wrong
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))


def is_writable(path: Path) -> bool:
    """Return whether this user may write a file and make a WAL beside it, or make the file."""
    return not path.exists() or (os.access(path.parent, os.W_OK) and os.access(path, os.W_OK))


def read_only_uri(path: Path) -> str:
    """Return where to open a file that is only read.

    Where no service has it open there is no WAL, and none could be made: then the file does not change.
    """
    return f"{path.absolute().as_uri()}?mode=ro{'' if Path(f'{path}-wal').exists() else '&immutable=1'}"


def inode_of(path: Path | str) -> Inode | None:
    """Return device and inode of a file; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def mark_wal(path: Path) -> tuple[Inode | None, Inode | None]:
    """Note on the WAL to which file it belongs, where the file system can; return both inodes."""
    inodes = inode_of(path), inode_of(f"{path}-wal")
    with suppress(OSError, AttributeError):
        os.setxattr(f"{path}-wal", _BELONGS, str(inodes).encode())
    return inodes


def is_stale(path: Path) -> bool:
    """Return whether a process that died left the WAL, and the file alone has been replaced since."""
    wal = f"{path}-wal"
    with suppress(OSError, AttributeError):
        noted = os.getxattr(wal, _BELONGS).decode()
        return noted.endswith(f", {inode_of(wal)})") and noted != str((inode_of(path), inode_of(wal)))
    return False


_PASSING: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: the write is retried",
    sqlite3.SQLITE_LOCKED: "is locked by another process: the write is retried",
    sqlite3.SQLITE_FULL: "can't grow, its disk is full: make room",
    sqlite3.SQLITE_IOERR: "can't be read or written: check the disk and the system's log",
    sqlite3.SQLITE_NOMEM: "is out of memory",
    sqlite3.SQLITE_ERROR: "failed: if its table is gone, restart the service",
}
_LASTING: Final = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database: point DATABASE_URL to another file",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or rescue it with sqlite3's .recover",
    sqlite3.SQLITE_READONLY: "may not be written: give the service's user write access to it and its folder",
    sqlite3.SQLITE_PERM: "may not be used: give the service's user access to it and its folder",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: give the service's user access to it and its folder",
}
_UNFIT: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})


def primary_code(error: Exception) -> int:
    """Return the code of an error of SQLite, such as `sqlite3.SQLITE_BUSY`, without its extension."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def explained(error: Exception, label: str) -> StoreError:
    """Turn what SQLite says into what may pass by itself, what will not, or a record that doesn't fit."""
    code = primary_code(error)
    if code in _UNFIT:
        return RecordUnfit(f"{label} can't hold this record: {error}")
    if code in _LASTING:
        return StoreMisconfigured(f"{label} {_LASTING[code]} ({error})")
    return StoreUnavailable(f"{label} {_PASSING.get(code, 'failed')} ({error})")
