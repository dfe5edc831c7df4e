"""The plugin storage: which store a URL leads to; SQLite as a store, and what only a file can do to one."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from together import run_together

import kickserve_storage
from kickserve.errors import MissingExtra, RecordUnfit, StoreMisconfigured, StoreUnavailable
from kickserve.plugins import create_store, discover
from kickserve.settings import Settings
from kickserve_storage import create_plugin, sqlite
from kickserve_storage.sqlite import SqliteStore
from kickserve_storage.table import LABELLED
from kickserve_testing.contract import START, StoreContract, batch_at, keep, some_records, streamed


@pytest.fixture
def plugin():
    return create_plugin(Settings())


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("sqlite:////tmp/kicks.db", "sqlite:////tmp/kicks.db"),
        ("sqlite+aiosqlite:////tmp/kicks.db", "sqlite:////tmp/kicks.db"),
        ("SQLite:////tmp/a%20folder/what%3F.db", "sqlite:////tmp/a folder/what?.db"),
        ("sqlite://", "sqlite:///:memory:"),
        ("sqlite:///", "sqlite:///:memory:"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgres://app:secret@db.example:5433/kicks", "postgresql://app@db.example:5433/kicks"),
        ("postgresql+psycopg2://app:secret@db/kicks", "postgresql://app@db/kicks"),
    ],
)
def test_a_url_leads_to_its_store_by_any_driver(plugin, url, label):
    assert plugin.create_store(url).label == label


def test_a_relative_path_is_from_where_the_service_starts(plugin):
    assert plugin.create_store("sqlite:///kicks.db").label == f"sqlite:///{Path.cwd() / 'kicks.db'}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://kicks.db", "three slashes"),
        ("sqlite:///kicks.db?mode=ro", "takes no parameters"),
        ("sqlite://[/x.db", "can't be understood"),
        ("mysql://app:secret@db/kicks", "'mysql:'"),
    ],
)
def test_another_url_is_refused(url, words):
    with pytest.raises(StoreMisconfigured, match=rf"DATABASE_URL.*{words}"):
        create_store(discover(Settings()), url)


def test_missing_asyncpg_names_the_extra(plugin, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        kickserve_storage, "find_spec", lambda name: None if name == "asyncpg" else real(name)
    )
    with pytest.raises(MissingExtra, match=r"kickserve\[postgres\]"):
        plugin.create_store("postgresql://db/kicks")


def test_sqlite_does_not_load_the_driver_of_postgres():
    code = (
        "import sys; from kickserve.settings import Settings; from kickserve_storage import create_plugin;"
        "plugin = create_plugin(Settings()); assert 'aiosqlite' not in sys.modules;"
        "plugin.create_store('sqlite://'); assert 'asyncpg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kicks.db"


@pytest.fixture
async def store(file):
    store = SqliteStore(f"sqlite:///{file}", busy=0.2)
    await store.open()
    yield store
    await store.close()


class TestSqliteFile(StoreContract):
    """With the store above."""


class TestSqliteMemory(StoreContract):
    durable = False

    @pytest.fixture
    async def store(self):
        store = SqliteStore("sqlite://")
        await store.open()
        yield store
        await store.close()


@pytest.fixture
def other(file, store):  # noqa: ARG001 - the table must be there
    """Another program's connection to the same file."""
    connection = sqlite3.connect(file, isolation_level=None)
    yield connection
    connection.close()


