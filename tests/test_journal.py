"""The journal keeps payloads in order and within its limit, through deaths, full disks and damage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kickserve import journal as journal_module
from kickserve.errors import Backlogged, ConfigurationError
from kickserve.journal import FIRST, HEADER, PREAMBLE, Journal, decode, encode
from kickserve.settings import Settings

BIG = 10**9


def faults(caplog):
    """Return the levels of what was logged, from warnings on."""
    return [record.levelname for record in caplog.records if record.levelno >= logging.WARNING]


def opened(folder, *, limit=BIG, **options):
    journal = Journal(folder, limit=limit, **options)
    journal.open()
    return journal


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
async def journal(folder):
    journal = opened(folder)
    yield journal
    await journal.close()


async def kept(journal, *payloads):
    assert await journal.write(payloads) is None


async def drain(journal, size=BIG):
    """Drain all; where the last bytes are damaged, `take` returns no group of them."""
    payloads = []

    async def drain_for_ever():
        while True:
            group = await journal.take(size)
            payloads.extend(group.payloads)
            journal.done(group)

    task = asyncio.create_task(drain_for_ever())
    async with asyncio.timeout(60):
        while journal.size:
            await asyncio.sleep(0)
    task.cancel()
    return payloads


def crash(folder):
    """Leave the files of a folder as a killed process does: every descriptor is closed, locks and all."""
    for descriptor in [*Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()).startswith(str(folder)):
                os.close(int(descriptor.name))


async def leave(folder, *payloads):
    """Have a process die that has written payloads; return its segment's file."""
    before = {*folder.rglob("*.log")}
    await kept(opened(folder), *payloads)
    (path,) = {*folder.rglob("*.log")} - before
    crash(path.parent)
    return path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


