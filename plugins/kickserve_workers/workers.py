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

STABLE_AFTER: Final = 10.0  # seconds: workers that end sooner, several in a row, are replaced after a pause
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_SHORT_RUNS: Final = 10  # that are counted; the pause is at its longest by then
_PIECE: Final = 65_536
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RELOAD_SIGNAL: Final = signal.SIGHUP  # load the model anew

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
    _pipe: int

    def ready(self, message: bytes) -> None:
        """Report to the supervisor that the worker accepts requests, with a message for its output."""
        os.write(self._pipe, message)
        os.close(self._pipe)


@dataclass(slots=True)
class WorkerSlot:
    """A place for one worker and its replacements, with its socket."""

    number: int
    listener: socket.socket
    start_at: float = math.inf  # when to start the next worker, by time.monotonic
    pid: int | None = None
    started: float = 0.0
    short_runs: int = 0  # workers in a row that ended within STABLE_AFTER
    pipe: int | None = None  # the worker writes its message to it, and closes it when it is ready
    message: bytes = b""
    ready: bool = False


class Supervisor:
    """Keeps a worker in every slot until SIGTERM or SIGINT.

    Args:
        listeners: a socket for each worker, all on the same port, or one socket for all. The supervisor keeps
            them open: connections in the queue of a dead worker wait for its replacement.
        all_ready: called once, when all workers accept requests, with the message of the first.
        patience: seconds that workers may take to end; then they are killed.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], all_ready: Callable[[bytes], None], patience: float
    ) -> None:
        self._slots = [WorkerSlot(number, listener) for number, listener in enumerate(listeners)]
        self._all_ready: Callable[[bytes], None] | None = all_ready
        self._patience = patience
        self._kill_at = math.inf  # by time.monotonic
        self._first_ready = False
        self._stopping = False
        self._code = 0
        # Never written to: it closes when the supervisor dies, whatever the cause.
        self._lifeline, self._lifeline_writer = os.pipe()
        self._signals = _Signals()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals.descriptor, selectors.EVENT_READ, self._handle_signals)

    def run(self) -> Worker | int:
        """Serve until SIGTERM or SIGINT.

        As `os.fork` does, it returns in several processes.

        Returns:
            In each worker, at once, the worker. In the supervisor, at the end, the exit code: 0
            where all workers ended well; that of the first worker where it could not start.
        """
        gc.collect()
        gc.freeze()  # so that collections in workers leave the pages alone that all of them share
        self._slots[0].start_at = 0.0  # alone at first: where it can't start, the others can't either
        while True:
            for slot in self._due():
                if (worker := self._fork(slot)) is not None:
                    return worker
            if self._stopping and all(slot.pid is None for slot in self._slots):
                return self._code
            if time.monotonic() >= self._kill_at:
                _log.error(
                    "workers do not end: they are killed, and what waits for the store is in the journal"
                )
                self._kill()
            for key, _ in self._selector.select(self._timeout()):
                key.data()

    def _due(self) -> list[WorkerSlot]:
        now = time.monotonic()
        return [slot for slot in self._slots if slot.start_at <= now and not self._stopping]

    def _timeout(self) -> float | None:
        due = self._kill_at if self._stopping else min(slot.start_at for slot in self._slots)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _fork(self, slot: WorkerSlot) -> Worker | None:
        """Fork a worker. Returns the worker in the new process, None in the supervisor."""
        slot.pipe, writer = os.pipe()
        slot.start_at, slot.started, slot.message = math.inf, time.monotonic(), b""
        sys.stdout.flush()  # what stands in the buffers would be written by both
        sys.stderr.flush()
        with _Signals.blocked():  # a signal for the worker must not reach the pipe of the supervisor
            try:
                slot.pid = os.fork()
            except OSError as error:
                os.close(writer)
                self._close_pipe(slot)
                _log.error("worker %d can't be started: %s", slot.number + 1, error.strerror)
                self._replace_later(slot)
                return None
            if slot.pid == 0:
                return self._become_worker(slot, writer)
        os.close(writer)
        self._selector.register(slot.pipe, selectors.EVENT_READ, partial(self._read_message, slot))
        return None

    def _become_worker(self, slot: WorkerSlot, writer: int) -> Worker:
        """Close what belongs to the supervisor and to other workers."""
        self._selector.close()
        self._signals.detach()
        os.close(self._lifeline_writer)
        for each in self._slots:
            if each.pipe is not None:
                os.close(each.pipe)
            if each.listener is not slot.listener:
                each.listener.close()
        return Worker(slot.number, slot.listener, self._lifeline, writer)

    def _read_message(self, slot: WorkerSlot) -> None:
        """Read from the pipe of a worker, which accepts requests once it has closed the pipe."""
        if slot.pipe is None:
            return
        if piece := os.read(slot.pipe, _PIECE):
            slot.message += piece
            return
        self._close_pipe(slot)
        slot.ready = bool(slot.message)
        if slot.ready and not self._first_ready:
            self._first_ready = True
            for each in self._slots[1:]:
                each.start_at = 0.0
        if self._all_ready is not None and not self._stopping and all(each.ready for each in self._slots):
            self._all_ready(self._slots[0].message)
            self._all_ready = None

    def _close_pipe(self, slot: WorkerSlot) -> None:
        if slot.pipe is not None:
            if slot.pipe in self._selector.get_map():
                self._selector.unregister(slot.pipe)
            os.close(slot.pipe)
            slot.pipe = None

    def _handle_signals(self) -> None:
        for number in self._signals.read():
            if number in _STOP_SIGNALS:
                self._stop()
            elif number == _RELOAD_SIGNAL and not self._stopping:
                self._signal_workers(_RELOAD_SIGNAL)
        for slot in self._slots:
            if slot.pid is not None:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._reap(slot, pid, os.waitstatus_to_exitcode(status))

    def _stop(self) -> None:
        """Stop all workers. A second signal kills them: the journal has the predictions that they leave."""
        if self._stopping:
            self._kill()
        else:
            self._close()
            self._signal_workers(signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_at = math.inf
        self._signal_workers(signal.SIGKILL)

    def _close(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + self._patience
        for slot in self._slots:
            slot.listener.close()

    def _signal_workers(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.pid is not None:
                os.kill(slot.pid, number)

    def _reap(self, slot: WorkerSlot, pid: int, code: int) -> None:
        """Note that a worker has ended, and replace it."""
        slot.pid, slot.ready = None, False
        self._close_pipe(slot)
        if self._stopping:
            self._code = self._code or int(code != 0)
        elif not self._first_ready:
            self._close()
            self._code = code if code > 0 else 1
            if code <= 0:  # a worker that could not start has logged the reason
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
        """Schedule a replacement: at once, or after a pause where workers end soon after their start.

        Returns:
            The pause in seconds.
        """
        now = time.monotonic()
        if now - slot.started >= STABLE_AFTER:
            slot.short_runs = 0
        doubled = _FIRST_PAUSE * 2 ** (slot.short_runs - 1)
        pause = 0.0 if slot.short_runs == 0 else min(doubled, _LONGEST_PAUSE)
        # Bounded: otherwise the power would exceed a float after some hours of short runs.
        slot.short_runs = min(slot.short_runs + 1, _SHORT_RUNS)
        slot.start_at = now + pause
        return pause


class _Signals:
    """Received signals, as bytes in a pipe that a selector can watch.

    Attributes:
        descriptor: readable when a signal has arrived.
    """

    _ALL: Final = (*_STOP_SIGNALS, _RELOAD_SIGNAL, signal.SIGCHLD)

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for each in self._ALL:
            signal.signal(each, _pass)

    def read(self) -> bytes:
        """Return the numbers of received signals."""
        return os.read(self.descriptor, _PIECE)

    def detach(self) -> None:
        """Drop the pipe in a worker; until it serves, SIGTERM ends it at once."""
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(_RELOAD_SIGNAL, signal.SIG_IGN)  # until it serves: what it loads is the newest anyway
        signal.signal(signal.SIGTERM, _leave)

    @classmethod
    @contextmanager
    def blocked(cls) -> Iterator[None]:
        """Hold signals back until the block ends."""
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
