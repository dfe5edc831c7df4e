"""The journal: an append-only log on local disk that every prediction goes to before its answer leaves.

The folder is shared by the processes of one machine. Each holds a sub-folder of its own by a lock on a file
in it; the lock goes with the process, and then another one takes the sub-folder up:

    folder/
      4711-5f3a9c02/                       process 4711 and a random number
        lock
        01795500000000000000.log           a segment, named by the nanosecond of its beginning
      4711-5f3a9c02-0179….log.damaged      what could not be read: kept for a person to look at

A segment is `MAGIC`, then frames: u32 length, u32 CRC-32 of the payload, payload; little endian. How far a
segment has drained is known in memory alone: after a crash its beginning is taken once more, and the store
passes over what it has.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import struct
import sys
import time
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from kickserve.errors import Backlogged, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from kickserve.settings import Settings

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
_HEADER: Final = struct.Struct("<II")
_CHUNK: Final = 256 * 1024  # read at a time
_WORTH_A_NEW_ONE: Final = 64 * 1024  # a segment that has drained is replaced from this size on
_SEARCH: Final = 64 * 1024  # bytes after an unreadable frame in which another one is looked for
_PAUSE: Final = 1.0  # seconds until a segment that the disk would not read is tried again
_NAME: Final = re.compile(r"\d+-[0-9a-f]{8}")
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_sync = getattr(os, "fdatasync", os.fsync)

_log = logging.getLogger(__name__)


class Journal:
    """Keeps payloads (opaque, never empty bytes) on disk until they are said to be done with.

    All methods but `scan` are for the thread of one event loop.

    Args:
        folder: where; made if missing. On a local disk: locks and caches of network shares can't be relied on.
        limit: bytes that may wait undrained, of this process and of the dead ones that it took up.
        fsync: whether an append also survives the death of the machine, not of the process alone.
        segment_bytes: size from which a new file is begun.
    """

    def __init__(
        self, folder: Path, *, limit: int, fsync: bool = False, segment_bytes: int = 4 * 2**20
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._segment_bytes = segment_bytes
        self._thread = ThreadPoolExecutor(1, "journal") if fsync else None
        self._box: _Box | None = None
        self._current: _Segment | None = None
        self._queue: list[_Segment] = []  # what drains next stands first
        self._waiting: list[tuple[bytes, asyncio.Future[OSError | None]]] = []
        self._flight: tuple[ThreadFuture[None], _Write] | None = None
        self._claimed = 0  # bytes that wait for the disk
        self._size = 0
        self._moved = 0.0
        self._arrived = asyncio.Event()
        self._trouble: str | None = None
        self._refused: set[str] = set()

    @classmethod
    def from_settings(cls, settings: Settings, label: str) -> Journal:
        """Make the journal that the settings ask for.

        Args:
            settings: folder, limit and whether to fsync.
            label: the store's. Each store has a folder of its own, so that what waits for one database
                never ends up in another.
        """
        words = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:40]
        digest = hashlib.blake2s(label.encode(), digest_size=4).hexdigest()
        return cls(
            settings.journal_dir / f"{words}-{digest}",
            limit=settings.journal_max,
            fsync=settings.journal == "fsync",
        )

    @property
    def size(self) -> int:
        """Bytes that wait to be drained, frames' headers included."""
        return self._size

    @property
    def lag(self) -> float:
        """Seconds for which something has waited and nothing has drained; 0 where nothing waits."""
        return time.monotonic() - self._moved if self._size else 0.0

    @property
    def trouble(self) -> str | None:
        """Why the disk takes nothing at present, or None where all is well."""
        return self._trouble

    def open(self) -> None:
        """Take a sub-folder of its own, and take up those of dead processes.

        Raises:
            ConfigurationError: the folder can't be made or written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._box = _Box.make(self._folder)
        except OSError as error:
            raise ConfigurationError(
                f"the journal's folder {self._folder} can't be used ({error.strerror}): let this user write to"
                " it, or choose another with KICKSERVE_JOURNAL_DIR"
            ) from error
        if self._thread is not None:
            _sync_folder(self._folder.parent)
            _sync_folder(self._folder)
        self.adopt()

    def close(self) -> None:
        """Write what waits, and unlock. What has not drained stays for the next process. May be called twice."""
        if self._box is None:
            return
        while self._waiting or self._flight:
            self._land()
            self._flush()
        self._seal()
        if self._thread is not None:
            self._thread.shutdown()
        boxes = {self._box, *(segment.box for segment in self._queue)}
        for box in boxes:
            box.release(remove=all(segment.box is not box for segment in self._queue))
        self._box = None

    async def append(self, payloads: Sequence[bytes]) -> None:
        """Keep payloads; return when they are on disk (in the file, or on the medium where `fsync` is on).

        All that is appended in one turn of the event loop goes in one write. All of `payloads` are kept or
        none. Cancelling it takes nothing back: they may be kept or not.

        Raises:
            Backlogged: too much waits already, the disk does not take it, or the journal is not open.
            ValueError: a payload is empty.
        """
        data = encode(payloads)
        if self._box is None:
            raise Backlogged(
                "the journal is closed because the service is stopping: ask again after its restart"
            )
        if self._size + self._claimed + len(data) > self._limit:
            raise Backlogged(
                f"{self._size + self._claimed} bytes of predictions wait for the store and KICKSERVE_JOURNAL_MAX"
                f" is {self._limit}: see in /health whether the store is away"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[OSError | None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._claimed += len(data)
        self._waiting.append((data, future))
        error = await future
        if error is not None:
            raise Backlogged(
                f"the journal can't be written ({error.strerror}): the service's log names the disk to see to"
            ) from error

    async def take(self, most: int) -> Group:
        """Wait until something is undrained, and return the oldest of it; dead processes' goes first.

        It comes again until `done` is called with the group.

        Args:
            most: how many payloads at most, from 1.
        """
        while True:
            segment = next((each for each in self._queue if each.left), None)
            if segment is None:
                self._arrived.clear()
                await self._arrived.wait()
            elif (payloads := self._read(segment, most)) is None:
                await asyncio.sleep(_PAUSE)
            elif payloads:
                length = sum(map(len, payloads)) + _HEADER.size * len(payloads)
                return Group(payloads, segment, segment.start, segment.start + length)

    def done(self, group: Group) -> None:
        """Let go of a group that the store has. Saying so twice changes nothing."""
        segment = group.segment
        if segment not in self._queue or segment.start != group.start:
            return
        self._size -= group.end - group.start
        segment.start = group.end
        self._moved = time.monotonic()
        if segment.left:
            return
        if segment is not self._current:
            self._drop(segment)
        elif self._flight is None and segment.end >= _WORTH_A_NEW_ONE:
            self._seal()

    def scan(self) -> Iterator[bytes]:
        """Return every undrained payload of all processes, those that live too, oldest segment first.

        To find a prediction look here first and in the store next: the other way round it may drain in
        between and be missed. Some that the store has already may come too. May be consumed in a thread.
        """
        mine = {segment.box.path for segment in self._queue} | ({self._box.path} if self._box else set())
        parts = [(segment.path, segment.start, segment.end) for segment in self._queue]
        for path in _boxes(self._folder):
            if path not in mine:
                parts += [(file, len(MAGIC), sys.maxsize) for file in path.glob("*.log")]
        return _payloads_of(sorted(parts, key=lambda part: part[0].name))

    def adopt(self) -> int:
        """Take up what dead processes left. Call it at intervals: processes die at any time.

        Returns:
            How many sub-folders were taken up that had something in them.
        """
        if self._box is None:
            return 0
        if not self._box.stands():
            self._replace_box()
        mine = {self._box.path, *(segment.box.path for segment in self._queue)}
        found = [
            segments for path in _boxes(self._folder) if path not in mine and (segments := self._claim(path))
        ]
        self._queue = [*(segment for segments in found for segment in segments), *self._queue]
        if found:
            self._arrived.set()
        return len(found)

    def _claim(self, path: Path) -> list[_Segment]:
        try:
            box = _Box.take(path)
        except OSError as error:
            if path.name not in self._refused:
                self._refused.add(path.name)
                _log.warning("what a process left in %s can't be taken up (%s)", path, error.strerror)
            return []
        if box is None:
            return []
        segments = [_Segment(box, file, file.stat().st_size) for file in sorted(path.glob("*.log"))]
        filled = [segment for segment in segments if segment.left]
        for segment in segments:
            if not segment.left:
                segment.path.unlink(missing_ok=True)
        if not filled:
            box.release(remove=True)
            return []
        length = sum(segment.left for segment in filled)
        self._moved = self._moved if self._size else time.monotonic()
        self._size += length
        _log.info("took up %d bytes that a process left in %s", length, path)
        return filled

    def _replace_box(self) -> None:
        """Begin a new sub-folder: somebody removed the old one, or the lock in it."""
        _log.error("the journal's folder was removed from outside, with what was in it: begin a new one")
        self._seal()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            box = _Box.make(self._folder)
        except OSError as error:
            _log.error("the journal's folder %s can't be made again (%s)", self._folder, error.strerror)  # noqa: TRY400
            return
        if self._box is not None:
            self._box.release(remove=False)
        self._box = box

    def _flush(self) -> None:
        """Write what waits in one go. While a sync runs, what comes in waits for the next."""
        if self._flight is not None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        data = b"".join([data for data, _ in waiting])
        write = _Write(data, [future for _, future in waiting])
        try:
            segment = self._writable()
            if self._thread is not None:
                flight = self._thread.submit(_write_and_sync, segment, data)
                self._flight = flight, write
                loop = write.futures[0].get_loop()
                flight.add_done_callback(lambda _: loop.call_soon_threadsafe(self._land))
                return
            _write(segment, data)
        except OSError as error:
            self._settle(write, error)
        else:
            self._settle(write, None)

    def _land(self) -> None:
        """End the sync that runs, waiting for it where it has not ended."""
        if self._flight is None:
            return
        flight, write = self._flight
        wait([flight])
        self._flight = None
        error = flight.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        self._settle(write, error)
        if error is not None:
            self._seal()  # what the system has marked clean after a failed sync can't be trusted
        if self._waiting:
            # After those that this write woke: what they append goes in the same group.
            self._waiting[0][1].get_loop().call_soon(self._flush)

    def _settle(self, write: _Write, error: OSError | None) -> None:
        self._claimed -= len(write.data)
        if error is None and self._current is not None:
            self._moved = self._moved if self._size else time.monotonic()
            self._current.end = max(self._current.end, len(MAGIC)) + len(write.data)
            self._size += len(write.data)
            self._arrived.set()
        self._report(error)
        for future in write.futures:
            if not future.done():
                future.set_result(error)

    def _report(self, error: OSError | None) -> None:
        before, self._trouble = self._trouble, None if error is None else str(error.strerror)
        if error is not None and before is None:
            _log.error(
                "the journal in %s can't be written (%s): predictions are refused until it can; see to the"
                " disk, then it goes on by itself",
                self._folder,
                error.strerror,
            )
        elif error is None and before is not None:
            _log.warning("the journal in %s can be written again", self._folder)

    def _writable(self) -> _Segment:
        """Return the segment to write to, a new one where there is none or it is full."""
        if self._current is not None and self._current.end >= self._segment_bytes:
            self._seal()
        if self._current is None:
            ...
        return self._current
