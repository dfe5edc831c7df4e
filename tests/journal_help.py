"""What the tests of the journal have in common: to open one, drain it, have it die, or fill its disk."""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import contextmanager

import pytest

from kickserve.journal import Journal

BIG = 10**9


def opened(folder, *, limit=BIG, **options):
    journal = Journal(folder, limit=limit, **options)
    journal.open()
    return journal


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def journal(folder):
    journal = opened(folder)
    yield journal
    journal.close()


def crash(journal):
    """Leave the files as a killed process does: the locks go, nothing is cleaned up."""
    for box in {journal._box, *(segment.box for segment in journal._queue)}:
        os.close(box._lock)
    if journal._current is not None:
        journal._current.close()
    if journal._writer._thread is not None:
        journal._writer._thread.shutdown()


async def drain(journal, most=100):
    payloads = []
    while journal.size:
        group = await asyncio.wait_for(journal.take(most), 5)
        payloads += group.payloads
        journal.done(group)
    return payloads


async def leave(folder, *payloads, **options):
    """Have a process die that had appended these."""
    journal = opened(folder, **options)
    await journal.append(list(payloads))
    path = journal._current.path
    crash(journal)
    return path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


async def drain_until_empty(journal):
    """Drain where the last bytes may be unreadable: then no group comes of them."""
    payloads = []
    while journal.size:
        taken = asyncio.create_task(journal.take(100))
        await asyncio.wait([taken], timeout=0.02)
        if taken.done():
            payloads += taken.result().payloads
            journal.done(taken.result())
        taken.cancel()
    return payloads


@contextmanager
def full_disk(size):
    """No file grows beyond this size: for a writer much like a full disk, and needs no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
