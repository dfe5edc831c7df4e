"""Writes in one go what comes in during one turn of the event loop, or while the disk is busy with a sync."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future as ThreadFuture

    from kickserve.errors import Backlogged
    from kickserve.segments import Segment

    Settled = asyncio.Future[Backlogged | None]


class Target(Protocol):
    """What the writer asks for files, and tells what came of a write."""

    def writable(self) -> Segment:
        """Return the segment to write to; raises OSError where none can be begun."""
        ...

    def written(self, segment: Segment, length: int) -> None:
        """Frames of this many bytes stand in the segment now."""
        ...

    def failed(self, error: OSError) -> Backlogged:
        """Nothing of the write stands in the segment; returns what to tell those who wait for it."""
        ...

    def distrust(self) -> None:
        """Write no more to the segment: a sync of it failed."""
        ...


@dataclass(slots=True)  # not frozen: that makes it slow to make, and one is made for each write
class _Write:
    frames: bytes
    futures: list[Settled]


@dataclass(frozen=True, slots=True)
class _Flight:
    ended: ThreadFuture[None]
    segment: Segment
    write: _Write


class Writer:
    """Writes for the thread of one event loop.

    Args:
        target: where to.
        fsync: whether a write ends when the medium has it. It is waited for in a thread.

    Attributes:
        claimed: bytes on their way to the disk.
    """

    def __init__(self, target: Target, *, fsync: bool) -> None:
        self.claimed = 0
        self._target = target
        self._thread = ThreadPoolExecutor(1, "journal") if fsync else None
        self._waiting: list[tuple[bytes, Settled]] = []
        self._flight: _Flight | None = None

    @property
    def syncing(self) -> bool:
        """Whether a write is under way in the thread."""
        return self._flight is not None

    def put(self, frames: bytes, *, at_once: bool = False) -> Settled:
        """Have frames written; the future tells why they were not, or None.

        Args:
            frames: what to write.
            at_once: do not wait for what else comes in this turn of the event loop.
        """
        loop = asyncio.get_running_loop()
        future: Settled = loop.create_future()
        if not self._waiting and not at_once:
            loop.call_soon(self._flush)
        self.claimed += len(frames)
        self._waiting.append((frames, future))
        if at_once:
            self._flush()
        return future

    def _flush(self) -> None:
        """Write what waits, unless a sync is under way: then it goes when that has ended."""
        if self._flight is not None or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        write = _Write(b"".join([frames for frames, _ in waiting]), [future for _, future in waiting])
        try:
            segment = self._target.writable()
            if self._thread is not None:
                self._send(self._thread, segment, write)
                return
            segment.write(write.frames)
        except OSError as error:
            self._settle(None, write, error)
        else:
            self._settle(segment, write, None)

    def finish(self) -> None:
        """Wait until what is under way in the thread has ended, and settle it."""
        if self._flight is not None:
            self._land(self._flight.ended)

    def close(self) -> None:
        """Write all that waits, and end the thread."""
        while self._flight or self._waiting:
            self.finish()
            self._flush()
        if self._thread is not None:
            self._thread.shutdown()

    def _send(self, thread: ThreadPoolExecutor, segment: Segment, write: _Write) -> None:
        loop = write.futures[0].get_loop()
        ended = thread.submit(segment.write_and_sync, write.frames)
        self._flight = _Flight(ended, segment, write)
        ended.add_done_callback(lambda ended: loop.call_soon_threadsafe(self._land, ended))

    def _land(self, ended: ThreadFuture[None]) -> None:
        flight = self._flight
        if flight is None or flight.ended is not ended:  # `finish` was first
            return
        wait([ended])
        self._flight = None
        error = ended.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        self._settle(flight.segment, flight.write, error)
        if error is not None:
            self._target.distrust()
        if self._waiting:
            # Behind those that this write woke, so that what they append at once goes in the same group.
            self._waiting[0][1].get_loop().call_soon(self._flush)

    def _settle(self, segment: Segment | None, write: _Write, error: OSError | None) -> None:
        self.claimed -= len(write.frames)
        refusal = None
        if error is not None:
            refusal = self._target.failed(error)
        elif segment is not None:
            self._target.written(segment, len(write.frames))
        for future in write.futures:
            if not future.done():  # whoever waited may have been cancelled
                future.set_result(refusal)
