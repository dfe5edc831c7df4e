"""Calls with a time limit: a model may be anyone's code, and a call of it may never end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
import weakref
from concurrent.futures import Executor, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from kickserve.errors import PredictionTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = tuple[Future[Any], Callable[[], Any]]

P = ParamSpec("P")
Result = TypeVar("Result")

_MOST_ABANDONED: Final = 3  # threads whose calls go on, at most: each may cost a processor
_LOOKS: Final = 10  # within the limit
_SHOWN: Final = 300.0  # seconds for which health shows that a call did not end
_ENDING: Final = 1.0  # seconds that a cancelled call may take to end when the process does

_log = logging.getLogger(__name__)


class LimitedThread(Executor):
    """One thread for calls that may never end: it is given up, and another takes its place.

    Nothing waits for a thread that was given up, not even the end of the process. It ends by itself as soon
    as it runs Python code again. Code that holds Python's lock for ever can't be given up.

    Args:
        name: of the thread.
        limit: seconds that a call may take.
        cancel: called to end the call in progress, where that is possible.
    """

    def __init__(self, name: str, limit: float, cancel: Callable[[], object] = lambda: None) -> None:
        self._name = name
        self._limit = limit
        self._cancel = cancel
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._abandoned: list[_Worker] = []
        self._timed_out_at = -_SHOWN
        self._closed = self._watched = False
        self._worker: _Worker | None = None
        self._newest: Future[Any] = Future()  # calls are made in their order: once it is done, all are
        weakref.finalize(self, self._calls.put, None)  # the thread ends with the last reference to this

    def submit(self, call: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        """Call a function in the thread; to be called in an event loop, which watches the time.

        Returns:
            Brings the result, or PredictionTimeout once the limit has passed.

        Raises:
            RuntimeError: the thread was shut down.
        """
        if self._closed:
            raise RuntimeError("the thread has ended")
        future: Future[Result] = Future()
        if self._worker is None and self.works:
            self._worker = _Worker(self._name, self._calls)
        if self._worker is None:
            future.set_exception(self._timeout())
        else:
            self._calls.put((future, partial(call, *args, **kwargs)))
            self._newest = future
            if not self._watched:
                self._watched = True
                asyncio.get_running_loop().call_later(self._limit / _LOOKS, self._watch)
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """End the thread; a call that can't be cancelled is left behind."""
        self._closed = True
        self._refuse_waiting()
        self._calls.put(None)
        if self._worker is not None and self._worker.running is not None:
            self._cancel()
            self._worker.thread.join(_ENDING)

    @property
    def state(self) -> str:
        """`ok`, or that calls did not end: for as long as they go on, and some minutes after."""
        left = self._count_abandoned()
        if not left and time.monotonic() - self._timed_out_at > _SHOWN:
            return "ok"
        return f"{self._timeout()}{f' (calls that still run: {left})' if left else ''}"

    @property
    def works(self) -> bool:
        """Whether there may be a thread for further calls."""
        return self._count_abandoned() < _MOST_ABANDONED

    def _timeout(self) -> PredictionTimeout:
        return PredictionTimeout(f"the model did not answer within {self._limit:g} s")

    def _count_abandoned(self) -> int:
        self._abandoned = [worker for worker in self._abandoned if worker.thread.is_alive()]
        return len(self._abandoned)

    def _watch(self) -> None:
        running = None if self._worker is None else self._worker.running
        if self._worker is not None and running is not None and time.monotonic() - running[1] > self._limit:
            self._abandon(self._worker, running[0])
        self._watched = not self._closed and (running is not None or not self._newest.done())
        if self._watched:
            asyncio.get_running_loop().call_later(self._limit / _LOOKS, self._watch)

    def _abandon(self, worker: _Worker, future: Future[Any]) -> None:
        """Go on with another thread, or refuse all calls where too many are abandoned."""
        try:
            future.set_exception(self._timeout())  # before the call gets to know that it is given up
        except InvalidStateError:  # it ended just now
            return
        worker.abandon()
        self._cancel()
        self._timed_out_at = time.monotonic()
        self._abandoned.append(worker)
        self._worker = _Worker(self._name, self._calls) if self.works else None
        _log.error("%s, and is given up: its thread ends when the call does", future.exception())
        if self._worker is None:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        with suppress(Empty):
            while (waiting := self._calls.get_nowait()) is not None:
                if waiting[0].set_running_or_notify_cancel():
                    waiting[0].set_exception(self._timeout())


class _Worker:
    """A thread, and the call in progress: its future, and when it began by `time.monotonic`."""

    def __init__(self, name: str, calls: SimpleQueue[Call | None]) -> None:
        self.running: tuple[Future[Any], float] | None = None
        self._is_abandoned = False
        self.thread = threading.Thread(target=self._work, args=(calls,), name=name, daemon=True)
        self.thread.start()

    def _work(self, calls: SimpleQueue[Call | None]) -> None:
        while not self._is_abandoned and (taken := calls.get()) is not None:
            future, call = taken
            if future.set_running_or_notify_cancel():
                self.running = future, time.monotonic()
                _carry_out(call, future)
                self.running = None
            del taken, future, call  # nothing of a call is held while the next is waited for

    def abandon(self) -> None:
        """End the thread by an exception as soon as it runs Python code."""
        self._is_abandoned = True
        identity, exception = ctypes.c_ulong(self.thread.ident or 0), ctypes.py_object(SystemExit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, exception)


def _carry_out(call: Callable[[], Any], future: Future[Any]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the caller's
        with suppress(InvalidStateError):  # the call was given up meanwhile
            future.set_exception(error)
    else:
        with suppress(InvalidStateError):
            future.set_result(result)


def call_within(
    limit: float, call: Callable[[], Result], cancel: Callable[[], object] = lambda: None
) -> Result:
    """Call a function in a thread of its own, and wait for its result.

    Args:
        limit: seconds that it may take.
        call: raises whatever it likes.
        cancel: called to end the call after that, where that is possible.

    Raises:
        TimeoutError: it did not end in time; its thread is given up.
    """
    calls: SimpleQueue[Call | None] = SimpleQueue()
    future: Future[Result] = Future()
    calls.put((future, call))
    calls.put(None)
    worker = _Worker("trial", calls)
    try:
        return future.result(limit)
    except TimeoutError:
        if future.done():  # it raised one of its own
            raise
        cancel()
        worker.abandon()
        worker.thread.join(_ENDING)
        raise TimeoutError(f"it did not end within {limit:g} s") from None