def database(file, *statements):
    """Make a file as another program does."""
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("place", "words"), [("nowhere/kicks.db", r"the folder .*nowhere"), ("", "is a folder")]
)
async def test_a_place_where_no_file_can_be_is_named(tmp_path, place, words):
    with pytest.raises(StoreMisconfigured, match=words):
        await SqliteStore(f"sqlite:///{tmp_path}/{place}").open()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(file):
    file.write_bytes(b"minutes of the annual meeting\n" * 50)
    with pytest.raises(StoreMisconfigured, match="no SQLite database"):
        await SqliteStore(f"sqlite:///{file}").open()
    assert file.read_bytes() == b"minutes of the annual meeting\n" * 50


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["CREATE TABLE predictions (id INTEGER)"], "another program"),
        (["PRAGMA user_version = 1"], "another program"),
        (["PRAGMA application_id = 7", "CREATE TABLE theirs (id INTEGER)"], "another program"),
        ([f"PRAGMA application_id = {sqlite.APPLICATION}", "PRAGMA user_version = 99"], "upgrade kickserve"),
    ],
)
async def test_a_database_of_another_program_or_a_newer_kickserve_is_refused(file, statements, words):
    database(file, *statements)
    with pytest.raises(StoreMisconfigured, match=words):
        await SqliteStore(f"sqlite:///{file}").open()


async def test_a_migration_that_fails_changes_nothing(store, monkeypatch):
    await keep(store, some_records(3))
    await store.close()
    broken = ("ALTER TABLE predictions ADD COLUMN spin REAL", "CREATE TABLE oops (")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, broken))
        with pytest.raises(StoreUnavailable):
            await store.open()
    await store.open()
    assert await store.page(10) == some_records(3)[::-1]


async def test_a_locked_file_is_unavailable_then_heals(store, other):
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await keep(store, some_records(1))
    assert await store.count() == 0  # readers do not wait for writers
    other.execute("COMMIT")
    await keep(store, some_records(1))
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
    await keep(store, some_records(2))  # it connects by itself once it can
    assert await store.count() == 2
    await store.close()


async def test_a_table_that_is_gone_is_unavailable(store, other):
    other.execute("DROP TABLE predictions")
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_a_full_disk_is_unavailable(store, other):
    page_count = other.execute("PRAGMA page_count").fetchone()[0]
    async with store._using(write=True) as connection:
        await connection.execute(f"PRAGMA max_page_count = {page_count + 1}")
    with pytest.raises(StoreUnavailable, match="full"):
        await keep(store, some_records(500))
    assert await store.count() == 0


@pytest.mark.parametrize("change", [{"model": None}, {"status_code": 1 << 64}])
async def test_a_record_that_does_not_fit_is_refused_as_unfit(store, change):
    with pytest.raises(RecordUnfit, match="can't hold this record"):
        await store.add([batch_at(START, **change)])


async def test_a_damaged_file_says_to_restore_it(file, store):
    await keep(store, some_records(3_000))
    await store.close()
    with file.open("r+b") as damaged:
        damaged.seek(4_096)
        damaged.write(os.urandom(200_000))
    await store.open()
    with pytest.raises(StoreMisconfigured, match="damaged"):
        await streamed(store)


async def test_closing_waits_for_what_is_under_way(store):
    adding = [asyncio.create_task(keep(store, [record])) for record in some_records(50)]
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.gather(*adding, return_exceptions=True)
    assert all(each is None or isinstance(each, StoreUnavailable) for each in outcomes)
    await store.open()
    assert await store.count() == sum(each is None for each in outcomes)


def test_labelled_predictions_are_read_from_their_index_alone(other):
    [plan] = other.execute(f"EXPLAIN QUERY PLAN {LABELLED}", {"1": "0", "2": "f", "3": None, "4": 9})
    assert "USING COVERING INDEX predictions_judged" in plan[3]


_OPEN = """
import asyncio, sys
from kickserve_testing.contract import keep, record_at
from kickserve_storage.sqlite import SqliteStore
from kickserve_storage.table import LABELLED

async def main(url, number):
    store = SqliteStore(url)
    await store.open()
    for at in range(50):
        await keep(store, [record_at(1_790_000_000_000 + at, number=number)])
    await store.close()

print(flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_that_open_one_new_file_at_once_all_work(file):
    run_together(_OPEN, f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (200,)
