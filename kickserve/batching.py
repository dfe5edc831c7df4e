"""Shares the event loop: gathers what comes in one turn, gives turns to other tasks, ends tasks."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from concurrent.futures import Executor, Future

_TURNS: Final = 4
_LOOK: Final = 0.001  # seconds between two looks whether a thread is free
_ENDING: Final = 0.5  # seconds that a cancelled task may take to end

_log = logging.getLogger(__name__)
_abandoned: set[asyncio.Future[Any]] = set()  # held, or they may vanish before they have ended

Item = TypeVar("Item")
Found = TypeVar("Found")
Answer = TypeVar("Answer")
Given_contra = TypeVar("Given_contra", contravariant=True)


class Promise(Protocol[Given_contra]):
    """What takes an answer: a future, which brings it in a later turn of the event loop, or quicker ones."""

    def done(self) -> bool:
        """Return whether an answer is wanted no more."""

    def set_result(self, result: Given_contra, /) -> None:
        """Take the answer."""

    def set_exception(self, exception: Exception, /) -> None:
        """Take the reason why there is none."""


class Pending(Protocol):
    """What items wait for, such as a disk: a future, or what needs none."""

    def done(self) -> bool:
        """Return whether they wait no more."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None:
        """Call a function when they wait no more."""


class Batcher(Generic[Item, Found, Answer]):
    """Gathers items and has them worked on together: kicks for a model, frames for a disk.

    It never waits for more to come. Where items come one by one, each is worked on at once; after a turn of
    the event loop that brought several, those of a turn go together. Where the work is done in a thread, the
    items that come meanwhile go together as soon as it is free. Where items wait for something else, such as
    a disk, further ones gather until that is done, and for as long as each turn brings more.

    Args:
        work: takes items, and returns what `finish` needs of them; called in the thread, where there is one.
        finish: takes items, the promise of each, and what `work` returned; gives each promise its answer
            (`resolve`), at once or later. Called in the thread of the event loop. Without a thread of its own
            it may return what the items wait for, such as a disk: further ones then wait too.
        limit: how many items go together, from 1.
        thread: an executor with one thread, for work that takes its time; None for the event loop's own.
        rescue: takes the error of work in the thread and the number of items, and returns what `work` would
            have, or raises; raises by default.
        alone: works on one item and finishes it, where that is quicker; not for a thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Found],
        finish: Callable[[Sequence[Item], Sequence[Promise[Answer]], Found], Pending | None],
        *,
        limit: int,
        thread: Executor | None = None,
        rescue: Callable[[BaseException, int], Found] | None = None,
        alone: Callable[[Item, Promise[Answer]], Pending | None] | None = None,
    ) -> None:
        self._work = work
        self._finish = finish
        self._limit = limit
        self._thread = thread
        self._rescue = rescue
        self._finish_alone = alone
        self._items: list[Item] = []
        self._promises: list[Promise[Answer]] = []
        self._flight: Pending | None = None  # the work that the thread does, or what items wait for
        self._context = copy_context()  # in the thread, work is done in the context of its first item
        self._alone = True  # whether the last turn brought one item at most
        self._count = 0  # items that this turn has brought by now
        self._seen = 0  # of them, those of turns before, which wait for turns that bring more
        self._waits = False  # whether the last items have waited for something
        self._ending = False  # whether the end of the turn is planned

    @property
    def busy(self) -> bool:
        """Whether a thread is at work."""
        return self._flight is not None

    def put(self, item: Item, promise: Promise[Answer]) -> None:
        """Add an item; a promise takes its answer, or what `work` or `finish` raised for all of its batch.

        To cancel a promise changes nothing for the item.
        """
        self._count += 1
        if not self._items and self._thread is not None:
            self._context = copy_context()
        if self._alone and self._flight is None and not self._items:
            self._start([item], [promise])
        else:
            self._items.append(item)
            self._promises.append(promise)
        if not self._ending:  # last: a lone answer has left by now
            self._end_turn_soon()

    async def drain(self) -> None:
        """Wait until the thread has worked on everything put so far."""
        while self._items or self._flight is not None:  # noqa: ASYNC110  at the very end, and no more
            await asyncio.sleep(_LOOK)

    def _end_turn_soon(self) -> None:
        self._ending = True
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._ending = False
        if self._flight is not None:
            return  # it ends with that
        if self._waits and self._count > self._seen and len(self._items) < self._limit:
            self._seen = self._count
            self._end_turn_soon()
            return
        self._alone = self._count <= 1
        self._count = self._seen = 0
        self._flush()

    def _flush(self) -> None:
        """Work on the items gathered, `limit` at a time."""
        while self._items and self._flight is None:
            items, self._items = self._items[: self._limit], self._items[self._limit :]
            promises, self._promises = self._promises[: self._limit], self._promises[self._limit :]
            self._start(items, promises)

    def _start(self, items: Sequence[Item], promises: Sequence[Promise[Answer]]) -> None:
        if self._thread is None:
            self._run(items, promises)
        else:
            self._send(self._thread, items, promises)

    def _run(self, items: Sequence[Item], promises: Sequence[Promise[Answer]]) -> None:
        try:
            if self._finish_alone is not None and len(items) == 1:
                flight = self._finish_alone(items[0], promises[0])
            else:
                flight = self._finish(items, promises, self._work(items))
        except Exception as error:  # noqa: BLE001  a bug must leave no promise undone
            reject(promises, error)
        else:
            self._waits = flight is not None and not flight.done()
            if flight is not None and self._waits:
                self._flight = flight
                flight.add_done_callback(self._land)

    def _land(self, _: object = None) -> None:
        self._flight = None
        # Not at once: what the answers lead to in the next turn may go in the same batch.
        if not self._ending:
            self._end_turn_soon()

    def _send(self, thread: Executor, items: Sequence[Item], promises: Sequence[Promise[Answer]]) -> None:
        loop = asyncio.get_running_loop()

        def land(flight: Future[Found]) -> None:
            self._flight = None  # the thread is free, whatever becomes of the items
            try:
                error = self._rescue and flight.exception()
                found = self._rescue(error, len(items)) if self._rescue and error else flight.result()
                self._finish(items, promises, found)
            except Exception as error:  # noqa: BLE001  as above
                reject(promises, error)
            self._land()

        landing = [land]  # taken out of it: the thread holds its last future, which must not hold the thread

        def tell(flight: Future[Found]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(landing.pop(), flight)

        try:
            # Not `run_in_executor`, whose future brings the result two turns later.
            self._flight = flight = thread.submit(self._context.run, self._work, items)
        except RuntimeError as error:  # the thread has ended
            reject(promises, error)
        else:
            flight.add_done_callback(tell)


def resolve(promises: Sequence[Promise[Answer]], answers: Sequence[Answer]) -> None:
    """Give promises their answers, one to one; pass over cancelled ones."""
    if len(promises) != len(answers):
        raise ValueError(f"{len(answers)} answers to {len(promises)} questions")
    for promise, answer in zip(promises, answers):  # noqa: B905  strict costs more than all the rest
        try:
            promise.set_result(answer)
        except asyncio.InvalidStateError:  # it was cancelled
            pass
        except Exception:  # noqa: BLE001  one that can't be given must not keep back the others
            _log.exception("an answer could not be given")


def reject(promises: Iterable[Promise[Answer]], error: Exception) -> None:
    """Give promises that have no answer the reason why there is none."""
    for promise in promises:
        if not promise.done():
            promise.set_exception(error)


async def yield_to_loop() -> None:
    """Give everything else on the event loop some turns, after one of a long answer.

    With one turn each, a stream takes most of a loop that answers some predictions a turn: at half load it
    delays them for as long as it lasts. On an idle loop these turns take microseconds.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def within(seconds: float, work: Awaitable[Answer]) -> Answer:
    """Return what `work` brings; where it takes too long, or this is cancelled, cancel it and don't wait.

    `asyncio.timeout` waits until cancelled work has ended: for ever, where that waits for a frozen server.

    Raises:
        TimeoutError: it takes longer.
    """
    task = asyncio.ensure_future(work)
    try:
        if not (await asyncio.wait([task], timeout=seconds))[0]:
            raise TimeoutError
    finally:
        if not task.done():
            _abandoned.add(task)
            task.add_done_callback(_forget)
            task.cancel()
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio logs that it was never retrieved


async def cancel_task(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, where there is one, and wait half a second for its end; log its error."""
    if task is None:
        return
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=_ENDING)
    if not done:
        _log.warning("a background task does not end, and is left behind: %s", task.get_name())
    elif not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a background task failed: %s", task.get_name(), exc_info=error)
