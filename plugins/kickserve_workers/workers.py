"""The supervisor of workers: it forks them, forwards signals, and replaces workers that die."""

from __future__ import annotations

import gc
import logging
import math
import os
import selectors
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

STEADY: Final = (
    10.0  # seconds: a worker that does not live so long, time and again, is replaced after a pause
)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_SHORT_LIVES: Final = 10  # that are counted; the pause is at its longest by then
_PIECE: Final = 65_536
_HEARD: Final = (signal.SIGTERM, signal.SIGINT)
_AGAIN: Final = signal.SIGHUP  # load the model anew

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process, as it finds itself after the fork.

    Attributes:
        number: from 0; a replacement keeps the number.
        listener: its listening socket.
        lifeline: a descriptor that becomes readable when the supervisor is gone.
    """

    number: int
    listener: socket.socket
    lifeline: int
    _says: int

    def ready(self, message: bytes) -> None:
        """Report to the supervisor that the worker accepts requests, with a message for its output."""
        os.write(self._says, message)
        os.close(self._says)


@dataclass(slots=True)
class WorkerSlot:
    """A place for one worker and its replacements, with its socket."""

    number: int
    listener: socket.socket
    due: float = math.inf  # when the next one is to begin
    pid: int | None = None
    began: float = 0.0
    short_lives: int = 0  # of workers one after the other
    hears: int | None = None  # what the worker says comes out here; at its end it is ready
    said: bytes = b""
    ready: bool = False


class Supervisor:
    """Keeps a worker in every slot until SIGTERM or SIGINT.

    Args:
        listeners: a socket for each worker, all on the same port, or one socket for all. The supervisor keeps
            them open: connections in the queue of a dead worker wait for its replacement.
        all_ready: called once, when all workers accept requests, with the message of the first.
    """

    def __init__(self, listeners: Sequence[socket.socket], all_ready: Callable[[bytes], None]) -> None:
        self._slots = [WorkerSlot(number, listener) for number, listener in enumerate(listeners)]
        self._all_ready: Callable[[bytes], None] | None = all_ready
        self._first_ready = False
        self._stopping = False
        self._code = 0
        # Never written to: it closes when the supervisor dies, whatever the cause.
        self._lifeline, self._anchor = os.pipe()
        self._signals = _Signals()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals.descriptor, selectors.EVENT_READ, self._hear_signals)

    def run(self) -> Worker | int:
        """Serve until SIGTERM or SIGINT.

        As `os.fork` does, it returns in several processes.

        Returns:
            In each worker, at once, the worker. In the supervisor, at the end, the exit code: 0
            where all workers ended well; that of the first worker where it could not start.
        """
        gc.collect()
        gc.freeze()  # so that collections in workers leave the pages alone that all of them share
        self._slots[0].due = 0.0  # alone: what it can't do the others can't either
        while True:
            for slot in self._due():
                if (worker := self._fork(slot)) is not None:
                    return worker
            if self._stopping and all(slot.pid is None for slot in self._slots):
                return self._code
            for key, _ in self._selector.select(self._patience()):
                key.data()

    def _due(self) -> list[WorkerSlot]:
        now = time.monotonic()
        return [slot for slot in self._slots if slot.due <= now and not self._stopping]

    def _patience(self) -> float | None:
        due = min(slot.due for slot in self._slots)
        return None if self._stopping or due == math.inf else max(0.0, due - time.monotonic())

    def _fork(self, slot: WorkerSlot) -> Worker | None:
        """Fork a worker. Returns the worker in the new process, None in the supervisor."""
        slot.hears, says = os.pipe()
        slot.due, slot.began, slot.said = math.inf, time.monotonic(), b""
        sys.stdout.flush()  # what stands in the buffers would be written by both
        sys.stderr.flush()
        with _Signals.blocked():  # a signal for the worker must not ring at the supervisor's
            try:
                slot.pid = os.fork()
            except OSError as error:
                os.close(says)
                self._end_hearing(slot)
                _log.error("worker %d can't be started: %s", slot.number + 1, error.strerror)
                self._replace_later(slot)
                return None
            if slot.pid == 0:
                return self._become_worker(slot, says)
        os.close(says)
        self._selector.register(slot.hears, selectors.EVENT_READ, partial(self._hear, slot))
        return None

    def _become_worker(self, slot: WorkerSlot, says: int) -> Worker:
        """Let go of all that is the supervisor's and other workers'."""
        self._selector.close()
        self._signals.forget()
        os.close(self._anchor)
        for each in self._slots:
            if each.hears is not None:
                os.close(each.hears)
            if each.listener is not slot.listener:
                each.listener.close()
        return Worker(slot.number, slot.listener, self._lifeline, says)

    def _hear(self, slot: WorkerSlot) -> None:
        """Take in what a worker says; when it has said it all it takes requests."""
        if slot.hears is None:
            return
        if piece := os.read(slot.hears, _PIECE):
            slot.said += piece
            return
        self._end_hearing(slot)
        slot.ready = bool(slot.said)
        if slot.ready and not self._first_ready:
            self._first_ready = True
            for each in self._slots[1:]:
                each.due = 0.0
        if self._all_ready is not None and not self._stopping and all(each.ready for each in self._slots):
            self._all_ready(self._slots[0].said)
            self._all_ready = None

    def _end_hearing(self, slot: WorkerSlot) -> None:
        if slot.hears is not None:
            if slot.hears in self._selector.get_map():
                self._selector.unregister(slot.hears)
            os.close(slot.hears)
            slot.hears = None

    def _hear_signals(self) -> None:
        for number in self._signals.read():
            if number in _HEARD:
                self._stop(number)
            elif number == _AGAIN and not self._stopping:
                self._tell(_AGAIN)
        for slot in self._slots:
            if slot.pid is not None:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._reap(slot, pid, os.waitstatus_to_exitcode(status))

    def _stop(self, number: int) -> None:
        """Have all workers end. Ctrl-C once more does not wait for them: the journal has what they leave."""
        if not self._stopping:
            self._close()
            self._tell(signal.SIGTERM)
        elif number == signal.SIGINT:
            self._tell(signal.SIGKILL)

    def _close(self) -> None:
        self._stopping = True
        for slot in self._slots:
            slot.listener.close()

    def _tell(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.pid is not None:
                os.kill(slot.pid, number)

    def _reap(self, slot: WorkerSlot, pid: int, code: int) -> None:
        """Deal with a worker that has ended."""
        slot.pid, slot.ready = None, False
        self._end_hearing(slot)
        if self._stopping:
            self._code = self._code or int(code != 0)
        elif not self._first_ready:
            self._close()
            self._code = code if code > 0 else 1
            if code <= 0:  # one that could not start has said so itself
                _log.error("worker 1 (process %d) %s before it took requests", pid, _ending(code))
        else:
            pause = self._replace_later(slot)
            when = f" in {pause:g} s" if pause else ""
            _log.error(
                "worker %d (process %d) %s: a new worker replaces it%s",
                slot.number + 1,
                pid,
                _ending(code),
                when,
            )

    def _replace_later(self, slot: WorkerSlot) -> float:
        """Have a new worker begin: at once, or where several have ended soon, after a pause of seconds."""
        now = time.monotonic()
        if now - slot.began >= STEADY:
            slot.short_lives = 0
        doubled = _FIRST_PAUSE * 2 ** (slot.short_lives - 1)
        pause = 0.0 if slot.short_lives == 0 else min(doubled, _LONGEST_PAUSE)
        # Not on and on: after some hours of short lives the power would be beyond a float.
        slot.short_lives = min(slot.short_lives + 1, _SHORT_LIVES)
        slot.due = now + pause
        return pause


class _Signals:
    """Signals as bytes that can be waited for together with other descriptors.

    Attributes:
        descriptor: readable when one has come.
    """

    _ALL: Final = (*_HEARD, _AGAIN, signal.SIGCHLD)

    def __init__(self) -> None:
        self.descriptor, self._rings = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._rings, False)
        signal.set_wakeup_fd(self._rings, warn_on_full_buffer=False)
        for each in self._ALL:
            signal.signal(each, _pass)

    def read(self) -> bytes:
        """Return the numbers of received signals."""
        return os.read(self.descriptor, _PIECE)

    def forget(self) -> None:
        """Be a worker's: nothing rings any more, and until it serves, SIGTERM ends it at once."""
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._rings)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(_AGAIN, signal.SIG_IGN)  # until it serves: what it loads is the newest anyway
        signal.signal(signal.SIGTERM, _leave)

    @classmethod
    @contextmanager
    def blocked(cls) -> Iterator[None]:
        """Have signals wait until the block ends."""
        signal.pthread_sigmask(signal.SIG_BLOCK, cls._ALL)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, cls._ALL)


def _pass(*_: object) -> None:
    pass


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"
