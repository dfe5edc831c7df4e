"""The journal's files: frames, the segments that they stand in, and the locked sub-folders of those.

The journal's folder is shared by the processes of one machine. Each holds a sub-folder, a box, by a lock on
a file in it; the lock goes with the process, and then another process takes the box up:

    folder/
      4711-5f3a9c02/                         process 4711 and a random number
        lock
        01795500000000000000.log             a segment, named by the nanosecond of its beginning
      4711-5f3a9c02-0179….log.damaged        what could not be read: kept for a person to look at

A segment is `MAGIC`, then frames: u32 length, u32 CRC-32 of the payload, payload; little endian.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _flock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _flock(descriptor: int) -> None:
        # Not lockf: that lock is lost when any descriptor of the file is closed, and two journals in one
        # process would not see each other's.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


MAGIC: Final = b"kickjrn\x01"  # the last byte is the version of the format
HEADER: Final = struct.Struct("<II")
_CHUNK: Final = 256 * 1024  # bytes read at a time
_SEARCH: Final = 64 * 1024  # bytes after an unreadable frame in which another one is looked for
_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}")
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_MODE: Final = 0o660
_sync: Final = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync


def encode(payloads: Sequence[bytes]) -> bytes:
    """Return the frames of payloads.

    Raises:
        ValueError: a payload is empty: a file's end that a dead machine left as zeros would look like it.
    """
    if not all(payloads):
        raise ValueError("a payload of the journal is empty: each must have a byte at least")
    return b"".join([HEADER.pack(len(payload), crc32(payload)) + payload for payload in payloads])


def decode(data: bytes) -> tuple[list[bytes], int]:
    """Return the payloads of all whole frames at the beginning, and how many bytes those frames take."""
    payloads = []
    at = 0
    while at + HEADER.size <= len(data):
        length, checksum = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length
        payload = data[at + HEADER.size : end]
        if not length or end > len(data) or crc32(payload) != checksum:
            break
        payloads.append(payload)
        at = end
    return payloads, at


def read(path: Path, start: int, end: int) -> Generator[bytes, None, None]:
    """Yield the payloads of a segment, up to the first frame that is not whole.

    Args:
        path: the segment's file.
        start: offset of the first frame to read, at least `len(MAGIC)`.
        end: offset not to read beyond.

    Raises:
        OSError: the file is gone or can't be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        file.seek(start)
        rest = b""
        while chunk := file.read(min(_CHUNK, max(end - file.tell(), 0))):
            rest += chunk
            payloads, length = decode(rest)
            yield from payloads
            rest = rest[length:]


def is_torn(path: Path, start: int) -> bool:
    """Say whether what follows `start` is a write that its process did not live to finish.

    It is not where another whole frame stands behind it: then something has damaged the file since.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        return not data.strip(b"\0")
    rest = data[start:]
    return not any(_is_frame(rest, at) for at in range(1, min(len(rest), _SEARCH) - HEADER.size))


def _is_frame(data: bytes, at: int) -> bool:
    length, checksum = HEADER.unpack_from(data, at)
    begin = at + HEADER.size
    fits = 0 < length <= min(_SEARCH, len(data) - begin)
    return bool(fits and crc32(data[begin : begin + length]) == checksum)


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
        files = [each for each in sorted(self.path.glob("*.log")) if each.is_file()]
        return [Segment(self, file, file.stat().st_size) for file in files]

    def new_segment(self) -> Segment:
        """Begin a segment.

        Raises:
            OSError: the disk is full, or the like.
        """
        self._newest = max(time.time_ns(), self._newest + 1)
        segment = Segment(self, self.path / f"{self._newest:020}.log", 0)
        segment.descriptor = os.open(segment.path, _FLAGS | os.O_EXCL, _MODE)
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


class Segment:
    """One file of frames.

    Attributes:
        box: the sub-folder that it is in.
        path: its file.
        start: offset of the first frame that has not drained.
        end: offset behind the last frame that is known to be whole, or of the file's end where another
            process wrote it.
        descriptor: open for writing, or None.
    """

    __slots__ = ("box", "descriptor", "end", "path", "start")

    def __init__(self, box: Box, path: Path, end: int) -> None:
        self.box = box
        self.path = path
        self.start = len(MAGIC)
        self.end = end
        self.descriptor: int | None = None

    @property
    def left(self) -> int:
        """Bytes that have not drained."""
        return max(self.end - self.start, 0)

    def write(self, frames: bytes) -> None:
        """Write frames behind the end, all or none; `end` is for the caller to move.

        Raises:
            OSError: the disk does not take them. The file is as it was before.
        """
        if self.descriptor is None:
            raise ValueError(f"{self.path} is not open for writing")
        data = frames if self.end else MAGIC + frames
        try:
            written = os.write(self.descriptor, data)
            while written < len(data):  # a disk about to be full takes a part, and says why at the next try
                written += os.write(self.descriptor, data[written:])
        except OSError:
            self._take_back()
            raise

    def write_and_sync(self, frames: bytes) -> None:
        """Write frames, and wait until the medium has them; raises as `write` does."""
        self.write(frames)
        if self.descriptor is None:
            return
        try:
            _sync(self.descriptor)
            if not self.end:
                sync_folder(self.path.parent)
        except OSError:
            self._take_back()
            raise

    def _take_back(self) -> None:
        if self.descriptor is None:
            return
        os.lseek(self.descriptor, self.end, os.SEEK_SET)
        # Where even this fails, the next write goes over what was left, and readers stop at `end`.
        with suppress(OSError):
            os.ftruncate(self.descriptor, self.end)

    def close(self) -> None:
        """Let go of the file; no more is written to it."""
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            os.close(descriptor)

    def remove(self) -> None:
        """Delete the file. Where that fails it drains once more some day, which changes nothing."""
        with suppress(OSError):
            self.path.unlink()

    def set_aside(self) -> Path:
        """Rename the file so that nothing reads it any more but a person; return its new path.

        Raises:
            OSError: it can't be renamed.
        """
        new = self.path.parent.parent / f"{self.box.path.name}-{self.path.name}.damaged"
        return self.path.replace(new)


def boxes(folder: Path) -> list[Path]:
    """Return the sub-folders of all processes; none where the folder is not there."""
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if _NAME.fullmatch(each.name)]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def sync_folder(path: Path) -> None:
    """Wait until the medium has the names in a folder; where folders can't be opened (Windows), don't."""
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, _FLAGS, _MODE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        _flock(descriptor)
    except (BlockingIOError, PermissionError):  # the second is what Windows calls it
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
