"""What comes in together is answered together, one to one, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.batching import Batcher

PATIENCE = 5


class Asked:
    """Answers each number with its square, and remembers what was asked together."""

    def __init__(self):
        self.groups = []
        self.threads = set()

    def find(self, questions):
        self.groups.append([*questions])
        self.threads.add(threading.get_ident())
        return [ZeroDivisionError(each) if each == 0 else each * each for each in questions]


def at_once(_, found, give):
    give(found)


@pytest.fixture
def asked():
    return Asked()


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Gate(Asked):
    """A slow model: finds nothing before it is let."""

    def __init__(self):
        super().__init__()
        self.begun, self.open = threading.Event(), threading.Event()

    def find(self, questions):
        self.begun.set()
        assert self.open.wait(PATIENCE)
        return super().find(questions)


async def test_a_lone_question_is_answered_on_the_spot(asked):
    batcher = Batcher(asked.find, at_once, most=10)
    for number in range(1, 4):
        future = batcher.put(number)
        assert future.done()
        assert future.result() == number * number
        await asyncio.sleep(0)
    assert asked.groups == [[1], [2], [3]]


async def test_after_a_turn_with_several_those_of_a_turn_go_together(asked):
    batcher = Batcher(asked.find, at_once, most=10)
    for _ in range(2):
        futures = [batcher.put(number) for number in (3, 2, 1)]
        assert await asyncio.gather(*futures) == [9, 4, 1]
    assert asked.groups == [[3], [2], [1], [3, 2, 1]]
    await asyncio.sleep(0)
    lone = batcher.put(5)
    assert not lone.done()  # whether it stays alone is known at the end of the turn
    assert await lone == 25
    assert batcher.put(6).done()


async def test_no_more_than_most_go_together(asked):
    batcher = Batcher(asked.find, at_once, most=4)
    for _ in range(2):
        await asyncio.gather(*(batcher.put(number) for number in range(1, 11)))
    assert [len(group) for group in asked.groups] == [1] * 10 + [4, 4, 2]


async def test_an_error_in_one_is_an_answer_to_that_one_alone(asked):
    batcher = Batcher(asked.find, at_once, most=10)
    for _ in range(2):
        one, zero, two = await asyncio.gather(*(batcher.put(number) for number in (1, 0, 2)))
        assert (one, two) == (1, 4)
        assert isinstance(zero, ZeroDivisionError)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("where", ["find", "conclude", "too few", "too many"])
async def test_what_is_raised_reaches_all_and_hangs_nobody(asked, thread, where, slow):
    def find(questions):
        if where == "find":
            raise ValueError(where)
        return asked.find(questions)

    def conclude(_, found, give):
        if where == "conclude":
            raise ValueError(where)
        give(found[:-1] if where == "too few" else [*found, 1])

    batcher = Batcher(find, conclude, most=10, executor=thread if slow else None)
    for _ in range(2):
        futures = [batcher.put(number) for number in (1, 2, 3)]
        done, _ = await asyncio.wait(futures, timeout=PATIENCE)
        assert len(done) == 3
        raised = [isinstance(future.exception(), ValueError) for future in futures]
        assert all(raised) or where in {"too few", "too many"}
    batcher = Batcher(asked.find, at_once, most=10)
    assert await batcher.put(2) == 4


async def test_what_comes_while_a_slow_model_is_busy_goes_together(thread):
    gate = Gate()
    batcher = Batcher(gate.find, at_once, most=3, executor=thread)
    futures = [batcher.put(1)]
    assert await asyncio.to_thread(gate.begun.wait, PATIENCE)
    for number in range(2, 7):
        futures.append(batcher.put(number))
        await asyncio.sleep(0)
    gate.open.set()
    assert await asyncio.wait_for(asyncio.gather(*futures), PATIENCE) == [1, 4, 9, 16, 25, 36]
    assert gate.groups == [[1], [2, 3, 4], [5, 6]]
    assert threading.get_ident() not in gate.threads


@pytest.mark.parametrize("slow", [False, True])
async def test_who_goes_away_hurts_nobody_and_gets_no_other_answer(asked, thread, slow):
    batcher = Batcher(asked.find, at_once, most=10, executor=thread if slow else None)
    for _ in range(2):
        futures = [batcher.put(number) for number in range(1, 6)]
        for gone in futures[::2]:
            gone.cancel()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert answers[1::2] == [4, 16]


async def test_answers_may_be_given_later():
    later = []
    batcher = Batcher(lambda asked: asked, lambda _, found, give: later.append((give, found)), most=10)
    futures = [batcher.put(number) for number in (1, 2)]
    futures[0].cancel()
    assert not futures[1].done()
    for give, found in later:
        give(found)
    assert await futures[1] == 2


async def test_a_thread_that_has_ended_is_an_error_and_not_a_wait_without_end(asked):
    executor = ThreadPoolExecutor(1)
    batcher = Batcher(asked.find, at_once, most=2, executor=executor)
    assert await batcher.put(3) == 9
    executor.shutdown()
    for _ in range(2):
        futures = [batcher.put(number) for number in (1, 2, 3)]
        done, _ = await asyncio.wait(futures, timeout=PATIENCE)
        assert [type(each.exception()) for each in done] == [RuntimeError] * 3


async def test_what_waits_for_a_thread_that_ends_gets_an_error():
    executor, gate = ThreadPoolExecutor(1), Gate()
    batcher = Batcher(gate.find, at_once, most=2, executor=executor)
    first = batcher.put(1)
    assert await asyncio.to_thread(gate.begun.wait, PATIENCE)
    second = batcher.put(2)
    await asyncio.sleep(0)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open.set()
    assert await asyncio.wait_for(first, PATIENCE) == 1
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(second, PATIENCE)


@given(
    turns=st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=9), max_size=9),
    most=st.integers(1, 5),
    slow=st.booleans(),
)
def test_each_gets_its_own_answer_in_the_order_of_asking(turns, most, slow):
    asked = Asked()

    async def run(executor):
        batcher = Batcher(asked.find, at_once, most=most, executor=executor)
        futures = []
        for turn in turns:
            for number, goes in turn:
                futures.append((number, batcher.put(number)))
                if goes:
                    futures[-1][1].cancel()
            await asyncio.sleep(0)
        if futures:
            await asyncio.wait([future for _, future in futures], timeout=PATIENCE)
        await asyncio.sleep(0)
        for number, future in futures:
            assert future.done()
            if not future.cancelled() and number:
                assert future.result() == number * number
        if futures:
            await batcher.put(1)  # what those asked who went away has been answered before

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(run(executor if slow else None))
    assert all(len(group) <= most for group in asked.groups)
    order = [number for group in asked.groups for number in group]
    assert order == [number for turn in turns for number, _ in turn] + [1] * any(turns)
