"""SQLite as a store: the contract, and what only a file can do to one."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from together import run_together

from kickserve.errors import RecordUnfit, StoreMisconfigured, StoreUnavailable
from kickserve.ids import instant
from kickserve_storage import sqlite as sqlite_module
from kickserve_storage import sqlite_database
from kickserve_storage.columns import COLUMNS, SHADOW, STREAM_GROUP, USUAL
from kickserve_storage.sqlite import SqliteStore
from kickserve_testing.contract import (
    START,
    StoreContract,
    all_labelled,
    batch_at,
    expected_page,
    record_at,
    some_records,
    streamed,
)


class TestSqliteFile(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path):
        store = SqliteStore(f"sqlite:///{tmp_path}/kicks.db")
        await store.open()
        yield store
        await store.close()


class TestSqliteMemory(StoreContract):
    durable = False

    @pytest.fixture
    async def store(self):
        store = SqliteStore("sqlite://")
        await store.open()
        yield store
        await store.close()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kicks.db"


@pytest.fixture
async def store(file):
    store = SqliteStore(f"sqlite:///{file}", busy=0.2)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def other(file, store):  # noqa: ARG001 - the table must be there
    """Another program's connection to the same file."""
    connection = sqlite3.connect(file, isolation_level=None)
    yield connection
    connection.close()


async def opened(store):
    await store.open()
    return store


def database(file, *statements):
    """Make a file as another program does."""
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


_MOMENTS = st.none() | st.integers(-2_000, 22_000).map(lambda at: instant(START) + timedelta(microseconds=at))


@settings(max_examples=60, deadline=None)
@given(
    made=st.sets(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=40),
    limit=st.integers(1, 50),
    before=st.none() | st.tuples(st.integers(0, 20), st.integers(0, 3)),
    since=_MOMENTS,
    until=_MOMENTS,
)
def test_a_page_is_what_a_plain_search_finds(made, limit, before, since, until):
    records = [record_at(START + at, number=number) for at, number in made]
    last = None if before is None else record_at(START + before[0], number=before[1]).id

    async def pages():
        store = SqliteStore("sqlite://")
        try:
            await store.open()
            await store.add(records)
            page = await store.page(limit, before=last, since=since, until=until)
            return page, await streamed(store, since=since, until=until)
        finally:
            await store.close()

    page, stream = asyncio.run(pages())
    assert page == expected_page(records, limit, before=last, since=since, until=until)
    assert stream == expected_page(records, 1_000, since=since, until=until)[::-1]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite://", None),
        ("sqlite:///", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///kicks.db", "kicks.db"),
        ("sqlite:////var/lib/kicks.db", "/var/lib/kicks.db"),
        ("sqlite:///a%20folder/what%3F.db", "a folder/what?.db"),
    ],
)
def test_a_url_leads_to_its_path(url, path):
    assert sqlite_database.path_of(url) == (None if path is None else Path(path).absolute())


@pytest.mark.parametrize("url", ["sqlite://kicks.db", "sqlite:///kicks.db?mode=ro", "sqlite://[/x.db"])
def test_a_url_that_is_not_ours_is_refused(url):
    with pytest.raises(StoreMisconfigured, match="DATABASE_URL"):
        SqliteStore(url)


def test_the_label_is_the_absolute_path():
    assert SqliteStore("sqlite:///kicks.db").label == f"sqlite:///{Path.cwd() / 'kicks.db'}"


async def test_a_missing_folder_is_named(tmp_path):
    store = SqliteStore(f"sqlite:///{tmp_path}/nowhere/kicks.db")
    with pytest.raises(StoreMisconfigured, match=r"no folder .*nowhere"):
        await store.open()
    await store.close()


async def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(StoreMisconfigured, match="is a folder"):
        await SqliteStore(f"sqlite:///{tmp_path}").open()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(file):
    file.write_bytes(b"minutes of the annual meeting\n" * 50)
    with pytest.raises(StoreMisconfigured, match="no SQLite database"):
        await SqliteStore(f"sqlite:///{file}").open()
    assert file.read_bytes() == b"minutes of the annual meeting\n" * 50


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE predictions (id INTEGER)",),
        ("PRAGMA user_version = 1",),
        ("PRAGMA application_id = 7", "CREATE TABLE theirs (id INTEGER)"),
    ],
)
async def test_the_database_of_another_program_is_refused(file, statements):
    database(file, *statements)
    with pytest.raises(StoreMisconfigured, match="another program"):
        await SqliteStore(f"sqlite:///{file}").open()


async def test_a_newer_schema_says_to_upgrade(file, store):
    await store.close()
    database(file, "PRAGMA user_version = 99")
    with pytest.raises(StoreMisconfigured, match=r"schema 99.*upgrade kickserve"):
        await store.open()


async def test_a_migration_keeps_what_is_there_and_happens_once(store, monkeypatch):
    await store.add(some_records(3))
    await store.close()
    more = (*sqlite_database.MIGRATIONS, ("ALTER TABLE predictions ADD COLUMN spin REAL",))
    monkeypatch.setattr(sqlite_database, "MIGRATIONS", more)
    for _ in range(2):
        await store.open()
        assert await store.page(10) == some_records(3)[::-1]
        await store.close()


async def test_a_database_of_the_first_schema_is_taken_up_with_its_records(file, monkeypatch):
    store = SqliteStore(f"sqlite:///{file}")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "MIGRATIONS", sqlite_database.MIGRATIONS[:1])
        await store.open()
        await store.close()
    records = some_records(3)
    with closing(sqlite3.connect(file)) as connection, connection:
        rows = [sqlite_module.values_of(record)[: len(USUAL)] for record in records]
        connection.executemany(sqlite_module._insert(USUAL), rows)
    await store.open()
    assert await store.page(10) == records[::-1]
    assert await store.set_outcome(records[0].id, success=True, at=records[0].created_at)
    assert [each.shadow for each in await all_labelled(store)] == [None]
    await store.close()


