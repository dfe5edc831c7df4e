"""The journal's files: frames, and the segments that they stand in.

A segment is `MAGIC`; u64, the offset up to which it has drained (0 at first); then frames: u32 length, u32
CRC-32 of the payload, payload. All little endian.
"""

from __future__ import annotations

import logging
import os
import struct
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from kickserve.wholefile import sync_folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from kickserve.boxes import Box

MAGIC: Final = b"kickjrn\x01"  # the last byte is the version of the format
_DRAINED: Final = struct.Struct("<Q")
PREAMBLE: Final = MAGIC + _DRAINED.pack(0)
HEADER: Final = struct.Struct("<II")
_CHUNK: Final = 256 * 1024  # bytes read at a time
_LONGEST: Final = 1 << 20  # bytes of a payload that is looked for behind damage; a batch of kicks has 240 KB
FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
MODE: Final = 0o660
_sync: Final = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync

_log = logging.getLogger(__name__)


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
        start: offset of the first frame to read, or 0 for the first that the file says has not drained.
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


def read_all(parts: Iterable[tuple[Path, int, int]]) -> Iterator[bytes]:
    """Yield the payloads of many segments, each given as for `read`; pass over those that are gone."""
    for path, start, end in parts:
        with suppress(OSError):  # it has drained meanwhile
            yield from read(path, start, end)


def _drained(preamble: bytes, size: int) -> int:
    drained = 0
    if preamble.startswith(MAGIC) and len(preamble) == len(PREAMBLE):
        (drained,) = _DRAINED.unpack_from(preamble, len(MAGIC))
    # An offset that can't be is damage: to drain all once more is better than to lose it.
    return drained if len(PREAMBLE) <= drained <= size else len(PREAMBLE)


def is_torn(path: Path, start: int) -> bool:
    """Say whether what follows `start` is a write that its process did not live to finish.

    It is not where another whole frame stands behind it: then something has damaged the file since.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        return not data.strip(b"\0")
    rest = memoryview(data)[start:]
    return not any(_is_frame(rest, at) for at in _perhaps_frames(rest))


def _perhaps_frames(data: memoryview) -> Iterator[int]:
    """Yield the offsets, from 1, at which stands a length that a frame could have."""
    for remainder in range(HEADER.size):  # numpy reads numbers one behind the other, so in eight rows
        count = (len(data) - remainder) // HEADER.size
        if count <= 0:
            return
        lengths = np.frombuffer(data, "<u4", count * 2, remainder)[::2]
        at = remainder + HEADER.size * np.arange(count)
        fits = (lengths > 0) & (lengths <= _LONGEST) & (lengths <= len(data) - HEADER.size - at) & (at > 0)
        yield from at[fits].tolist()


def _is_frame(data: memoryview, at: int) -> bool:
    length, checksum = HEADER.unpack_from(data, at)
    begin = at + HEADER.size
    return crc32(data[begin : begin + length]) == int(checksum)


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
        self.start = len(PREAMBLE)
        self.end = end
        self.descriptor: int | None = None

    @classmethod
    def left_in(cls, box: Box, path: Path) -> Segment:
        """Take up one that another process wrote, from where that has drained it to.

        Raises:
            OSError: it can't be read.
        """
        segment = cls(box, path, path.stat().st_size)
        with path.open("rb") as file:
            segment.start = _drained(file.read(len(PREAMBLE)), segment.end)
        return segment

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
        data = frames if self.end else PREAMBLE + frames
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

    def advance(self, start: int) -> None:
        """Note that all before this offset has drained, in the file too, for whoever takes it up or looks in.

        Else a record that was deleted from the store would come back with what drains a second time.
        """
        self.start = start
        with suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.seek(len(MAGIC))
            file.write(_DRAINED.pack(start))

    def close(self) -> None:
        """Let go of the file; no more is written to it."""
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            os.close(descriptor)

    def remove(self) -> None:
        """Delete the file. Where that fails it drains once more some day, which changes nothing."""
        with suppress(OSError):
            self.path.unlink()

    def put_away(self, *, own: bool) -> None:
        """Deal with a next frame that is not whole; all before it has drained. `remove` is for the caller.

        Args:
            own: whether this process wrote it. Then no write was cut short, and it must be damage.

        Raises:
            OSError: it can't be read or renamed.
        """
        if not own and is_torn(self.path, self.start):
            _log.warning(
                "%s ended in the middle of a write, when its process died: cut its last %d bytes, which"
                " nobody was told had been kept",
                self.path,
                self.left,
            )
            return
        kept = self.set_aside()
        _log.error(
            "%d bytes of predictions can't be read from byte %d on: kept in %s", self.left, self.start, kept
        )

    def set_aside(self) -> Path:
        """Rename the file so that nothing reads it any more but a person; return its new path.

        Raises:
            OSError: it can't be renamed.
        """
        new = self.path.parent.parent / f"{self.box.path.name}-{self.path.name}.damaged"
        return self.path.replace(new)


@dataclass(frozen=True, slots=True)
class Group:
    """Payloads to be drained together.

    Attributes:
        payloads: in the order in which they were appended.
    """

    payloads: list[bytes]
    segment: Segment = field(repr=False)
    start: int = field(repr=False)
    end: int = field(repr=False)


def next_group(segment: Segment, most: int, size: int) -> Group:
    """Read the next payloads of a segment; none where the next frame is not whole.

    Args:
        segment: what to read.
        most: how many payloads at most, from 1.
        size: bytes after which no more payloads are added.

    Raises:
        OSError: its file is gone or can't be read.
    """
    with closing(read(segment.path, segment.start, segment.end)) as payloads:
        taken = list(islice(_up_to(size, payloads), most))
    length = sum(map(len, taken)) + HEADER.size * len(taken)
    return Group(taken, segment, segment.start, segment.start + length)


def _up_to(size: int, payloads: Iterator[bytes]) -> Iterator[bytes]:
    for payload in payloads:
        yield payload
        size -= len(payload)
        if size <= 0:
            return
