"""Tasks in the background: they end when told, and none that has failed holds the rest up."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kickserve.batching import cancel_task


async def test_a_task_is_told_and_waited_for():
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await cancel_task(task)
    await cancel_task(task)
    await cancel_task(None)
    assert ended == [True]


async def test_one_that_has_failed_is_logged_and_does_not_stop_who_ends_it(caplog):
    async def fail():
        raise RuntimeError("a bug")

    task = asyncio.create_task(fail(), name="the bug's task")
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        await cancel_task(task)
    [record] = caplog.records
    assert "the bug's task" in record.getMessage()
    assert str(record.exc_info[1]) == "a bug"


async def test_who_ends_a_task_can_be_cancelled_meanwhile():
    begun = asyncio.Event()

    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    ending = asyncio.create_task(cancel_task(task))
    await begun.wait()
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await cancel_task(task)