async def test_a_migration_that_fails_changes_nothing(file, monkeypatch):
    broken = (*sqlite_database.MIGRATIONS[0], "CREATE TABLE oops (")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "MIGRATIONS", (broken,))
        with pytest.raises(StoreUnavailable):
            await SqliteStore(f"sqlite:///{file}").open()
    store = SqliteStore(f"sqlite:///{file}")
    await store.open()
    assert await store.count() == 0
    await store.close()


def test_the_table_has_the_columns_that_the_code_knows(other):
    found = [row[1] for row in other.execute("PRAGMA table_info(predictions)")]
    assert tuple(found) == COLUMNS


async def test_a_locked_file_is_unavailable_then_heals(store, other):
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.add(some_records(1))
    assert await store.count() == 0  # readers do not wait for writers
    other.execute("COMMIT")
    await store.add(some_records(1))
    assert await store.count() == 1


async def test_a_file_locked_at_the_start_is_unavailable_then_opens(file):
    database(file, "CREATE TABLE theirs (id INTEGER)")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store = SqliteStore(f"sqlite:///{file}", busy=0.1)
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.open()
    holder.execute("COMMIT")
    holder.close()
    await store.add(some_records(2))  # it connects by itself once it can
    assert await store.count() == 2
    await store.close()


async def test_a_removed_file_is_made_anew(file, store):
    await store.add(some_records(2))
    for each in file.parent.iterdir():
        each.unlink()
    await store.add([record_at(START + 5)])
    assert await store.page(10) == [record_at(START + 5)]
    assert file.exists()


async def test_a_replaced_file_is_what_is_read_from_then_on(tmp_path, file, store):
    backup = SqliteStore(f"sqlite:///{tmp_path}/backup.db")
    await backup.open()
    await backup.add(some_records(3))
    await backup.close()
    for name in ("kicks.db-wal", "kicks.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "backup.db").replace(file)
    assert await store.count() == 3


async def test_a_table_that_is_gone_is_unavailable(store, other):
    other.execute("DROP TABLE predictions")
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_a_full_disk_is_unavailable(store, other):
    page_count = other.execute("PRAGMA page_count").fetchone()[0]
    async with store._database._using((await store._database._connected()).writer) as connection:
        await connection.execute(f"PRAGMA max_page_count = {page_count + 1}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.add(some_records(500))
    assert await store.count() == 0


async def test_a_record_that_does_not_fit_is_refused_as_unfit(store):
    record = record_at(START)
    record.model = None
    with pytest.raises(RecordUnfit, match="can't hold this record"):
        await store.add([record])
    with pytest.raises(RecordUnfit, match="can't hold this record"):
        await store.add([record_at(START, status_code=1 << 64)])


async def test_a_damaged_file_says_to_restore_it(file, store):
    await store.add(some_records(3_000))
    await store.close()
    with file.open("r+b") as damaged:
        damaged.seek(4_096)
        damaged.write(os.urandom(200_000))
    with pytest.raises(StoreMisconfigured, match="damaged"):
        await streamed(await opened(store))


async def test_a_store_that_is_closed_says_so(store):
    await store.close()
    with pytest.raises(StoreUnavailable, match=r"open\(\) first"):
        await store.count()


async def test_closing_waits_for_what_is_under_way(store):
    adding = [asyncio.create_task(store.add([record])) for record in some_records(50)]
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.gather(*adding, return_exceptions=True)
    assert all(each is None or isinstance(each, StoreUnavailable) for each in outcomes)
    await store.open()
    assert await store.count() == sum(each is None for each in outcomes)


def test_judged_are_read_from_their_index_alone(other):
    plan = other.execute(
        "EXPLAIN QUERY PLAN SELECT id, created_at, model, prediction, outcome FROM predictions"
        " WHERE outcome IS NOT NULL AND prediction IS NOT NULL AND id >= '0' AND id < 'f' ORDER BY id"
    ).fetchall()
    assert "USING COVERING INDEX predictions_judged" in plan[0][3]


async def test_a_stream_whose_rest_is_deleted_ends(store):
    await store.add(some_records(1_500))
    stream = store.stream()
    assert len(await anext(stream)) == STREAM_GROUP
    await store.purge(instant(START + 10**9), 2_000)
    assert [group async for group in stream] == []


_OPEN = """
import asyncio, sys
from kickserve_testing.contract import record_at
from kickserve_storage.sqlite import SqliteStore

async def main(url, number):
    store = SqliteStore(url)
    await store.open()
    for at in range(50):
        await store.add([record_at(1_790_000_000_000 + at, number=number)])
    await store.close()

print(flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_that_open_one_new_file_at_once_all_work(file):
    url = f"sqlite:///{file}"
    run_together(_OPEN, url)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (200,)
    connection.close()


def test_a_statement_of_many_rows_has_no_more_values_than_sqlite_takes(other):
    longest = sqlite_module._insert((*USUAL, *SHADOW), sqlite_module._TOGETHER)
    assert longest.count("?") <= other.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)


@pytest.mark.parametrize(("version", "most"), [((3, 31, 1), 999), ((3, 32, 0), 32_766)])
def test_an_older_sqlite_gets_statements_that_it_takes(monkeypatch, version, most):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    spec = importlib.util.find_spec("kickserve_storage.sqlite")
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert older._insert((*USUAL, *SHADOW), older._TOGETHER).count("?") <= most
    rows = [row for _, rows in older._statements([batch_at(START, 300)]) for row in rows]
    assert sum(map(len, rows)) == 300 * len(USUAL)
