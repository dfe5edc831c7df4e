"""The journal: append-only files on local disk to which every prediction goes before its answer leaves.

    journal/
      4711-5f3a9c02/                       the folder of process 4711, and a random number
        lock                               locked by the process: the lock ends with the process
        01795500000000000000.log           a segment, named after the nanosecond of its beginning
      4711-5f3a9c02-0179….log-16.damaged   bytes that are no prediction, and the byte where they were

A segment is `MAGIC`, how far it has drained (u32 offset, its CRC-32), then frames: u32 length of the payload,
u32 CRC-32 of the payload, payload. All little endian. With `fsync` there are zeros behind the last frame.

`Journal.write` keeps payloads; the recorder drains them into the store with `take` and `done`. Where a
process dies between the store's commit and `done`, its last group drains once more: the store passes over
records that it has.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import re
import secrets
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from glob import glob
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from kickserve.batching import Batcher, resolve
from kickserve.errors import Backlogged, ConfigurationError
from kickserve.wholefile import atomic_write, sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kickserve.batching import Promise
    from kickserve.settings import Settings

    Written = asyncio.Future[Backlogged | None]

MAGIC: Final = b"kickjrn\x01"  # the last byte is the version of the format
HEADER: Final = struct.Struct("<II")
FIRST: Final = len(MAGIC) + HEADER.size  # offset of the first frame
_CRC: Final = 0xEDB88320  # the polynomial of CRC-32, which is the difference that the last bit makes
_SHORT: Final = 4096  # bytes of a payload in which a flipped bit is looked for
_MODE: Final = 0o660
_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}")
_SEGMENT: Final = 4 * 2**20  # bytes from which a new segment is begun
_PARTS: Final = 16  # where much waits, a segment is as large as this part of it: each holds a file open
_LONGEST: Final = 2**30  # bytes of a segment: its offsets are u32
_WORTH_REPLACING: Final = 64 * 1024  # bytes from which a drained segment gives way to a new one
# Bytes that are read at once. What is larger than 128 KiB glibc would keep afterwards, in each thread anew.
_READ: Final = 64 * 1024
# Zeros that are written ahead with `fsync`: in a file that has room a sync need not wait for the journal of
# the file system, which takes as long again, and longer where others write.
_AHEAD: Final = 256 * 1024
_PAUSE: Final = 1.0  # seconds until a disk that refuses is tried again
_sync_data: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync

_log = logging.getLogger(__name__)


def encode(payloads: Iterable[bytes]) -> bytes:
    """Return the frames of payloads, none of them empty."""
    return b"".join([HEADER.pack(len(each), crc32(each)) + each for each in payloads])


def decode(data: bytes) -> tuple[list[bytes], int]:
    """Return the payloads of all whole frames at the beginning, and the bytes that those frames take."""
    payloads, at = [], 0
    while payload := _payload_at(data, at):
        payloads.append(payload)
        at += HEADER.size + len(payload)
    return payloads, at


def _payload_at(data: bytes, at: int) -> bytes:
    """Return the payload of the frame at an offset; none where no whole frame is there."""
    start = at + HEADER.size
    if start > len(data):
        return b""
    length, checksum = HEADER.unpack_from(data, at)
    payload = data[start : start + length]
    return payload if len(payload) == length and crc32(payload) == checksum else b""


def _mended(frame: bytes) -> bytes | None:
    """Return the payload of a frame in which the length, or one bit, is damaged; None where more is.

    The difference of the checksums says which bit: each has its own, up to 2^32 bits.
    """
    if len(frame) <= HEADER.size:
        return None
    payload, checksum = bytearray(frame[HEADER.size :]), HEADER.unpack_from(frame)[1]
    wanted, difference = crc32(payload) ^ checksum, _CRC
    if wanted.bit_count() <= 1:  # the payload is whole
        return bytes(payload)
    # By chance the damage of many bits looks like that of one: in a short frame once in 100,000 cases.
    for at in reversed(range(8 * len(payload) if len(payload) <= _SHORT else 0)):
        if difference == wanted:
            payload[at // 8] ^= 1 << at % 8
            return bytes(payload)
        difference = difference >> 1 ^ (_CRC if difference & 1 else 0)
    return None


class Group(NamedTuple):
    """Payloads to be drained together.

    Attributes:
        payloads: in the order in which they were written.
        segment: the segment.
        end: offset behind them in the segment.
        damaged: the bytes, where there is no whole frame; `payloads` is empty then.
    """

    payloads: list[bytes]
    segment: Segment
    end: int
    damaged: bytes = b""

    @property
    def cut_short(self) -> bool:
        """Whether these bytes are the beginning of a longer frame, as the death of a process leaves it."""
        data = self.damaged
        length = HEADER.unpack_from(data)[0] if len(data) >= HEADER.size else 1
        return self.end == self.segment.end and len(data) < HEADER.size + length


class Segment:
    """One file of frames, open for as long as it drains: also where somebody removes it.

    Attributes:
        folder: the folder of the process that wrote it.
        path: its file.
        descriptor: of the file.
        start: offset of the first frame that has not drained.
        end: offset behind the last whole frame, or of the file's end where another process wrote it.
    """

    __slots__ = ("_size", "descriptor", "end", "folder", "path", "start")

    def __init__(self, folder: JournalDir, path: Path, flags: int = os.O_RDWR) -> None:
        self.folder = folder
        self.path = path
        self.descriptor = os.open(path, flags, _MODE)
        self.end = self._size = os.fstat(self.descriptor).st_size
        self.start = _drained(os.pread(self.descriptor, FIRST, 0), self.end)

    @property
    def left(self) -> int:
        """Bytes that have not drained."""
        return max(self.end - self.start, 0)

    @property
    def blank(self) -> bool:
        """Whether nothing is left of what another process wrote but zeros at the end."""
        ends = self.end == self._size and self.left <= _AHEAD
        return ends and not self._read(self.left).strip(b"\0")

    def group(self, size: int) -> Group:
        """Read the next payloads, of `size` bytes or one; none where the next frame is not whole.

        Raises:
            OSError: it can't be read.
        """
        data = self._read(max(size, HEADER.size))
        payloads, read = decode(data)
        if not payloads and len(data) >= HEADER.size:
            payloads, read = decode(self._read(HEADER.size + HEADER.unpack_from(data)[0]))
        return Group(payloads, self, self.start + read)

    def damage(self) -> Group:
        """Read on to the next whole frame, where the next one is not whole; zeros at the end are no damage.

        Raises:
            OSError: it can't be read.
        """
        left, size = self.left, _READ  # more may be written meanwhile
        if self.blank:
            return Group([], self, self.start + left)
        while True:
            data = self._read(min(size, left))
            length = next((at for at in range(1, len(data)) if _payload_at(data, at)), len(data))
            if length < len(data) or size >= left:
                break
            size *= 2
        if length < len(data):
            end, damaged = self.start + length, data[:length]
        else:
            end, damaged = self.start + left, data.rstrip(b"\0")
        payload = _mended(damaged)
        return Group([payload], self, end) if payload else Group([], self, end, damaged)

    def _read(self, length: int) -> bytes:
        return os.pread(self.descriptor, min(length, self.left), self.start)

    def payloads(self) -> Iterator[bytes]:
        """Yield all payloads that have not drained, and pass over damage."""
        while self.left:
            group = self.group(_READ)
            if not group.payloads:
                group = self.damage()
            yield from group.payloads
            self.start = group.end

    def advance(self, start: int) -> None:
        """Note, in the file too, that everything before an offset has drained."""
        self.start = start
        with suppress(OSError):
            os.pwrite(self.descriptor, _note(start), len(MAGIC))

    def fill(self, end: int) -> None:
        """Write zeros ahead, where frames up to an offset have used up those before."""
        if end > self._size:
            self._size = end
            with suppress(OSError):  # no reason to refuse the frames
                self._size += os.pwrite(self.descriptor, bytes(_AHEAD), end)

    def cut(self) -> None:
        """Take off what is behind the last whole frame."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, self.end)
            self._size = self.end

    def close(self) -> None:
        """Close the file. May be repeated."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """Close and delete the file. One that can't be deleted drains once more, which changes nothing."""
        self.close()
        with suppress(OSError):
            self.path.unlink()


