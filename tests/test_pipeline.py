"""Steps of a stream at the same time: order, bounds, errors and ends are those of one after the other."""

from __future__ import annotations

import threading

import pytest

from kickserve_data import pipeline
from kickserve_data.pipeline import ahead, behind


def threads():
    return [each.name for each in threading.enumerate() if each.name.startswith(("ahead", "behind"))]


@pytest.mark.parametrize("count", [0, 1, 2, 100])
@pytest.mark.parametrize("depth", [1, 3])
def test_items_made_ahead_come_in_their_order(count, depth):
    assert list(ahead(range(count), depth)) == list(range(count))
    assert threads() == []


def test_no_more_is_made_ahead_than_may_wait():
    made = []
    items = ahead((made.append(each) for each in range(100)), 3)
    next(items)
    assert len(made) <= 5  # the one that was taken, those that wait, the one after it
    items.close()
    assert threads() == []


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("here")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(ValueError, match="here"):
        next(taken)
    assert threads() == []


def test_work_is_done_in_its_order_before_the_context_is_left():
    done = []
    with behind(done.append) as put:
        for each in range(100):
            put(each)
    assert done == list(range(100))
    assert threads() == []


def test_no_more_work_waits_than_may():
    go, put_all = threading.Event(), threading.Event()

    def give():
        with behind(lambda _: go.wait(), 2) as put:
            for each in range(5):
                put(each)
            put_all.set()

    giver = threading.Thread(target=give)
    giver.start()
    assert not put_all.wait(0.2)
    go.set()
    giver.join()
    assert put_all.is_set()


@pytest.mark.parametrize("at", [0, 49, 99])
def test_an_error_in_the_work_is_raised_where_the_work_is_given(at):
    done = []

    def work(item):
        if item == at:
            raise OSError("disk full")
        done.append(item)

    def give():
        with behind(work) as put:
            for each in range(100):
                put(each)

    with pytest.raises(OSError, match="disk full"):
        give()
    assert len(done) <= at + 3
    assert threads() == []


def test_when_the_giver_fails_the_work_under_way_is_ended_and_its_error_goes_up():
    def give():
        with behind(lambda _: None) as put:
            put(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give()
    assert threads() == []


def test_a_second_interrupt_does_not_leave_work_under_way(monkeypatch):
    waited = []
    shutdown = pipeline.ThreadPoolExecutor.shutdown

    def interrupted(self, **options):
        waited.append(options)
        if len(waited) == 1:
            raise KeyboardInterrupt
        shutdown(self, **options)

    monkeypatch.setattr(pipeline.ThreadPoolExecutor, "shutdown", interrupted)
    done = []
    with behind(done.append) as put:
        put(1)
    assert (len(waited), done) == (2, [1])
    assert threads() == []
