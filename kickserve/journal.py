"""The journal: an append-only log on local disk that every prediction goes to before its answer leaves.

`write` keeps payloads; the recorder drains them into the store with `take` and `done`; `scan` finds what has
not drained. `kickserve.segments` has the files. Where a process dies between the store's commit and `done`,
that one group is drained once more: the store passes over the records that it has.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kickserve.batching import Batcher, resolve
from kickserve.errors import Backlogged, ConfigurationError
from kickserve.segments import (
    Group,
    JournalDir,
    Segment,
    encode,
    files_in,
    folders_in,
    next_group,
    read,
)
from kickserve.wholefile import sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kickserve.settings import Settings

    Written = asyncio.Future[Backlogged | None]

Mark = list[tuple[Segment, int]]

_WORTH_REPLACING: Final = 64 * 1024  # bytes from which a drained segment gives way to a new one
_PAUSE: Final = 1.0  # seconds until a file that could not be read is tried again

_log = logging.getLogger(__name__)


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
    """

    def __init__(
        self, folder: Path, *, limit: int, fsync: bool = False, segment_bytes: int = 4 * 2**20
    ) -> None:
        self.folder = folder
        self.size = 0
        self._limit = limit
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._own: JournalDir | None = None
        self._current: Segment | None = None  # the one that is written to
        self._queue: list[Segment] = []  # drained from the front
        self._thread = ThreadPoolExecutor(1, "journal") if fsync else None
        self._batcher = Batcher(self._write, self._finish, limit=sys.maxsize, thread=self._thread)
        self._pending = 0  # bytes on their way to the disk
        self._seal_asked = False
        self._progressed = 0.0  # when something last drained, or began to wait
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
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        if self._own is None:
            return
        self._seal()
        undrained = {segment.folder for segment in self._queue}
        for folder in {self._own, *undrained}:
            folder.release(remove=folder not in undrained)
        self._own = None
        self._queue, self.size = [], 0

    def write(self, payloads: Sequence[bytes]) -> Written:
        """Keep payloads, all or none.

        Without `fsync` they are in the file when this returns; with it, those of a turn of the event loop,
        or of the time that another sync takes, go to the medium together. To cancel takes nothing back.

        Returns:
            Brings None once they are kept, or the reason why they are not: too much waits already, the disk
            refuses them, or the journal is not open.

        Raises:
            ValueError: a payload is empty.
        """
        frames = encode(payloads)
        if self._own is None or self.size + self._pending + len(frames) > self._limit:
            refusal: Backlogged | None = self._refusal_of(len(frames))
        else:
            self._pending += len(frames)
            if self._fsync:
                return self._batcher.put(frames)
            refusal = self._settle(len(frames), self._write([frames]))
        written: Written = asyncio.get_running_loop().create_future()
        written.set_result(refusal)
        return written

    def _refusal_of(self, length: int) -> Backlogged:
        if self._own is None:
            return Backlogged(
                "the journal is closed, because the service is stopping: retry after the restart"
            )
        return Backlogged(
            f"the journal is full: {self.size + self._pending} bytes of predictions wait for the store,"
            f" this request needs {length} more, and KICKSERVE_JOURNAL_MAX is {self._limit}. /health"
            " shows the state of the store"
        )

    def _write(self, frames: Sequence[bytes]) -> OSError | None:
        """Write frames to the current segment, with `fsync` in the thread; return why the disk refuses."""
        try:
            if self._current is None:
                self._current = self._begin_segment()
            self._current.write(b"".join(frames), durable=self._fsync)
        except OSError as error:
            return error
        return None

    def _begin_segment(self) -> Segment:
        if self._own is None:
            raise OSError(errno.EBADF, "the journal is closed")
        if not self._own.exists():
            removed, self._own = self._own, self._create_own()
            removed.release(remove=False)
            _log.error("the journal directory was removed by hand: began %s", self._own.path)
        segment = self._own.new_segment(durable=self._fsync)
        self._queue.append(segment)
        return segment

    def _finish(self, frames: Sequence[bytes], futures: Sequence[Written], error: OSError | None) -> None:
        refusal = self._settle(sum(map(len, frames)), error)
        resolve(futures, [refusal] * len(futures))

    def _settle(self, length: int, error: OSError | None) -> Backlogged | None:
        """Count bytes that were written, or return why they were not."""
        self._pending -= length
        if error is not None or self._current is None:
            return self._failed(error or OSError(errno.EBADF, "the journal is closed"))
        self._current.end += length
        if not self.size:
            self._progressed = time.monotonic()
        self.size += length
        self._arrived.set()
        if self._seal_asked or self._current.end >= self._segment_bytes:
            self._seal()
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
        self._seal()  # after a sync that failed, a later one of the same file that succeeds proves nothing
        refusal = Backlogged(
            f"the journal can't be written ({error.strerror}): check the disk that the service's log names"
        )
        refusal.__cause__ = error
        return refusal

    def _seal(self) -> bool:
        """End the current segment, now or when the thread has written to it; return whether it has ended."""
        self._seal_asked = self._batcher.busy
        if self._seal_asked:
            return False
        segment, self._current = self._current, None
        if segment is not None:
            segment.close()
            if not segment.left:
                self._drop(segment)
        return True

    def mark(self) -> Mark:
        """Remember how far this process has written by now; see `passed`."""
        return [(segment, segment.end) for segment in self._queue if segment.folder is self._own]

    def passed(self, mark: Mark) -> bool:
        """Whether everything written before a mark has drained."""
        return all(segment.start >= end or segment not in self._queue for segment, end in mark)

    async def arrival(self) -> None:
        """Wait until something is undrained."""
        while not any(segment.left for segment in self._queue):
            self._arrived.clear()
            await self._arrived.wait()

    async def take(self, size: int = sys.maxsize) -> Group:
        """Wait until something is undrained, and return the oldest of it; orphans of dead processes first.

        The same comes again until `done` is called with it.

        Args:
            size: bytes after which no more payloads are added.
        """
        while True:
            await self.arrival()
            segment = next(each for each in self._queue if each.left)
            try:
                group = next_group(segment, size)
                if group.payloads:
                    return group
                if segment is not self._current or self._seal():
                    self._set_aside(segment)
            except FileNotFoundError:
                if segment is not self._current or self._seal():
                    _log.error(
                        "the journal file %s is missing: %d bytes of predictions are lost",
                        segment.path,
                        segment.left,
                    )
                    self._drop(segment)
            except OSError as error:
                self._log_once(segment.path, "can't be read, and is tried again and again", error)
                self._queue.append(self._queue.pop(self._queue.index(segment)))
                await asyncio.sleep(_PAUSE)
            await asyncio.sleep(0)

    def _set_aside(self, segment: Segment) -> None:
        """Deal with a segment whose next frame is not whole; everything before it has drained."""
        _log.error(
            "%d bytes of predictions can't be read from byte %d on: kept in %s. Either the process or"
            " the machine died during a write, before any client got an answer, or the disk damaged the"
            " bytes",
            segment.left,
            segment.start,
            segment.set_aside(),
        )
        self._drop(segment)

    def done(self, group: Group) -> None:
        """Let go of a group that the store has."""
        segment = group.segment
        if segment not in self._queue:
            return
        self.size -= group.end - segment.start
        segment.advance(group.end)
        self._progressed = time.monotonic()
        if segment.left:
            return
        if segment is not self._current:
            self._drop(segment)
        elif segment.end >= _WORTH_REPLACING:
            self._seal()

    def scan(self, *, others: bool = True) -> Iterator[bytes]:
        """Return the undrained payloads of all processes, living ones too, oldest segment first.

        To find a prediction look here first and then in the store: the other way round it may drain in
        between and be missed. Some that the store has already may come too.

        Args:
            others: whether to look further than the segments that this process is going to drain.
        """
        mine = self._held()
        parts = [(segment.path, segment.start, segment.end) for segment in self._queue]
        for folder in folders_in(self.folder) if others else ():
            if folder not in mine:
                parts += [(file, 0, sys.maxsize) for file in files_in(folder)]
        return _read_all(sorted(parts, key=lambda part: part[0].name))

    def recover_orphans(self) -> int:
        """Take up what dead processes left. To be called at intervals: processes die at any time.

        Returns:
            How many folders with something in them were taken up.
        """
        if self._own is None:
            return 0
        mine = self._held()
        found = [self._recover(folder) for folder in folders_in(self.folder) if folder not in mine]
        segments = sorted((each for some in found for each in some), key=lambda segment: segment.path.name)
        self._queue[:0] = segments
        return sum(map(bool, found))

    def _recover(self, path: Path) -> list[Segment]:
        """Return the segments that a dead process left; none where it lives or left none."""
        folder = None
        try:
            folder = JournalDir.take(path)
            segments = [] if folder is None else folder.recover()
        except OSError as error:
            self._log_once(path, "can't be recovered", error)
            segments = []
            if folder is not None:
                folder.release(remove=False)  # to be tried again
            return segments
        if segments:
            length = sum(segment.left for segment in segments)
            if not self.size:
                self._progressed = time.monotonic()
            self.size += length
            self._arrived.set()
            _log.info("recovered %d bytes of predictions that a process left in %s", length, path)
        elif folder is not None:
            folder.release(remove=True)
        return segments

    def _held(self) -> set[Path]:
        own = set() if self._own is None else {self._own.path}
        return own | {segment.folder.path for segment in self._queue}

    def _create_own(self) -> JournalDir:
        self.folder.mkdir(parents=True, exist_ok=True)
        own = JournalDir.create(self.folder)
        if self._fsync:
            sync(self.folder.parent)
            sync(self.folder)
        return own

    def _drop(self, segment: Segment) -> None:
        """Delete a segment that has drained, and its folder where that was the last one of a dead process."""
        self.size -= segment.left
        self._queue.remove(segment)
        segment.remove()
        if segment.folder is not self._own and all(each.folder is not segment.folder for each in self._queue):
            segment.folder.release(remove=True)

    def _log_once(self, path: Path, trouble: str, error: OSError) -> None:
        if path not in self._logged:
            self._logged.add(path)
            _log.error("of the journal, %s %s (%s)", path, trouble, error.strerror)


def _read_all(parts: list[tuple[Path, int, int]]) -> Iterator[bytes]:
    """Yield the payloads of many segments, each given as for `read`; pass over files that are gone."""
    for path, start, end in parts:
        with suppress(OSError):  # it has drained meanwhile
            yield from read(path, start, end)
