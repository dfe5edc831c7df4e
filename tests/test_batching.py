"""What comes in together is worked on together, one to one, and no future stays undone."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import PATIENCE

from kickserve import batching
from kickserve.batching import Batcher, cancel_task, resolve, within


class Squares:
    """Answers each number with its square, and remembers the groups it worked on."""

    def __init__(self, *, held=False):
        self.groups, self.threads = [], set()
        self.begun, self.free = threading.Event(), threading.Event()
        if not held:
            self.free.set()

    def work(self, numbers):
        self.begun.set()
        assert self.free.wait(PATIENCE)
        self.groups.append([*numbers])
        self.threads.add(threading.get_ident())
        return [number * number for number in numbers]

    def batcher(self, limit=10, thread=None):
        return Batcher(
            self.work, lambda _, futures, found: resolve(futures, found), limit=limit, thread=thread
        )


def ask(batcher, item):
    future = asyncio.get_running_loop().create_future()
    batcher.put(item, future)
    return future


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_a_lone_item_is_worked_on_at_once_and_those_of_a_busy_turn_together():
    squares = Squares()
    batcher = squares.batcher(limit=2)
    for number in range(1, 3):
        assert ask(batcher, number).result() == number * number
        await asyncio.sleep(0)
    for _ in range(2):
        assert await asyncio.gather(*(ask(batcher, each) for each in (3, 2, 1))) == [9, 4, 1]
        await asyncio.sleep(0)  # since Python 3.12 a turn does not end where all futures are done
    lone = ask(batcher, 5)
    assert not lone.done()  # only at the end of the turn is it known to be alone
    assert await lone == 25
    assert ask(batcher, 6).done()
    assert squares.groups == [[1], [2], [3], [2], [1], [3, 2], [1], [5], [6]]


async def test_what_comes_while_the_thread_is_busy_goes_together(thread):
    squares = Squares(held=True)
    batcher = squares.batcher(limit=3, thread=thread)
    futures = [ask(batcher, 1)]
    assert await asyncio.to_thread(squares.begun.wait, PATIENCE)
    assert batcher.busy
    for number in range(2, 7):
        futures.append(ask(batcher, number))
        await asyncio.sleep(0)
    squares.free.set()
    await asyncio.wait_for(batcher.drain(), PATIENCE)
    assert [future.result() for future in futures] == [1, 4, 9, 16, 25, 36]
    assert squares.groups == [[1], [2, 3, 4], [5, 6]]
    assert threading.get_ident() not in squares.threads


async def test_what_comes_while_others_wait_for_a_disk_goes_together_with_what_follows_at_once():
    squares, disk = Squares(), []

    def finish(_, futures, found):
        resolve(futures, found)
        disk.append(asyncio.get_running_loop().create_future())
        return disk[-1]

    async def ask_each(*numbers):  # one a turn
        for number in numbers:
            futures.append(ask(batcher, number))
            await asyncio.sleep(0)

    batcher, futures = Batcher(squares.work, finish, limit=5), []
    await ask_each(1, 2, 3)
    assert squares.groups == [[1]]
    disk[0].set_result(None)
    await ask_each(4, 5, 6)
    await asyncio.gather(*futures[:5])
    assert squares.groups == [[1], [2, 3, 4, 5, 6]]
    await ask_each(7)
    disk[1].set_result(None)
    assert await futures[-1] == 49
    disk[2].set_result(None)
    await batcher.drain()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("where", ["work", "finish", "too few answers", "too many answers"])
async def test_an_error_reaches_every_future_that_has_no_answer(thread, where, slow):
    def work(numbers):
        if where == "work":
            raise ValueError(where)
        return numbers

    def finish(_, futures, found):
        if where == "finish":
            raise ValueError(where)
        resolve(futures, found[:-1] if where == "too few answers" else [*found, 1])

    batcher = Batcher(work, finish, limit=10, thread=thread if slow else None)
    for _ in range(2):
        done, _ = await asyncio.wait([ask(batcher, each) for each in (1, 2, 3)], timeout=PATIENCE)
        assert len(done) == 3
        assert all(isinstance(each.exception(), ValueError) for each in done) or "answers" in where


async def test_a_thread_that_has_ended_is_an_error_at_once():
    thread, squares = ThreadPoolExecutor(1), Squares(held=True)
    batcher = squares.batcher(limit=2, thread=thread)
    first = ask(batcher, 1)
    assert await asyncio.to_thread(squares.begun.wait, PATIENCE)
    later = [ask(batcher, each) for each in (2, 3, 4)]
    thread.shutdown(wait=False, cancel_futures=True)
    squares.free.set()
    assert await asyncio.wait_for(first, PATIENCE) == 1
    done, _ = await asyncio.wait(later, timeout=PATIENCE)
    assert [type(each.exception()) for each in done] == [RuntimeError] * 3


@given(
    turns=st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=9), max_size=9),
    limit=st.integers(1, 5),
    slow=st.booleans(),
)
def test_each_gets_its_own_answer_in_the_order_of_asking_whoever_goes_away(turns, limit, slow):
    squares = Squares()

    async def run(executor):
        batcher = squares.batcher(limit, executor)
        futures = []
        for turn in turns:
            for number, goes in turn:
                futures.append((number, ask(batcher, number)))
                if goes:
                    futures[-1][1].cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.wait_for(batcher.drain(), PATIENCE)
        assert all(future.cancelled() or future.result() == number**2 for number, future in futures)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(run(executor if slow else None))
    assert all(len(group) <= limit for group in squares.groups)
    order = [number for group in squares.groups for number in group]
    assert order == [number for turn in turns for number, _ in turn]


async def test_a_cancelled_task_is_waited_for_and_a_failed_one_is_logged(caplog):
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def fail():
        raise RuntimeError("a bug")

    tasks = [asyncio.create_task(work()), asyncio.create_task(fail(), name="the bug's task")]
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        for task in [*tasks, tasks[0], None]:
            await cancel_task(task)
    assert ended == [True]
    assert ["the bug's task" in record.getMessage() for record in caplog.records] == [True]


async def test_work_that_does_not_end_is_given_up(caplog, monkeypatch):
    monkeypatch.setattr(batching, "_ENDING", 0.01)
    free = asyncio.Event()

    async def stubborn():
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()
        raise RuntimeError("too late")

    with pytest.raises(TimeoutError):
        await within(0.01, stubborn())
    task = asyncio.create_task(stubborn(), name="the stubborn task")
    await asyncio.sleep(0)
    await cancel_task(task)
    assert "the stubborn task" in caplog.text
    free.set()
    assert await within(PATIENCE, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(RuntimeError):
        await task
