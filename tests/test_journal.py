"""The journal keeps what it is given, in groups, within its limit, for one process or several."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest
from journal_help import crash, drain, files, full_disk, leave, opened

from kickserve import segments
from kickserve.errors import Backlogged, ConfigurationError
from kickserve.journal import Journal
from kickserve.segments import HEADER, PREAMBLE, encode
from kickserve.settings import Settings


@pytest.mark.parametrize("fsync", [False, True])
async def test_payloads_come_back_in_their_order(folder, fsync):
    journal = opened(folder, fsync=fsync)
    await journal.append([b"a", b"b"])
    await asyncio.gather(*(journal.append([b"%d" % number]) for number in range(50)))
    assert await drain(journal) == [b"a", b"b", *(b"%d" % number for number in range(50))]
    journal.close()
    assert list(folder.iterdir()) == []


async def test_what_is_appended_in_one_turn_goes_in_one_write(journal, monkeypatch):
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda *args: writes.append(len(args[1])) or write(*args))
    await asyncio.gather(*(journal.append([b"12345678"]) for _ in range(20)))
    assert writes == [len(PREAMBLE) + 20 * (HEADER.size + 8)]


async def test_what_comes_while_the_disk_syncs_goes_in_the_next_group(folder, monkeypatch):
    syncs = []
    monkeypatch.setattr(segments, "_sync", lambda _: syncs.append(time.sleep(0.05)))
    journal = opened(folder, fsync=True)
    first = asyncio.create_task(journal.append([b"first"]))
    await asyncio.sleep(0.01)
    assert journal.size == 0
    await asyncio.gather(first, *(journal.append([b"later"]) for _ in range(10)))
    assert len(syncs) == 2
    assert len(await drain(journal)) == 11
    journal.close()


async def test_a_group_comes_again_until_it_is_done(journal):
    await journal.append([b"a", b"b", b"c"])
    first = await journal.take(2)
    again = await journal.take(2)
    assert first.payloads == again.payloads == [b"a", b"b"]
    journal.done(first)
    journal.done(again)
    assert (await journal.take(2)).payloads == [b"c"]
    assert journal.size == HEADER.size + 1


async def test_take_waits_for_an_append(journal):
    taken = asyncio.create_task(journal.take(10))
    await asyncio.sleep(0.01)
    assert not taken.done()
    await journal.append([b"x"])
    assert (await taken).payloads == [b"x"]


async def test_lag_counts_only_while_something_waits(journal):
    assert journal.lag == 0
    await journal.append([b"x"])
    await asyncio.sleep(0.02)
    assert 0.02 <= journal.lag < 5
    journal.done(await journal.take(1))
    assert journal.lag == 0


async def test_a_cancelled_append_does_not_disturb_the_others(journal):
    tasks = [asyncio.create_task(journal.append([b"%d" % number])) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), asyncio.CancelledError, type(None)]
    assert {b"0", b"2"} <= set(await drain(journal))


async def test_full_segments_are_followed_by_new_ones_and_deleted_when_drained(folder):
    journal = opened(folder, segment_bytes=100)
    for number in range(20):
        await journal.append([b"%030d" % number])
    assert len(files(folder)) == 7
    assert [int(payload) for payload in await drain(journal, 2)] == list(range(20))
    assert len(files(folder)) == 1
    journal.close()


async def test_a_large_segment_is_deleted_when_the_drain_has_caught_up(journal, folder):
    await journal.append([bytes([1]) * 70_000])
    await drain(journal)
    assert files(folder) == []
    await journal.append([b"next"])
    assert await drain(journal) == [b"next"]


async def test_a_payload_larger_than_what_is_read_at_a_time_comes_back(journal):
    payload = os.urandom(1_000_000)
    await journal.append([payload, b"x"])
    assert await drain(journal) == [payload, b"x"]


async def test_an_empty_payload_is_refused(journal):
    with pytest.raises(ValueError, match="empty"):
        await journal.append([b"x", b""])


async def test_beyond_the_limit_appends_are_refused_until_something_drains(folder):
    journal = opened(folder, limit=100)
    await journal.append([bytes(80)])
    with pytest.raises(Backlogged, match="KICKSERVE_JOURNAL_MAX is 100"):
        await journal.append([bytes(80)])
    await drain(journal)
    results = await asyncio.gather(*(journal.append([bytes(40)]) for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), Backlogged, Backlogged]
    journal.close()


async def test_what_dead_processes_left_counts_towards_the_limit(folder):
    await leave(folder, bytes(80))
    journal = opened(folder, limit=100)
    with pytest.raises(Backlogged):
        await journal.append([bytes(80)])
    journal.close()


@pytest.mark.parametrize("fsync", [False, True])
async def test_a_full_disk_refuses_leaves_no_torn_frame_and_recovers_by_itself(folder, caplog, fsync):
    caplog.set_level(logging.WARNING)
    journal = opened(folder, fsync=fsync)
    await journal.append([b"kept"])
    with full_disk(100):
        for _ in range(3):
            with pytest.raises(Backlogged, match="File too large"):
                await journal.append([bytes(60), bytes(60)])
        assert "File too large" in journal.state
        assert [path.read_bytes() for path in folder.rglob("*.log")] == [PREAMBLE + encode([b"kept"])]
    await journal.append([b"after"])
    assert journal.state == "ok"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert await drain(journal) == [b"kept", b"after"]
    journal.close()


async def test_a_sync_that_fails_refuses_and_begins_a_new_segment(folder, monkeypatch):
    journal = opened(folder, fsync=True)
    await journal.append([b"kept"])

    def fail(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(segments, "_sync", fail)
        with pytest.raises(Backlogged, match="Input/output error"):
            await journal.append([b"lost"])
    await journal.append([b"after"])
    assert len(files(folder)) == 2
    assert await drain(journal) == [b"kept", b"after"]
    journal.close()


async def test_a_closed_journal_keeps_what_waits_and_refuses_more(folder):
    for fsync in (False, True):
        journal = opened(folder, fsync=fsync)
        task = asyncio.create_task(journal.append([b"%d" % fsync]))
        await asyncio.sleep(0)
        journal.close()
        journal.close()
        await task
        assert journal.recover_orphans() == 0
        with pytest.raises(Backlogged, match="not open"):
            await journal.append([b"x"])
    journal = opened(folder)
    assert await drain(journal) == [b"0", b"1"]
    journal.close()
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="KICKSERVE_JOURNAL_DIR"):
        Journal(tmp_path / "file" / "journal", limit=1).open()


async def test_dead_processes_payloads_are_taken_first_and_their_folders_removed(folder):
    journal = opened(folder)
    await journal.append([b"own"])
    await leave(folder, b"left")
    assert journal.recover_orphans() == 1
    assert journal.recover_orphans() == 0
    assert await drain(journal) == [b"left", b"own"]
    assert [path for path in folder.iterdir() if path != journal._box.path] == []
    journal.close()


async def test_living_processes_are_left_alone_and_empty_leftovers_removed(folder):
    living = opened(folder)
    await living.append([b"mine"])
    dead = await leave(folder, b"x")
    dead.write_bytes(PREAMBLE)
    (folder / "99-0123abcd").mkdir()
    (folder / "lost+found").mkdir()
    journal = opened(folder)
    assert journal.size == 0
    assert {path.name for path in folder.iterdir()} == {
        "lost+found",
        living._box.path.name,
        journal._box.path.name,
    }
    living.close()
    journal.close()


async def test_scan_finds_what_any_process_holds_oldest_first(folder):
    living = opened(folder)
    await living.append([b"living"])
    await leave(folder, b"dead")
    journal = opened(folder)
    await journal.append([b"own", b"more"])
    await leave(folder, b"unclaimed")
    assert list(journal.scan()) == [b"living", b"dead", b"own", b"more", b"unclaimed"]
    found = journal.scan()
    await drain(living)
    living.close()  # its file is gone before it is come to
    assert list(found) == [b"dead", b"own", b"more", b"unclaimed"]
    journal.close()
    assert list(Journal(folder / "none", limit=1).scan()) == []


def test_each_store_has_a_folder_of_its_own(tmp_path):
    settings = Settings(journal_dir=tmp_path, journal="fsync", journal_max=7)
    one = Journal.from_settings(settings, "sqlite:///kicks.db")
    other = Journal.from_settings(settings, "sqlite://kicks.db")
    assert one._folder.parent == other._folder.parent == tmp_path
    assert one._folder != other._folder
    assert one._folder.name.startswith("sqlite-kicks.db-")
    assert (one._limit, one._fsync) == (7, True)


@pytest.mark.parametrize("dies", [True, False])
async def test_what_is_done_comes_to_no_other_process_again(folder, dies):
    first = opened(folder)
    await first.append([b"done", b"waits"])
    first.done(await first.take(1))
    assert list(Journal(folder, limit=1).scan()) == [b"waits"]
    crash(first) if dies else first.close()
    second = opened(folder)
    assert second.size == HEADER.size + 5
    assert await drain(second) == [b"waits"]
    second.close()


async def test_a_mark_is_passed_when_what_stood_before_it_has_drained(journal):
    assert journal.passed(journal.mark())
    await journal.append([b"before"])
    mark = journal.mark()
    await journal.append([b"after"])
    assert not journal.passed(mark)
    journal.done(await journal.take(1))
    assert journal.passed(mark)
    assert not journal.passed(journal.mark())


async def test_state_says_why_nothing_is_taken(folder):
    journal = opened(folder, limit=20)
    assert journal.state == "ok"
    with full_disk(1), pytest.raises(Backlogged):
        await journal.append([b"x"])
    assert "File too large" in journal.state
    await journal.append([bytes(12)])
    assert "KICKSERVE_JOURNAL_MAX" in journal.state
    journal.close()


async def test_scan_can_leave_out_what_other_processes_hold(journal, folder):
    living = opened(folder)
    await living.append([b"theirs"])
    await journal.append([b"ours"])
    assert list(journal.scan(others=False)) == [b"ours"]
    assert list(journal.scan()) == [b"theirs", b"ours"]
    assert journal.folder == folder
    living.close()
