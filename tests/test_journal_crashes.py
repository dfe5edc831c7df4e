"""The journal loses nothing that it said it kept: not by crashes, damaged files, or other processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_help import crash, drain, drain_until_empty, files, leave, opened

from kickserve import journal as journal_module
from kickserve.boxes import Box
from kickserve.errors import Backlogged
from kickserve.segments import PREAMBLE, decode, encode


async def test_a_torn_end_is_cut_with_a_warning(folder, caplog):
    path = await leave(folder, b"whole", b"torn in the middle")
    os.truncate(path, path.stat().st_size - 5)
    journal = opened(folder)
    assert await drain_until_empty(journal) == [b"whole"]
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert str(path) in warning.getMessage()
    assert "last 21 bytes" in warning.getMessage()
    assert files(folder) == []
    journal.close()


@pytest.mark.parametrize("at", [len(PREAMBLE) + 20, 3])
async def test_damage_in_the_middle_is_kept_aside_and_what_stands_before_it_drains(folder, caplog, at):
    path = await leave(folder, b"first", b"second", b"third", b"fourth")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    journal = opened(folder)
    assert await drain_until_empty(journal) == ([b"first"] if at > 8 else [])
    assert files(folder) == [f"{path.parent.name}-{path.name}.damaged"]
    assert next(folder.glob("*.damaged")).read_bytes()[len(PREAMBLE) :] == data[len(PREAMBLE) :]
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]
    journal.close()


@pytest.mark.parametrize("size", [1, 7, 300_000])
async def test_damage_before_batches_is_no_torn_write_however_large_they_are(folder, size):
    batches = [os.urandom(300_000), os.urandom(size)]
    path = await leave(folder, *batches)
    data = bytearray(path.read_bytes())
    data[len(PREAMBLE) + 20] ^= 0xFF
    path.write_bytes(data)
    journal = opened(folder)
    assert await drain_until_empty(journal) == []
    assert next(folder.glob("*.damaged")).read_bytes().endswith(batches[1])
    journal.close()


async def test_a_batch_cut_at_any_byte_is_torn_and_found_out_quickly(folder):
    rows = np.tile([0.5, 30.0, 20.0, 10.0, 0.2, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.7, 0.6, 0.8, 0.01], 2_000)
    path = await leave(folder, b"whole", rows.tobytes())
    os.truncate(path, path.stat().st_size - 1)
    journal = opened(folder)
    began = time.perf_counter()
    assert await drain_until_empty(journal) == [b"whole"]
    assert time.perf_counter() - began < 2
    assert files(folder) == []
    journal.close()


async def test_damage_to_its_own_segment_is_kept_aside_even_at_the_end(journal, folder):
    await journal.append([b"first", b"second"])
    path = journal._current.path
    os.truncate(path, path.stat().st_size - 1)
    assert await drain_until_empty(journal) == [b"first"]
    assert len(list(folder.glob("*.damaged"))) == 1
    await journal.append([b"after"])
    assert await drain(journal) == [b"after"]


async def test_a_file_of_zeros_from_a_dead_machine_is_cut(folder):
    path = await leave(folder, b"x")
    path.write_bytes(bytes(100))
    journal = opened(folder)
    assert await drain_until_empty(journal) == []
    assert files(folder) == []
    journal.close()


async def test_a_file_that_cannot_be_read_at_present_is_tried_again(folder, monkeypatch, caplog):
    monkeypatch.setattr(journal_module, "_PAUSE", 0.01)
    path = await leave(folder, b"left")
    journal = opened(folder)
    away = path.rename(folder / "away")
    path.mkdir()  # to read a folder fails, and not because it is gone
    taken = asyncio.create_task(journal.take(1))
    await asyncio.sleep(0.05)
    path.rmdir()
    away.rename(path)
    assert (await asyncio.wait_for(taken, 5)).payloads == [b"left"]
    assert ["is tried again" in record.getMessage() for record in caplog.records] == [True]
    journal.close()


async def test_a_folder_removed_by_hand_is_noticed_and_begun_again(journal, folder, caplog):
    await journal.append([b"gone"])
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    journal.recover_orphans()
    await journal.append([b"new"])
    assert await drain(journal) == [b"new"]
    messages = [record.getMessage() for record in caplog.records]
    assert ["was removed" in messages[0], "is gone" in messages[1]] == [True, True]
    assert len(messages) == 2


async def test_a_folder_that_cannot_be_begun_again_refuses_until_it_can(journal, folder, caplog):
    away = folder.rename(folder.with_name("away"))
    folder.touch()
    journal.recover_orphans()
    with pytest.raises(Backlogged, match="can't be written"):
        await journal.append([b"x"])
    folder.unlink()
    journal.recover_orphans()
    await journal.append([b"new"])
    assert await drain(journal) == [b"new"]
    assert "can't be made again" in caplog.text
    assert len(list(away.iterdir())) == 1


async def test_what_cannot_be_locked_is_told_once_and_left(folder, caplog):
    dead = await leave(folder, b"left")
    (dead.parent / "lock").unlink()
    (dead.parent / "lock").mkdir()
    journal = opened(folder)
    assert journal.recover_orphans() == 0
    assert ["can't be taken up" in record.getMessage() for record in caplog.records] == [True]
    journal.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_a_file_cut_at_any_byte_gives_back_the_whole_payloads_before_it(payloads, data):
    async def cut_and_drain(folder):
        path = await leave(folder, *payloads)
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        whole, _ = decode((PREAMBLE + encode(payloads))[len(PREAMBLE) : cut])
        journal = opened(folder)
        assert list(journal.scan()) == whole
        assert await drain_until_empty(journal) == whole
        assert files(folder) == []
        journal.close()
        assert list(folder.iterdir()) == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(cut_and_drain(Path(folder)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["append", "append", "take", "done", "crash", "close", "adopt"]), max_size=40),
    st.booleans(),
)
def test_nothing_that_append_returned_for_is_lost_whatever_happens(steps, fsync):
    async def live(folder):
        kept, stored, group = [], set(), None
        journal = opened(folder, fsync=fsync, segment_bytes=60)
        for number, step in enumerate(steps):
            if step == "append":
                payloads = [b"%d-%d" % (number, each) for each in range(3)]
                await journal.append(payloads)
                kept += payloads
            elif step == "take" and journal.size:
                group = await journal.take(2)
            elif step == "done" and group is not None:
                stored.update(group.payloads)
                journal.done(group)
            elif step == "adopt":
                journal.recover_orphans()
            elif step in {"crash", "close"}:
                crash(journal) if step == "crash" else journal.close()
                journal, group = opened(folder, fsync=fsync, segment_bytes=60), None
            assert set(journal.scan()) == set(kept) - stored
        left = await drain(journal)
        journal.close()
        assert sorted([*stored, *left]) == sorted(kept)
        assert list(folder.iterdir()) == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


APPEND_FOR_EVER = """
    import asyncio, itertools, sys
    from pathlib import Path
    from kickserve.journal import Journal

    async def one(journal, task):
        for number in itertools.count():
            await journal.append([f"{task}-{number}".encode()] * 3)
            print(f"{task}-{number}", flush=True)

    async def main():
        journal = Journal(Path(sys.argv[1]), limit=10**9, segment_bytes=2_000)
        journal.open()
        await asyncio.gather(*(one(journal, task) for task in range(8)))

    asyncio.run(main())
