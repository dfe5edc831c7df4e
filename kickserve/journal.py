"""The journal: an append-only log on local disk that every prediction goes to before its answer leaves.

`append` keeps payloads; the recorder drains them into the store with `take` and `done`; `scan` finds what
has not drained. The files are described in `segments` and `boxes`. A process that dies between
the store's commit and `done` leaves that one group to be taken once more: the store passes over what it has.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from kickserve.boxes import Box, boxes, claim, files_in
from kickserve.errors import Backlogged, ConfigurationError
from kickserve.groupcommit import Writer
from kickserve.segments import PREAMBLE, Group, Segment, encode, next_group, read_all
from kickserve.wholefile import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kickserve.groupcommit import Settled
    from kickserve.settings import Settings

_WORTH_A_NEW_ONE: Final = 64 * 1024  # bytes from which a segment that has drained is replaced by a new one
_PAUSE: Final = 1.0  # seconds until a file that could not be read is tried again

_log = logging.getLogger(__name__)


Mark = list[tuple[Segment, int]]


class Journal:
    """Keeps payloads (opaque bytes, never empty) on disk until they are said to be done with.

    All methods are for the thread of one event loop; what `scan` returns may be consumed in any.

    Args:
        folder: where; made if missing. On a local disk: locks of network shares can't be relied on.
        limit: bytes that may wait undrained, this process's and those of dead ones that it took up.
        fsync: whether an append also survives the death of the machine, not of the process alone.
        segment_bytes: size from which a new file is begun.
    """

    def __init__(
        self, folder: Path, *, limit: int, fsync: bool = False, segment_bytes: int = 4 * 2**20
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._writer: Writer | None = None
        self._box: Box | None = None
        self._current: Segment | None = None
        self._queue: list[Segment] = []  # what drains next stands first
        self._size = 0
        self._moved = 0.0
        self._arrived = asyncio.Event()
        self._trouble: str | None = None
        self._complained: set[Path] = set()

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
        folder = settings.journal_dir / f"{words}-{digest}"
        return cls(folder, limit=settings.journal_max, fsync=settings.journal == "fsync")

    @property
    def size(self) -> int:
        """Bytes that wait to be drained, frames' headers included."""
        return self._size

    @property
    def lag(self) -> float:
        """Seconds for which something has waited and nothing has drained; 0 where nothing waits."""
        return time.monotonic() - self._moved if self._size else 0.0

    @property
    def folder(self) -> Path:
        """Where it stands."""
        return self._folder

    @property
    def state(self) -> str:
        """`ok`, or in words why it takes nothing at present."""
        if self._trouble is not None:
            return f"its disk takes nothing: {self._trouble}"
        return "ok" if self._size < self._limit else "as large as KICKSERVE_JOURNAL_MAX lets it be"

    def mark(self) -> Mark:
        """Remember how far it has been written by now; see `passed`."""
        return [(segment, segment.end) for segment in self._queue if segment.box is self._box]

    def passed(self, mark: Mark) -> bool:
        """Say whether all that was written before `mark` was taken has drained."""
        return all(segment.start >= end or segment not in self._queue for segment, end in mark)

    def open(self) -> None:
        """Take a sub-folder of its own, and take up those of dead processes.

        Raises:
            ConfigurationError: the folder can't be made or written to.
        """
        try:
            self._box = self._make_box()
        except OSError as error:
            raise ConfigurationError(
                f"the journal's folder {self._folder} can't be used ({error.strerror}): let this user write"
                " to it, or choose another with KICKSERVE_JOURNAL_DIR"
            ) from error
        self._writer = Writer(self, fsync=self._fsync)
        self.recover_orphans()

    def close(self) -> None:
        """Write what waits, and unlock; what has not drained stays. May be called more than once."""
        if self._box is None or self._writer is None:
            return
        self._writer.close()
        self._seal()
        filled = {segment.box for segment in self._queue}
        for box in {self._box, *filled}:
            box.release(remove=box not in filled)
        self._box = self._writer = None
        self._queue = []
        self._size = 0

    async def append(self, payloads: Sequence[bytes]) -> None:
        """Keep payloads, all or none; return when they are in the file, or with `fsync` on the medium.

        All that is appended in one turn of the event loop goes in one write. Cancelling takes nothing back:
        they may be kept or not.

        Raises:
            Backlogged: too much waits already, the disk does not take it, or the journal is not open.
            ValueError: a payload is empty.
        """
        refusal = await self._put(payloads)
        if refusal is not None:
            raise refusal

    def write(self, payloads: Sequence[bytes]) -> Settled:
        """Keep payloads as `append` does, but at once: for who has gathered those of a turn already.

        Returns:
            Tells why they are not kept, or None. It is done when this returns, but for `fsync`.

        Raises:
            Backlogged: as `append`.
            ValueError: a payload is empty.
        """
        return self._put(payloads, at_once=True)

    def _put(self, payloads: Sequence[bytes], *, at_once: bool = False) -> Settled:
        frames = encode(payloads)
        writer = self._writer
        if writer is None:
            raise Backlogged("the journal is not open: the service is stopping; ask again when it is back")
        if self._size + writer.claimed + len(frames) > self._limit:
            raise Backlogged(
                f"{self._size + writer.claimed} bytes of predictions wait for the store, {len(frames)} more"
                f" would, and KICKSERVE_JOURNAL_MAX is {self._limit}: is the store away? /health says so"
            )
        return writer.put(frames, at_once=at_once)

    async def arrival(self) -> None:
        """Wait until something is undrained."""
        while not any(segment.left for segment in self._queue):
            self._arrived.clear()
            await self._arrived.wait()

    async def take(self, most: int, *, size: int = sys.maxsize) -> Group:
        """Wait until something is undrained, and return the oldest of it; what the dead left goes first.

        It comes again until `done` is called with the group.

        Args:
            most: how many payloads at most, from 1.
            size: bytes after which no more payloads are added.
        """
        while True:
            await self.arrival()
            segment = next(each for each in self._queue if each.left)
            try:
                group = self._read(segment, most, size)
            except OSError as error:
                self._postpone(segment, error)
                await asyncio.sleep(_PAUSE)
                continue
            if group.payloads:
                return group

    def done(self, group: Group) -> None:
        """Let go of a group that the store has. Saying so twice changes nothing."""
        segment = group.segment
        if segment not in self._queue or segment.start != group.start:
            return
        self._size -= group.end - group.start
        segment.advance(group.end)
        self._moved = time.monotonic()
        if segment.left:
            return
        if segment is not self._current:
            self._drop(segment)
        elif segment.end >= _WORTH_A_NEW_ONE and not (self._writer and self._writer.syncing):
            self._seal()

    def scan(self, *, others: bool = True) -> Iterator[bytes]:
        """Return every undrained payload of all processes, living ones too, oldest segment first.

        With `others` off, only those that this process is going to drain.

        To find a prediction look here first and then in the store: the other way round it may drain in
        between and be missed. Some that the store has already may come too.
        """
        mine = self._held()
        parts = [(segment.path, segment.start, segment.end) for segment in self._queue]
        for path in boxes(self._folder) if others else ():
            if path not in mine:
                parts += [(file, 0, sys.maxsize) for file in files_in(path)]
        return read_all(sorted(parts, key=lambda part: part[0].name))

    def recover_orphans(self) -> int:
        """Take up what dead processes left. To be called at intervals: processes die at any time.

        Returns:
            How many sub-folders with something in them were taken up.
        """
        if self._box is None:
            return 0
        if not self._box.stands():
            self._replace_box()
        mine = self._held()
        found = [
            segments for path in boxes(self._folder) if path not in mine and (segments := self._claim(path))
        ]
        self._queue[:0] = sorted(
            (segment for segments in found for segment in segments), key=lambda segment: segment.path.name
        )
        return len(found)

    def _held(self) -> set[Path]:
        own = set() if self._box is None else {self._box.path}
        return own | {segment.box.path for segment in self._queue}

    def _claim(self, path: Path) -> list[Segment]:
        """Return what a dead process left; nothing where it lives or left nothing."""
        try:
            segments = claim(path)
        except OSError as error:
            self._complain(path, "can't be taken up", error)
            return []
        if segments:
            length = sum(segment.left for segment in segments)
            self._grow(length)
            _log.info("took up %d bytes of predictions that a process left in %s", length, path)
        return segments

    def _make_box(self) -> Box:
        self._folder.mkdir(parents=True, exist_ok=True)
        box = Box.make(self._folder)
        if self._fsync:
            sync_folder(self._folder.parent)
            sync_folder(self._folder)
        return box

    def _replace_box(self) -> None:
        """Begin a new sub-folder: somebody removed the old one, or the lock in it."""
        self._seal()
        try:
            box = self._make_box()
        except OSError as error:
            self._complain(self._folder, "can't be made again", error)
            return
        _log.error("the journal's folder was removed, with what stood in it: began %s", box.path)
        if self._box is not None:
            self._box.release(remove=False)
        self._box = box

    def _read(self, segment: Segment, most: int, size: int) -> Group:
        """Read the next payloads of a segment; none where it had to be put out of the way."""
        try:
            group = next_group(segment, most, size)
            if not group.payloads:
                self._put_away(segment)
        except FileNotFoundError:
            _log.error("%s is gone, and %d bytes of predictions with it", segment.path, segment.left)
            self._stop_writing(segment)
            self._drop(segment)
            group = Group([], segment, segment.start, segment.start)
        return group

    def _put_away(self, segment: Segment) -> None:
        """Deal with a segment whose next frame is not whole. All before it has drained."""
        self._stop_writing(segment)
        segment.put_away(own=segment.box is self._box)
        self._drop(segment)

    def _postpone(self, segment: Segment, error: OSError) -> None:
        """Let others go first: this one can't be read at present."""
        self._complain(segment.path, "can't be read, and is tried again and again", error)
        self._queue.remove(segment)
        self._queue.append(segment)

    def _complain(self, path: Path, what: str, error: OSError) -> None:
        if path not in self._complained:
            self._complained.add(path)
            _log.error("of the journal, %s %s (%s)", path, what, error.strerror)

    def _seal(self) -> None:
        """Write no more to the current segment; delete it where all of it has drained."""
        if self._writer is not None:
            self._writer.finish()
        segment, self._current = self._current, None
        if segment is None:
            return
        segment.close()
        if not segment.left:
            self._drop(segment)

    def _stop_writing(self, segment: Segment) -> None:
        if segment is self._current:
            self._seal()

    def _drop(self, segment: Segment) -> None:
        if segment not in self._queue:
            return
        self._size -= segment.left
        self._queue.remove(segment)
        segment.remove()
        if segment.box is not self._box and all(each.box is not segment.box for each in self._queue):
            segment.box.release(remove=True)

    def _grow(self, length: int) -> None:
        if not self._size:
            self._moved = time.monotonic()
        self._size += length
        self._arrived.set()

    # What follows is called by the writer.

    def writable(self) -> Segment:
        """Return the segment to write to: a new one where there is none, or it is full."""
        if self._current is not None and self._current.end >= self._segment_bytes:
            self._seal()
        if self._current is None:
            if self._box is None:
                raise OSError(errno.EBADF, "the journal is not open")
            self._current = self._box.new_segment()
            self._queue.append(self._current)
        return self._current

    def written(self, segment: Segment, length: int) -> None:
        """Let readers go on to what was written."""
        segment.end = max(segment.end, len(PREAMBLE)) + length
        self._grow(length)
        if self._trouble is not None:
            self._trouble = None
            _log.warning("the journal in %s can be written again", self._folder)

    def failed(self, error: OSError) -> Backlogged:
        """Log once that the disk takes nothing, and return what to tell those who wait."""
        if self._trouble is None:
            _log.error(
                "the journal in %s can't be written (%s): predictions are refused until the disk takes them",
                self._folder,
                error.strerror,
            )
        self._trouble = str(error.strerror)
        refusal = Backlogged(
            f"the journal can't be written ({error.strerror}): the service's log names the disk to see to"
        )
        refusal.__cause__ = error
        return refusal

    def distrust(self) -> None:
        """Begin a new segment: after a sync that failed, a later one that succeeds proves nothing."""
        self._seal()
