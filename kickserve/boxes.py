"""The sub-folders of the journal: each process holds one, and takes up those of the dead.

The journal's folder is shared by the processes of one machine. Each holds a sub-folder, a box, by a lock on
a file in it; the lock goes with the process, and then another process takes the box up:

    folder/
      4711-5f3a9c02/                         process 4711 and a random number
        lock
        01795500000000000000.log             a segment, named by the nanosecond of its beginning
      4711-5f3a9c02-0179….log.damaged        what could not be read: kept for a person to look at
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kickserve.segments import FLAGS, MODE, Segment

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}")


class Box:
    """A sub-folder that this process holds by its lock.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        self._newest = 0

    @classmethod
    def make(cls, folder: Path) -> Box:
        """Make and hold a new one.

        Raises:
            OSError: the folder can't be written to, or its disk knows no locks.
        """
        while True:
            path = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
            path.mkdir()
            if (box := cls.take(path)) is not None:
                return box
            # Another process took it for a leftover before it was locked, and is about to remove it.

    @classmethod
    def take(cls, path: Path) -> Box | None:
        """Hold one that a process left, or return None where a process holds it or it is gone.

        Raises:
            OSError: the lock can't be opened or the disk knows none.
        """
        lock = _lock(path / "lock")
        return None if lock is None else cls(path, lock)

    def stands(self) -> bool:
        """Say whether it is still there: a person may have removed it."""
        return self._lock is not None and _is_at(self._lock, self.path / "lock")

    def segments(self) -> list[Segment]:
        """Return the segments that are in it, oldest first."""
        return [Segment.left_in(self, file) for file in files_in(self.path) if file.is_file()]

    def new_segment(self) -> Segment:
        """Begin a segment.

        Raises:
            OSError: the disk is full, or the like.
        """
        self._newest = max(time.time_ns(), self._newest + 1)
        segment = Segment(self, self.path / f"{self._newest:020}.log", 0)
        segment.descriptor = os.open(segment.path, FLAGS | os.O_EXCL, MODE)
        return segment

    def release(self, *, remove: bool) -> None:
        """Unlock it; remove it before that if asked to, and nothing but the lock is in it."""
        if self._lock is None:
            return
        if remove:
            # The lock's file goes while it is held: whoever opened it meanwhile sees that it is gone.
            with suppress(OSError):
                (self.path / "lock").unlink()
        # The number may be another file's at once: never close it twice.
        lock, self._lock = self._lock, None
        os.close(lock)
        if remove:
            with suppress(OSError):
                self.path.rmdir()


def claim(path: Path) -> list[Segment]:
    """Return what a dead process left in a box, and hold that; remove it where nothing undrained is in it.

    Returns:
        Its undrained segments, oldest first; none where its process lives.

    Raises:
        OSError: it can't be locked or read.
    """
    box = Box.take(path)
    if box is None:
        return []
    filled: list[Segment] = []
    try:
        for segment in box.segments():
            if segment.left:
                filled.append(segment)
            else:
                segment.remove()
    except OSError:
        box.release(remove=False)  # to be tried again
        raise
    if not filled:
        box.release(remove=True)
    return filled


def files_in(path: Path) -> list[Path]:
    """Return the files of the segments in a box, oldest first; none where it is gone, or goes meanwhile."""
    with suppress(FileNotFoundError):
        return sorted(path.glob("*.log"))
    return []


def boxes(folder: Path) -> list[Path]:
    """Return the sub-folders of all processes; none where the folder is not there."""
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if _NAME.fullmatch(each.name)]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, FLAGS, MODE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Not lockf: that lock is lost when any descriptor of the file is closed, and two journals in one
        # process would not see each other's.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    # Who held it before may have removed the file and the folder: then this is a lock on nothing.
    if _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
