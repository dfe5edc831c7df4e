"""Shares the event loop: gathers what comes in one turn, gives turns to others, ends tasks."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

_TURNS: Final = 4

_log = logging.getLogger(__name__)

Question = TypeVar("Question")
Found = TypeVar("Found")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Found, Answer]):
    """Gathers questions and has them answered in one go, one to one.

    It never waits for more to come. Where questions come one by one, each is answered on the spot; where
    the last turn of the event loop brought several, those of a turn go together. What comes while a slow
    model is busy goes together as soon as it is free.

    Args:
        ask: finds the answers to many questions; where it is slow, in a thread.
        conclude: makes answers of what was found, and gives them, in the order of the questions, to the
            function that it gets: at once or later, in the event loop's thread. An error in one of them is an
            answer too; what these two functions raise, all get.
        most: how many questions go together, from 1.
        executor: of one thread, where `ask` is slow; else it is called in the event loop.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Question]], Found],
        conclude: Callable[[Sequence[Question], Found, Callable[[Sequence[Answer]], None]], None],
        *,
        most: int,
        executor: Executor | None = None,
    ) -> None:
        self._ask = ask
        self._conclude = conclude
        self._most = most
        self._executor = executor
        self._questions: list[Question] = []
        self._futures: list[asyncio.Future[Answer]] = []
        self._busy = False
        self._retired = False
        self._context = copy_context()  # in a thread, the questions are those of the first who asked
        self._lone = True  # whether the last turn brought one question at most
        self._put = 0  # questions that this turn has brought by now

    def put(self, question: Question) -> asyncio.Future[Answer]:
        """Ask; the future brings the answer. It may be cancelled, which takes nothing back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._put:
            loop.call_soon(self._end_turn)
        self._put += 1
        if self._lone and self._executor is None:
            self._settle([question], partial(self._ask, [question]), [future])
        else:
            if self._executor is not None and not self._futures:
                self._context = copy_context()
            self._questions.append(question)
            self._futures.append(future)
        return future

    def retire(self) -> None:
        """Let go of the executor as soon as what was put by now is answered."""
        self._retired = True
        self._let_go()

    def _let_go(self) -> None:
        if self._retired and self._executor is not None and not (self._futures or self._busy):
            self._executor.shutdown(wait=False)

    def _end_turn(self) -> None:
        self._lone = self._put <= 1
        self._put = 0
        self._flush()

    def _flush(self) -> None:
        """Have the questions answered that have been gathered, `most` at a time."""
        while self._futures and not self._busy:
            questions, self._questions = self._questions[: self._most], self._questions[self._most :]
            futures, self._futures = self._futures[: self._most], self._futures[self._most :]
            if self._executor is None:
                self._settle(questions, partial(self._ask, questions), futures)
            else:
                self._send(self._executor, questions, futures)

    def _send(
        self,
        executor: Executor,
        questions: Sequence[Question],
        futures: Sequence[asyncio.Future[Answer]],
    ) -> None:
        self._busy = True
        loop = asyncio.get_running_loop()
        try:
            sent = executor.submit(self._context.run, self._ask, questions)
        except RuntimeError as error:  # it has been shut down
            sent = ThreadFuture()
            sent.set_exception(error)

        def land(sent: ThreadFuture[Found]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._land, questions, sent, futures)

        sent.add_done_callback(land)

    def _land(
        self,
        questions: Sequence[Question],
        found: ThreadFuture[Found],
        futures: Sequence[asyncio.Future[Answer]],
    ) -> None:
        self._busy = False
        self._flush()
        self._settle(questions, found.result, futures)
        self._let_go()

    def _settle(
        self,
        questions: Sequence[Question],
        find: Callable[[], Found],
        futures: Sequence[asyncio.Future[Answer]],
    ) -> None:
        def answer(answers: Sequence[Answer]) -> None:
            for future, each in zip(futures, answers, strict=True):
                if not future.done():  # whoever asked may have been cancelled
                    future.set_result(each)

        try:
            self._conclude(questions, find(), answer)
        except Exception as error:  # noqa: BLE001  nobody may wait for ever because of a bug
            for future in futures:
                if not future.done():
                    future.set_exception(error)


async def yield_to_loop() -> None:
    """Give everything else on the event loop some turns, after one of a long answer.

    With one turn each, a stream takes most of a loop that answers some predictions a turn: at half load it
    delays them for as long as it lasts. On an idle loop these turns take microseconds.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def cancel_task(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, where there is one, and wait until it has ended; log the error of one that failed."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("what ran in the background failed: %s", task.get_name(), exc_info=error)
