"""The files of the journal: a folder for each process, held by a lock, with segments of frames in it.

    journal/
      4711-5f3a9c02/                         process 4711 and a random number
        lock                                 locked by the process; the lock ends with the process
        01795500000000000000.log             a segment, named after the nanosecond of its beginning
      4711-5f3a9c02-0179….log.damaged        a segment that can't be read to its end, kept for a person

A segment is `MAGIC`; u64, the offset up to which it has drained (0 at first); then frames: u32 length, u32
CRC-32 of the payload, payload. All little endian.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import struct
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from zlib import crc32

from kickserve.wholefile import sync

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

MAGIC: Final = b"kickjrn\x01"  # the last byte is the version of the format
_DRAINED: Final = struct.Struct("<Q")
PREAMBLE: Final = MAGIC + _DRAINED.pack(0)
HEADER: Final = struct.Struct("<II")
_CHUNK: Final = 256 * 1024  # bytes read at a time
_FLAGS: Final = os.O_RDWR | os.O_CREAT
_MODE: Final = 0o660
_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}")
_sync_data: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def encode(payloads: Sequence[bytes]) -> bytes:
    """Return the frames of payloads.

    Raises:
        ValueError: a payload is empty: the zeros that a machine's crash leaves would look like its frame.
    """
    frames: list[bytes] = []
    for payload in payloads:
        if not payload:
            raise ValueError("a payload of the journal is empty: each must have a byte at least")
        frames += HEADER.pack(len(payload), crc32(payload)), payload
    return b"".join(frames)


def decode(data: bytes) -> tuple[list[bytes], int]:
    """Return the payloads of all whole frames at the beginning, and the bytes that those frames take."""
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
        start: offset of the first frame to read, or 0 for the first that has not drained by the file.
        end: offset not to read beyond.

    Raises:
        OSError: the file is gone or can't be read.
    """
    with path.open("rb") as file:
        preamble = file.read(len(PREAMBLE))
        if not preamble.startswith(MAGIC):
            return
        file.seek(start or _drained(preamble, os.fstat(file.fileno()).st_size))
        rest = b""
        while chunk := file.read(min(_CHUNK, max(end - file.tell(), 0))):
            rest += chunk
            payloads, length = decode(rest)
            yield from payloads
            rest = rest[length:]


def _drained(preamble: bytes, size: int) -> int:
    drained = 0
    if preamble.startswith(MAGIC) and len(preamble) == len(PREAMBLE):
        (drained,) = _DRAINED.unpack_from(preamble, len(MAGIC))
    # An impossible offset is damage: to drain everything once more is better than to lose it.
    return drained if len(PREAMBLE) <= drained <= size else len(PREAMBLE)