@contextlib.contextmanager
def full_disk(size):
    """No file grows beyond this size: for a writer much like a full disk, and needs no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fsync", [False, True])
async def test_payloads_come_back_in_their_order(folder, fsync):
    journal = opened(folder, fsync=fsync)
    writes = [journal.write([b"a", b"b"]), *(journal.write([b"%d" % number]) for number in range(50))]
    assert writes[0].done() != fsync
    writes[3].cancel()  # takes nothing back
    await asyncio.wait(writes)
    assert await drain(journal) == [b"a", b"b", *(b"%d" % number for number in range(50))]
    await journal.close()
    assert list(folder.iterdir()) == []
    await journal.close()
    assert "closed" in str(await journal.write([b"x"]))


async def test_a_group_comes_again_until_it_is_done(journal):
    waiting = asyncio.create_task(journal.take(2 * HEADER.size + 2))
    await asyncio.sleep(0)
    assert journal.lag == 0
    await kept(journal, b"a", b"b", b"c")
    first, again = await waiting, await journal.take(2 * HEADER.size + 2)
    assert first.payloads == again.payloads == [b"a", b"b"]
    assert journal.lag > 0
    journal.done(first)
    assert (journal.size, journal.drained) == (HEADER.size + 1, 2 * HEADER.size + 2)
    assert (await journal.take(1)).payloads == [b"c"]
    assert await drain(journal) == [b"c"]
    assert journal.drained == journal.written
    assert journal.lag == 0


async def test_full_segments_are_followed_by_new_ones_and_deleted_when_drained(folder):
    journal = opened(folder, segment_bytes=100)
    for number in range(20):
        await kept(journal, b"%030d" % number)
    assert len(files(folder)) == 7
    assert [int(payload) for payload in await drain(journal, 50)] == list(range(20))
    await kept(journal, bytes([1]) * 1_000_000, b"next")
    assert len((await drain(journal, 50))[0]) == 1_000_000
    assert files(folder) == []
    await journal.close()


async def test_a_long_outage_leaves_few_segments(folder):
    journal = opened(folder, segment_bytes=100)
    for number in range(10_000):
        await kept(journal, b"%030d" % number)
    assert len(files(folder)) < 150
    assert [int(payload) for payload in await drain(journal)] == list(range(10_000))
    await journal.close()


async def test_to_look_through_a_large_journal_takes_the_memory_of_a_small_part(journal):
    for _ in range(8):
        await kept(journal, *[bytes(200)] * 5_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in journal.scan()) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 500_000  # of 8 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("fsync", [False, True])
async def test_beyond_the_limit_writes_are_refused_until_something_drains(folder, fsync):
    await leave(folder, bytes([1]) * 40)
    journal = opened(folder, limit=100, fsync=fsync)
    refusals = await asyncio.gather(*(journal.write([bytes([2]) * 30]) for _ in range(3)))
    assert [type(each) for each in refusals] == [type(None), Backlogged, Backlogged]
    assert "KICKSERVE_JOURNAL_MAX is 100" in str(refusals[1])
    assert "send smaller batches" in str(await journal.write([bytes(200)]))  # for which there is never room
    assert journal.state == "ok"
    await drain(journal)
    await kept(journal, bytes([3]) * 92)
    assert "KICKSERVE_JOURNAL_MAX" in journal.state
    await journal.close()


async def test_many_payloads_are_kept_in_turns_all_or_none(folder):
    journal = opened(folder, limit=1_000)
    await kept(journal, b"before")
    many = [b"%03d" % number for number in range(50)]
    writing = asyncio.create_task(journal.write_apart(many))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not writing.done()
    assert isinstance(await journal.write_apart(many), Backlogged)  # there is no room for both
    await kept(journal, b"meanwhile")
    assert await writing is None
    await kept(journal, b"after")
    assert await drain(journal) == [b"before", b"meanwhile", *many, b"after"]
    writing = asyncio.create_task(journal.write_apart(many))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    assert journal.size == 0
    assert await journal.write_apart(many) is None  # there is room again
    crash(folder)
    assert await drain(opened(folder)) == many


@pytest.mark.parametrize(("way", "fsync"), [("write", False), ("write", True), ("write_apart", False)])
async def test_a_full_disk_refuses_leaves_no_torn_frame_and_recovers_by_itself(folder, caplog, way, fsync):
    journal = opened(folder, fsync=fsync)
    await kept(journal, b"kept")
    with full_disk(100):
        for _ in range(3):
            refusal = await getattr(journal, way)([bytes([1]) * 60, bytes([1]) * 60])
            assert "File too large" in str(refusal)
        assert "File too large" in journal.state
        assert [path.read_bytes() for path in folder.rglob("*.log")] == [PREAMBLE + encode([b"kept"])]
    await kept(journal, b"after")
    assert journal.state == "ok"
    assert faults(caplog) == ["ERROR", "WARNING"]
    assert await drain(journal) == [b"kept", b"after"]
    await journal.close()


async def test_a_sync_that_fails_refuses_and_begins_a_new_segment(folder, monkeypatch):
    journal = opened(folder, fsync=True)
    await kept(journal, b"kept")

    def fail(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_sync_data", fail)
        assert "Input/output error" in str(await journal.write([b"lost"]))
    await kept(journal, b"after")
    assert len(files(folder)) == 2
    assert await drain(journal) == [b"kept", b"after"]
    await journal.close()


@pytest.mark.parametrize("broken", ["folder", "locks"])
def test_a_folder_that_cannot_be_used_is_a_configuration_error(tmp_path, monkeypatch, broken):
    def fail(*_):
        raise OSError(37, "No locks available")

    if broken == "locks":
        monkeypatch.setattr(journal_module.fcntl, "flock", fail)
    else:
        (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="KICKSERVE_JOURNAL_DIR"):
        Journal(tmp_path / ("file" if broken == "folder" else "x") / "journal", limit=1).open()


def test_each_store_has_a_folder_of_its_own(tmp_path):
    settings = Settings(journal_dir=tmp_path)
    one = Journal.from_settings(settings, "sqlite:///kicks.db").folder
    other = Journal.from_settings(settings, "sqlite://kicks.db").folder
    assert one.parent == other.parent == tmp_path
    assert one != other
    assert one.name.startswith("sqlite-kicks.db-")


async def test_orphans_of_dead_processes_drain_and_their_folders_are_removed(folder):
    journal = opened(folder)
    (own,) = folder.iterdir()
    ended, killed, living = opened(folder), opened(folder), opened(folder)
    await kept(journal, b"own")
    await kept(ended, b"done", b"left")
    ended.done(await ended.take(1))
    await ended.close()
    before = {*folder.rglob("*.log")}
    await kept(killed, b"more")
    (path,) = {*folder.rglob("*.log")} - before
    crash(path.parent)
    await kept(living, b"living")
    (folder / "99-0123abcd").mkdir()  # a process that died before it wrote anything
    (folder / "lost+found").mkdir()
    assert list(journal.scan(others=False)) == [b"own"]
    assert list(journal.scan()) == [b"own", b"left", b"more", b"living"]
    for _ in range(2):
        journal.recover_orphans()
    await kept(journal, b"later")
    scanned = journal.scan()
    await drain(living)
    await living.close()  # its file is gone before the scan comes to it
    assert list(scanned) == [b"own", b"left", b"more", b"later"]
    assert await drain(journal) == [b"own", b"left", b"more", b"later"]
    assert {*folder.iterdir()} == {own, folder / "lost+found"}
    await journal.close()
    assert list(Journal(folder / "none", limit=1).scan()) == []


@pytest.mark.parametrize("flip", [0x01, 0x80, 0x24, 0xFF])
@pytest.mark.parametrize("drained", [0, 2])
async def test_damage_costs_one_payload_which_is_kept_aside_and_a_flipped_bit_none(folder, flip, drained):
    """Each byte of a segment, also of the offset that says what has drained: then that comes once more."""
    journal = opened(folder / "whole")
    await kept(journal, *(b"%d" % each * (each * 5) for each in range(1, 5)))
    if drained:
        journal.done(await journal.take(35))
    await journal.close()
    whole = next(folder.rglob("*.log")).read_bytes()
    payloads = decode(whole[FIRST:])[0]
    for at in range(len(whole)):
        damaged = folder / f"{at}-0123abcd" / "1.log"
        damaged.parent.mkdir()
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    journal = opened(folder)
    scanned, found = Counter(journal.scan(others=False)), Counter(await drain(journal))
    missing = sum(len(whole) - found[each] for each in payloads[drained:])
    aside = [each.read_bytes()[FIRST:] for each in folder.glob("*.damaged")]
    assert scanned == found
    assert found.keys() <= {*payloads}
    if flip.bit_count() == 1:
        assert missing == len(aside) == 0  # the checksum says which bit it was
    else:
        assert len(aside) == missing == sum(4 + len(each) for each in payloads[drained:])
        assert {len(each) for each in aside} == {HEADER.size + len(each) for each in payloads[drained:]}
    await journal.close()


async def test_damage_to_its_own_segment_is_kept_aside_too(journal, folder, caplog):
    await kept(journal, b"first", b"second")
    (path,) = folder.rglob("*.log")
    os.truncate(path, path.stat().st_size - 1)
    assert await drain(journal) == [b"first"]
    assert len(list(folder.glob("*.damaged"))) == 1
    assert "are damaged" in caplog.text
    await kept(journal, b"after")
    assert await drain(journal) == [b"after"]


async def test_what_cannot_be_read_or_locked_at_present_is_tried_again(folder, monkeypatch, caplog):
    monkeypatch.setattr(journal_module, "_PAUSE", 0)
    path = await leave(folder, b"left")
    lock, away = path.with_name("lock"), folder / "away"
    lock.rename(away)
    lock.mkdir()  # it can't be locked
    journal = opened(folder)
    assert list(journal.scan(others=False)) == []
    lock.rmdir()
    away.rename(lock)
    pread = os.pread

    def fail(*_):
        raise OSError(5, "Input/output error")

    journal.recover_orphans()
    monkeypatch.setattr(journal_module.os, "pread", fail)
    taken = asyncio.create_task(journal.take())
    async with asyncio.timeout(60):
        while "Input/output error" not in caplog.text:
            await asyncio.sleep(0)
    monkeypatch.setattr(journal_module.os, "pread", pread)
    assert (await asyncio.wait_for(taken, 60)).payloads == [b"left"]
    assert faults(caplog) == ["ERROR", "ERROR"]
    await journal.close()


@pytest.mark.parametrize("fsync", [False, True])
async def test_a_folder_removed_by_hand_costs_nothing_and_is_begun_again(folder, caplog, fsync):
    journal = opened(folder, fsync=fsync, segment_bytes=100)
    for number in range(10):
        await kept(journal, b"%030d" % number)
        if number == 6:
            shutil.rmtree(folder)
    (path,) = folder.rglob("*.log")
    assert "was removed by hand" in caplog.text
    assert faults(caplog) == ["ERROR"]
    shutil.rmtree(folder)
    folder.touch()
    journal.recover_orphans()
    assert "can't be written" in str(await journal.write([b"x"]))
    folder.unlink()
    await kept(journal, b"new")
    assert path.parent not in folder.iterdir()
    assert await drain(journal) == [*(b"%030d" % number for number in range(10)), b"new"]
    await journal.close()
    assert list(folder.iterdir()) == []


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_a_file_cut_at_any_byte_gives_back_the_whole_payloads_before_the_cut(payloads, data):
    """Also where zeros follow, as they are written ahead with `fsync`."""

    async def cut_and_drain(folder):
        path = await leave(folder, *payloads)
        cut = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, cut)
        os.truncate(path, cut + data.draw(st.sampled_from([0, 9, 100_000])))
        whole = decode(path.read_bytes()[FIRST:])[0]  # zeros may be the end of a payload, too
        ends = [FIRST + len(encode(payloads[:count])) for count in range(1, len(payloads) + 1)]
        assert len(whole) >= sum(end <= cut for end in ends)
        journal = opened(folder)
        assert list(journal.scan()) == whole
        assert await drain(journal) == whole == payloads[: len(whole)]
        await journal.close()
        assert files(folder) == []  # no client got an answer, so there is nothing to keep

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(cut_and_drain(Path(folder)))


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["write", "write", "apart", "take", "done", "crash", "close", "recover"]), max_size=40
    ),
    st.booleans(),
)
def test_nothing_written_is_lost_or_kept_twice_whatever_happens(steps, fsync):
    async def live(folder):
        written, stored, group = [], [], None
        journal = opened(folder, fsync=fsync, segment_bytes=60)
        for number, step in enumerate(steps):
            if step in {"write", "apart"}:
                payloads = [b"%d-%d" % (number, each) for each in range(3)]
                write = journal.write if step == "write" else journal.write_apart
                assert await write(payloads) is None
                written += payloads
            elif step == "take" and journal.size:
                group = await journal.take(20)
            elif step == "done" and group is not None:
                stored += group.payloads
                journal.done(group)
                group = None
            elif step == "recover":
                journal.recover_orphans()
            elif step in {"crash", "close"}:
                await journal.close() if step == "close" else crash(folder)
                journal, group = opened(folder, fsync=fsync, segment_bytes=60), None
            assert set(journal.scan()) == set(written) - set(stored)
        stored += await drain(journal)
        await journal.close()
        assert sorted(stored) == sorted(written)
        assert list(folder.iterdir()) == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


DRAIN = """
    import asyncio, sys
    from pathlib import Path
    from kickserve.journal import Journal

    async def main():
        journal = Journal(Path(sys.argv[1]), limit=10**9)
        journal.open()
        while journal.size:
            group = await journal.take(100)
            print(*(payload.decode() for payload in group.payloads), sep="\\n", flush=True)
            journal.done(group)
            await asyncio.sleep(0)
        await journal.close()

    asyncio.run(main())
"""


def test_processes_that_recover_the_same_orphans_at_once_share_them(folder):
    for number in range(30):
        asyncio.run(leave(folder / "apart", *(b"%d-%d" % (number, each) for each in range(20))))
        (left,) = (folder / "apart").iterdir()
        left.rename(folder / left.name)
    (folder / "apart").rmdir()
    command = [sys.executable, "-c", textwrap.dedent(DRAIN), str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    drained = [word for process in processes for word in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(drained) == sorted(f"{number}-{each}" for number in range(30) for each in range(20))
    assert list(folder.iterdir()) == []