def _note(drained: int) -> bytes:
    offset = struct.pack("<I", drained)
    return offset + struct.pack("<I", crc32(offset))


def _drained(preamble: bytes, size: int) -> int:
    """Return the offset up to which a segment of some size has drained, by its preamble."""
    note = preamble[len(MAGIC) :]
    if len(note) < HEADER.size:
        return FIRST
    drained, checksum = HEADER.unpack(note)
    # The version before noted no checksum. To drain anew what has drained is better than to lose.
    sound = (not checksum or note == _note(drained)) and FIRST <= drained <= size
    return drained if sound else FIRST


PREAMBLE: Final = MAGIC + _note(FIRST)


class JournalDir:
    """The folder of one process in the journal, held by this process through its lock.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path, lock: int = -1) -> None:
        self.path = path
        self._lock = lock
        self._newest = 0

    @classmethod
    def create(cls, journal: Path) -> JournalDir:
        """Make one for this process.

        Raises:
            OSError: the journal's folder can't be written to, or its disk has no locks.
        """
        journal.mkdir(parents=True, exist_ok=True)
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
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, _MODE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        taken = cls(path, lock)
        try:
            # Not lockf: that lock is lost when any descriptor of the file is closed, and two journals in one
            # process would not see each other's.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not taken.removed:  # by its last holder, before that let go of the lock
                return taken
        except BlockingIOError:
            pass
        except OSError:
            taken.release()
            raise
        taken.release()
        return None

    @property
    def removed(self) -> bool:
        """Whether the folder is gone, with the lock's file in it."""
        return os.fstat(self._lock).st_nlink == 0

    def new_segment(self) -> Segment:
        """Begin a segment.

        Raises:
            OSError: the folder is gone, the disk is full, or the like.
        """
        self._newest = max(time.time_ns(), self._newest + 1)
        segment = Segment(self, self.path / f"{self._newest:020}.log", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        segment.end = FIRST  # the preamble is written with the first frames
        return segment

    def release(self, *, remove: bool = False) -> None:
        """Unlock it; remove it first where asked to, and where only the lock is in it. May be repeated."""
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


class Journal:
    """Keeps payloads (opaque bytes, never empty) on disk until they have drained.

    All methods are for the thread of one event loop; the iterator that `scan` returns, for any.

    Args:
        folder: made if missing. On a local disk: locks of network shares can't be relied on.
        limit: bytes that may wait undrained, those of this process and of dead ones that it recovered.
        fsync: whether written payloads also survive the death of the machine, not of the process alone.
        segment_bytes: size from which a new file is begun.

    Attributes:
        folder: as above.
        size: bytes that wait to be drained, the frames' headers included.
        written: bytes that this process has written since its start, or taken from dead ones.
        drained: how much of it has drained, in the order of its coming.
    """

    def __init__(
        self, folder: Path, *, limit: int, fsync: bool = False, segment_bytes: int = _SEGMENT
    ) -> None:
        self.folder = folder
        self.size = self.written = self.drained = 0
        self._limit = limit
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._own: JournalDir | None = None
        self._current: Segment | None = None  # the one that is written to
        self._queue: list[Segment] = []  # drained from the front
        self._thread = ThreadPoolExecutor(1, "journal") if fsync else None
        self._batcher = Batcher(self._write, self._finish, limit=sys.maxsize, thread=self._thread)
        self._pending = 0  # bytes on their way to the disk
        self._end_asked = False
        self._progressed = time.monotonic()  # when something last drained, or began to wait
        self._arrived = asyncio.Event()
        self._trouble: str | None = None
        self._logged: set[Path] = set()

    @classmethod
    def from_settings(cls, settings: Settings, label: str) -> Journal:
        """Make the journal that the settings ask for.

        Args:
            settings: folder, limit and whether to fsync.
            label: the store's. Each store has a folder of its own, so that predictions that wait for one
                database never end up in another.
        """
        words = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:40]
        digest = hashlib.blake2s(label.encode(), digest_size=4).hexdigest()
        folder = settings.journal_dir / f"{words}-{digest}"
        return cls(folder, limit=settings.journal_max, fsync=settings.journal == "fsync")

    @property
    def lag(self) -> float:
        """Seconds for which something has waited and nothing has drained; 0 where nothing waits."""
        return time.monotonic() - self._progressed if self.size else 0.0

    @property
    def state(self) -> str:
        """`ok`, or in words why it takes nothing at present."""
        if self._trouble is not None:
            return f"its disk refuses writes: {self._trouble}"
        return "ok" if self.size < self._limit else "full: KICKSERVE_JOURNAL_MAX is reached"

    def open(self) -> None:
        """Make a folder for this process, and recover those of dead ones.

        Raises:
            ConfigurationError: the journal's folder can't be made or written to.
        """
        try:
            self._own = self._create_own()
        except OSError as error:
            raise ConfigurationError(
                f"the journal directory {self.folder} can't be used ({error.strerror}): give this user"
                " write access, or set another directory in KICKSERVE_JOURNAL_DIR"
            ) from error
        self.recover_orphans()

    async def close(self) -> None:
        """Finish the writes under way, and unlock the folders; undrained segments stay. May be repeated."""
        await self._batcher.drain()
        while self._pending:  # noqa: ASYNC110  some turns at the most, at the very end
            await asyncio.sleep(0)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        if self._own is None:
            return
        self._end_segment()
        undrained = {segment.folder for segment in self._queue}
        for segment in self._queue:
            segment.cut()
            segment.close()
        for folder in {self._own, *undrained}:
            folder.release(remove=folder not in undrained)
        self._own = None
        self._queue, self.size = [], 0

    def write(self, payloads: Sequence[bytes]) -> Written:
        """Keep payloads as `put` does; the future brings what a promise takes."""
        written: Written = asyncio.get_running_loop().create_future()
        self.put(payloads, written)
        return written

    def put(self, payloads: Sequence[bytes], promise: Promise[Backlogged | None]) -> None:
        """Keep payloads, all or none.

        Without `fsync` they are in the file when this returns; with it, those of a turn of the event loop,
        or of the time that another sync takes, go to the medium together. To cancel takes nothing back.

        Args:
            payloads: one at least.
            promise: takes None once they are kept, or the reason why they are not: too much waits already,
                the disk refuses them, or the journal is not open.
        """
        frames = encode(payloads)
        if self._own is None or self.size + self._pending + len(frames) > self._limit:
            promise.set_result(self._refusal_of(len(frames)))
            return
        self._pending += len(frames)
        if self._fsync:
            self._batcher.put(frames, promise)
        else:
            promise.set_result(self._settle(len(frames), self._write([frames])))

    async def write_apart(self, payloads: Sequence[bytes]) -> Backlogged | None:
        """Keep payloads as `write` does, one in each turn of the event loop, in a segment of their own.

        A process that dies meanwhile may leave some of them, as in the middle of any write. To cancel takes
        them back.

        Returns:
            As `write` brings.
        """
        if self._fsync:  # the thread writes
            return await self.write(payloads)
        length = sum(map(len, payloads)) + len(payloads) * HEADER.size
        if self._own is None or self.size + self._pending + length > self._limit:
            return self._refusal_of(length)
        self._pending += length
        segment = None
        try:
            segment = self._new_segment()
            at = _write_all(segment.descriptor, PREAMBLE, 0)
            for payload in payloads:
                at = _write_all(segment.descriptor, encode([payload]), at)
                await asyncio.sleep(0)
        except BaseException as error:
            self._pending -= length
            if segment is not None:
                segment.remove()
            if isinstance(error, OSError):
                return self._failed(error)
            raise
        self._end_segment()  # later writes drain behind these
        self._queue.append(segment)
        return self._settle(length, segment)

    def _refusal_of(self, length: int) -> Backlogged:
        if self._own is None:
            return Backlogged(
                "the journal is closed, because the service is stopping: retry after the restart"
            )
        if length > self._limit:
            return Backlogged(
                f"this request needs {length} bytes of the journal, and KICKSERVE_JOURNAL_MAX is"
                f" {self._limit}: send smaller batches, or raise it"
            )
        return Backlogged(
            f"the journal is full: {self.size + self._pending} bytes of predictions wait for the store,"
            f" this request needs {length} more, and KICKSERVE_JOURNAL_MAX is {self._limit}. /health"
            " shows the state of the store"
        )

    def _write(self, frames: Sequence[bytes]) -> Segment | OSError:
        """Write frames to the current segment, all or none, with `fsync` in the thread.

        Returns:
            The segment, whose `end` is for the caller to move; or why the disk refuses.
        """
        try:
            segment = self._current or self._begin_segment()
        except OSError as error:
            return error
        at = segment.end
        if at == FIRST:
            at, frames = 0, (PREAMBLE, *frames)
        try:
            end = _write_all(segment.descriptor, b"".join(frames), at)
            if self._fsync:
                segment.fill(end)
                _sync_data(segment.descriptor)
        except OSError as error:
            segment.cut()
            return error
        return segment

    def _begin_segment(self) -> Segment:
        self._current = self._new_segment()
        self._queue.append(self._current)
        return self._current

    def _new_segment(self) -> Segment:
        assert self._own is not None  # noqa: S101  `close` waits for writes, and `write` refuses later ones
        try:
            segment = self._own.new_segment()
        except FileNotFoundError:
            removed, self._own = self._own, self._create_own()
            removed.release()
            _log.error("the journal directory was removed by hand: began %s", self._own.path)
            segment = self._own.new_segment()
        if self._fsync:
            sync(self._own.path)
        return segment

    def _finish(
        self,
        frames: Sequence[bytes],
        promises: Sequence[Promise[Backlogged | None]],
        written: Segment | OSError,
    ) -> None:
        refusal = self._settle(sum(map(len, frames)), written)
        resolve(promises, [refusal] * len(promises))

    def _settle(self, length: int, segment: Segment | OSError) -> Backlogged | None:
        """Count bytes that were written to a segment, or return why they were not."""
        self._pending -= length
        if isinstance(segment, OSError):
            return self._failed(segment)
        segment.end += length
        self.written += length
        self.size += length
        self._arrived.set()
        full = segment.end >= self._segment_bytes and segment.end >= min(self.size // _PARTS, _LONGEST)
        if full or self._end_asked:
            self._end_segment()
        if self._trouble is not None:
            self._trouble = None
            _log.warning("the journal in %s is writable again", self.folder)
        return None

    def _failed(self, error: OSError) -> Backlogged:
        if self._trouble is None:
            _log.error(
                "the journal in %s can't be written (%s): predictions are refused until the disk takes them",
                self.folder,
                error.strerror,
            )
        self._trouble = str(error.strerror)
        # After a sync that failed, a later one of the same file that succeeds proves nothing.
        self._end_segment()
        refusal = Backlogged(
            f"the journal can't be written ({error.strerror}): check the disk that the service's log names"
        )
        refusal.__cause__ = error
        return refusal

    def _end_segment(self) -> None:
        """Write no more to the current segment, from now on or when the thread has written to it."""
        self._end_asked = self._batcher.busy
        if self._end_asked:
            return
        segment, self._current = self._current, None
        if segment is not None and not segment.left:
            self._drop(segment)

    async def arrival(self) -> None:
        """Wait until something is undrained."""
        while not self.size:
            self._arrived.clear()
            await self._arrived.wait()
            self._progressed = time.monotonic()

    async def take(self, size: int = sys.maxsize) -> Group:
        """Wait until something is undrained, and return what came first.

        The same comes again until `done` is called with it. What can't be read is set aside, and no more.

        Args:
            size: bytes after which no more payloads are added.
        """
        while True:
            await self.arrival()
            segment = next(each for each in self._queue if each.left)
            try:
                group = segment.group(size)
                if not group.payloads:
                    group = await asyncio.to_thread(segment.damage)
                if group.payloads:
                    return group
                if group.damaged:
                    self._set_aside(group)
            except OSError as error:
                self._log_once(segment.path, "can't be drained, and is tried again and again", error)
                self._queue.append(self._queue.pop(self._queue.index(segment)))
                await asyncio.sleep(_PAUSE)
            else:
                self.done(group)

    def _set_aside(self, group: Group) -> None:
        """Keep damaged bytes in a file of their own, for a person; say what happened."""
        segment, length = group.segment, group.end - group.segment.start
        if group.cut_short and segment.folder is not self._own:
            _log.warning(
                "the last %d bytes of %s are the beginning of a prediction: its process died during the"
                " write, before any client got an answer, or the machine died",
                length,
                segment.path,
            )
            return
        name = f"{segment.folder.path.name}-{segment.path.name}-{segment.start}.damaged"
        with atomic_write(self.folder / name, durable=True) as draft:
            draft.write_bytes(PREAMBLE + group.damaged)
        _log.error(
            "%d bytes of %s from byte %d on are damaged: they are kept in %s",
            length,
            segment.path,
            segment.start,
            name,
        )

    def done(self, group: Group) -> None:
        """Let go of a group that the store has."""
        segment, length = group.segment, group.end - group.segment.start
        self.size -= length
        self.drained += length
        segment.advance(group.end)
        self._progressed = time.monotonic()
        if segment.left:
            return
        if segment is not self._current:
            self._drop(segment)
        elif segment.end >= _WORTH_REPLACING:
            self._end_segment()

    def scan(self, *, others: bool = True) -> Iterator[bytes]:
        """Return the undrained payloads of all processes, living ones too, oldest segment first.

        To find a prediction look here first and then in the store: the other way round it may drain in
        between and be missed. Some that the store has already may come too.

        Args:
            others: whether to look further than the segments that this process is going to drain.
        """
        paths = {segment.path for segment in self._queue}
        if others:
            paths.update(_paths(self.folder, "*/*.log"))
        return _read_all(sorted(paths, key=lambda path: path.name))

    def recover_orphans(self) -> None:
        """Take up what dead processes left. To be called at intervals: processes die at any time."""
        if self._own is None:
            return
        if self._own.removed:
            self._end_segment()  # it drains through the open file; the next write begins another folder
        held = {self._own.path, *(segment.folder.path for segment in self._queue)}
        folders = {path for path in _paths(self.folder, "*") if _NAME.fullmatch(path.name)}
        found = [segment for folder in folders - held for segment in self._recover(folder)]
        if found:
            self._end_segment()  # later writes drain behind the orphans
            self._queue += sorted(found, key=lambda segment: segment.path.name)
            length = sum(each.left for each in found)
            self.written += length
            self.size += length
            self._arrived.set()

    def _recover(self, path: Path) -> list[Segment]:
        """Return the segments that a dead process left; none where it lives or left none."""
        segments: list[Segment] = []
        folder = None
        try:
            folder = JournalDir.take(path)
            if folder is None:
                return []
            for file in sorted(_paths(path, "*.log")):
                segments.append(Segment(folder, file))  # noqa: PERF401  those before an error are closed
            blank = [each for each in segments if each.blank]
        except OSError as error:
            self._log_once(path, "can't be recovered, and is tried again and again", error)
            for each in segments:
                each.close()
            if folder is not None:
                folder.release()
            return []
        for each in blank:
            segments.remove(each)
            each.remove()
        if segments:
            length = sum(each.left for each in segments)
            _log.info("recovered %d bytes of predictions that a process left in %s", length, path)
        else:
            folder.release(remove=True)
        return segments

    def _create_own(self) -> JournalDir:
        own = JournalDir.create(self.folder)
        if self._fsync:
            sync(self.folder.parent)
            sync(self.folder)
        return own

    def _drop(self, segment: Segment) -> None:
        """Delete a segment that has drained, and its folder where that was the last one of a dead process."""
        self._queue.remove(segment)
        segment.remove()
        if segment.folder is not self._own and all(each.folder is not segment.folder for each in self._queue):
            segment.folder.release(remove=True)

    def _log_once(self, path: Path, trouble: str, error: OSError) -> None:
        if path not in self._logged:
            self._logged.add(path)
            _log.error("of the journal, %s %s (%s)", path, trouble, error.strerror)


def _write_all(descriptor: int, data: bytes, at: int) -> int:
    """Write data at an offset, and return the offset behind it."""
    written = os.pwrite(descriptor, data, at)
    while written < len(data):  # a disk almost full takes a part, and says why at the next try
        written += os.pwrite(descriptor, data[written:], at + written)
    return at + written


def _paths(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder that match, as far as they are there."""
    return [folder / name for name in glob(pattern, root_dir=folder)]  # noqa: PTH207  Path.glob may fail


def _read_all(paths: Sequence[Path]) -> Iterator[bytes]:
    """Yield the payloads of many segments; pass over files that are gone."""
    for path in paths:
        with suppress(OSError), closing(Segment(JournalDir(path.parent), path)) as segment:
            yield from segment.payloads()