"""
DRAIN = """
    import asyncio, sys
    from pathlib import Path
    from kickserve.journal import Journal

    async def main():
        journal = Journal(Path(sys.argv[1]), limit=10**9)
        journal.open()
        print("open", flush=True)
        while journal.size:
            group = await journal.take(10)
            print(*(payload.decode() for payload in group.payloads), sep="\\n", flush=True)
            journal.done(group)
            await asyncio.sleep(0)
        journal.close()

    asyncio.run(main())
"""


def start(script, folder):
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_a_killed_process_has_lost_nothing_that_append_returned_for(folder):
    process = start(APPEND_FOR_EVER, folder)
    told = [process.stdout.readline() for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    told += process.communicate()[0].splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    journal = opened(folder)
    found = {payload.decode() for payload in await drain_until_empty(journal)}
    assert {line.strip() for line in told if line.endswith("\n")} <= found
    journal.close()


async def test_processes_that_take_up_the_same_at_once_share_it_out(folder):
    folder.mkdir()
    for number in range(30):
        box = Box.make(folder)
        segment = box.new_segment()
        segment.write(encode([b"%d-%d" % (number, each) for each in range(20)]))
        segment.close()
        box.release(remove=False)
    processes = [start(DRAIN, folder) for _ in range(4)]
    told = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    payloads = [word for words in told for word in words if word != "open"]
    assert sorted(payloads) == sorted(f"{number}-{each}" for number in range(30) for each in range(20))
    assert list(folder.iterdir()) == []