class Segment:
    """One file of frames.

    Attributes:
        folder: the folder of the process that it is in.
        path: its file.
        start: offset of the first frame that has not drained.
        end: offset behind the last whole frame, or of the file's end where another process wrote it.
    """

    __slots__ = ("_descriptor", "end", "folder", "path", "start")

    def __init__(self, folder: JournalDir, path: Path, start: int, end: int, descriptor: int = -1) -> None:
        self.folder = folder
        self.path = path
        self.start = start
        self.end = end
        self._descriptor = descriptor  # open for writing, or -1

    @property
    def left(self) -> int:
        """Bytes that have not drained."""
        return max(self.end - self.start, 0)

    def write(self, frames: bytes, *, durable: bool) -> None:
        """Write frames behind the end, all or none; the caller moves `end`.

        Args:
            frames: whole frames.
            durable: whether to wait until the medium has them.

        Raises:
            OSError: the disk refuses them, and the file is as before.
        """
        try:
            written = os.write(self._descriptor, frames)
            while written < len(frames):  # a disk almost full takes a part, and says why at the next try
                written += os.write(self._descriptor, frames[written:])
            if durable:
                _sync_data(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            raise

    def advance(self, start: int) -> None:
        """Note, in the file too, that everything before an offset has drained.

        Without the note a record deleted from the store would come back when the segment drains again.
        """
        self.start = start
        with suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.seek(len(MAGIC))
            file.write(_DRAINED.pack(start))

    def close(self) -> None:
        """Close the file for writing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def remove(self) -> None:
        """Delete the file. One that can't be deleted drains once more some day, which changes nothing."""
        with suppress(OSError):
            self.path.unlink()

    def set_aside(self) -> Path:
        """Rename the file so that only a person reads it any more; return its new path.

        Raises:
            OSError: it can't be renamed.
        """
        folder = self.folder.path
        return self.path.replace(folder.with_name(f"{folder.name}-{self.path.name}.damaged"))


@dataclass(frozen=True, slots=True)
class Group:
    """Payloads to be drained together.

    Attributes:
        payloads: in the order in which they were written.
    """

    payloads: list[bytes]
    segment: Segment = field(repr=False)
    end: int = field(repr=False)


def next_group(segment: Segment, size: int) -> Group:
    """Read the next payloads of a segment; none where the next frame is not whole.

    Args:
        segment: the segment.
        size: bytes after which no more payloads are added.

    Raises:
        OSError: its file is gone or can't be read.
    """
    taken, end = [], segment.start
    with closing(read(segment.path, segment.start, segment.end)) as payloads:
        for payload in payloads:
            taken.append(payload)
            end += HEADER.size + len(payload)
            if end - segment.start >= size:
                break
    return Group(taken, segment, end)


class JournalDir:
    """The folder of one process in the journal, held by this process through its lock.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._newest = 0

    @classmethod
    def create(cls, journal: Path) -> JournalDir:
        """Make one for this process.

        Raises:
            OSError: the journal's folder can't be written to, or its disk has no locks.
        """
        while True:
            path = journal / f"{os.getpid()}-{secrets.token_hex(4)}"
            path.mkdir()
            if (created := cls.take(path)) is not None:
                return created
            # Another process took it for an orphan before it was locked, and is about to remove it.

    @classmethod
    def take(cls, path: Path) -> JournalDir | None:
        """Hold the folder of a dead process; return None where a process holds it, or it is gone.

        Raises:
            OSError: the lock can't be opened, or the disk has no locks.
        """
        lock = _lock(path / "lock")
        return None if lock is None else cls(path, lock)

    def exists(self) -> bool:
        """Whether the folder is still there: a person may have removed it."""
        return _is_at(self._lock, self.path / "lock")

    def recover(self) -> list[Segment]:
        """Return the undrained segments, oldest first; delete drained ones.

        Raises:
            OSError: one can't be read.
        """
        undrained = []
        for file in files_in(self.path):
            with file.open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                segment = Segment(self, file, _drained(opened.read(len(PREAMBLE)), size), size)
            if segment.left:
                undrained.append(segment)
            else:
                segment.remove()
        return undrained

    def new_segment(self, *, durable: bool) -> Segment:
        """Begin a segment.

        Raises:
            OSError: the disk is full, or the like.
        """
        self._newest = max(time.time_ns(), self._newest + 1)
        path = self.path / f"{self._newest:020}.log"
        descriptor = os.open(path, _FLAGS | os.O_EXCL, _MODE)
        segment = Segment(self, path, len(PREAMBLE), 0, descriptor)
        try:
            segment.write(PREAMBLE, durable=False)
            if durable:
                sync(self.path)
        except OSError:
            segment.close()
            segment.remove()
            raise
        segment.end = len(PREAMBLE)
        return segment

    def release(self, *, remove: bool) -> None:
        """Unlock it; remove it first where asked to, and where only the lock is in it."""
        if self._lock < 0:
            return
        if remove:
            # The lock's file goes while it is held: a process that has opened it sees that it is gone.
            with suppress(OSError):
                (self.path / "lock").unlink()
        lock, self._lock = self._lock, -1
        os.close(lock)
        if remove:
            with suppress(OSError):
                self.path.rmdir()


def folders_in(journal: Path) -> list[Path]:
    """Return the folders of all processes; none where the journal is not there."""
    try:
        with os.scandir(journal) as entries:
            names = [each.name for each in entries if _NAME.fullmatch(each.name)]
    except OSError:
        return []
    return [journal / name for name in sorted(names)]


def files_in(folder: Path) -> list[Path]:
    """Return the segments' files in the folder of a process, oldest first; none where it is gone."""
    with suppress(FileNotFoundError):
        return sorted(folder.glob("*.log"))
    return []


def _lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, _FLAGS, _MODE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Not lockf: that lock is lost when any descriptor of the file is closed, and two journals in one
        # process would not see each other's.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    # Its last holder may have removed file and folder before it let go of the lock.
    if _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
