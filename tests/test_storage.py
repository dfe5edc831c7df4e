"""The plugin storage: which store a URL leads to; SQLite as a store, and what only a file can do to one."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import debian
import httpx
import pytest
from old_databases import old_records, old_sql
from serving import BARE, eventually, serving, until
from together import run_together

import kickserve_storage
from kickserve.errors import MissingExtra, RecordUnfit, StoreMisconfigured, StoreUnavailable
from kickserve.openapi import EXAMPLE
from kickserve.plugins import create_store, discover
from kickserve.record import SetOutcome
from kickserve.settings import Settings
from kickserve.store import BEGINNING
from kickserve_storage import create_plugin, sqlite
from kickserve_storage.sqlite import SqliteStore
from kickserve_storage.table import LABELLED
from kickserve_testing.contract import START, UNKNOWN, StoreContract, batch_at, keep, some_records, streamed


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
        ("sqlite://app:secret@db/kicks", "three slashes"),
        ("sqlite:///kicks.db?password=secret", "takes no parameters"),
        ("sqlite://[secret/x.db", "can't be understood"),
        ("mysql+secret://app:secret@db/kicks", "'mysql:'"),
        ("host=db user=app password=secret", "no scheme"),
        ("app%3Asecret@db/kicks", "no scheme"),
    ],
)
def test_another_url_is_refused_and_no_password_shown(url, words):
    with pytest.raises(StoreMisconfigured, match=rf"DATABASE_URL.*{words}") as caught:
        create_store(discover(Settings()), url)
    assert "secret" not in str(caught.value)


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


async def test_after_ten_thousand_changes_without_a_look_all_outcomes_are_read(store):
    batch = batch_at(START, 5_100)
    await store.add([batch])
    mark, _ = await store.outcome_changes()
    for seconds in range(2):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        await store.set_outcomes([SetOutcome(each, success=True, at=at) for each in batch.ids.texts()])
    mark, first = await store.outcome_changes(mark)
    assert first == BEGINNING
    assert (await store.outcome_changes(mark)).first is None


@pytest.mark.parametrize("new", [4, 0])
async def test_a_file_that_is_replaced_or_removed_while_it_is_open_is_taken_up_whole(file, new, caplog):
    stores = [SqliteStore(f"sqlite:///{file}") for _ in range(2)]  # as two workers have it
    for each in stores:
        await each.open()
        await each.add([batch_at(START, 3_000)])
    await stores[0].delete(batch_at(START).ids.texts()[0])  # in the WAL, and so nowhere else
    mark, _ = await stores[0].outcome_changes()
    file.rename(f"{file}.old")
    if new:
        restored = SqliteStore(f"sqlite:///{file}.new")
        await restored.open()
        await restored.add([batch_at(START - 1, new)])
        await restored.close()
        file.with_suffix(".db.new").rename(file)

    async def taken_up():
        return [await each.count() for each in stores] == [new, new]

    await eventually(taken_up)
    assert (await stores[0].outcome_changes(mark)).first == BEGINNING
    for at, each in enumerate(stores):
        await each.add([batch_at(START + 1, 5, tail=f"{at:012x}")])
        assert await each.count() == new + 5 * (at + 1)
    for each in stores:
        await each.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (new + 10,)
    assert "kickserve restore" in caplog.text


async def test_a_closed_file_is_whole_without_its_wal(tmp_path):
    for number in range(20):  # connections that close at once leave it in one case of four
        store = SqliteStore(f"sqlite:///{tmp_path}/{number}.db")
        await store.open()
        await store.add([batch_at(START, 4)])
        await store.close()
    assert not [*tmp_path.glob("*-wal")]


_KILLED = """
import asyncio, os, signal, sys
from kickserve_testing.contract import START, batch_at
from kickserve_storage.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.add([batch_at(START, 3_000)])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def moved_elsewhere(*files):
    for each in files:
        shutil.copy(each, f"{each}.copy")
        Path(f"{each}.copy").rename(each)


@pytest.mark.parametrize("moved", ["a backup", "both", "neither"])
async def test_the_wal_of_a_killed_process_goes_into_its_own_file_alone(tmp_path, file, moved):
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _KILLED, f"sqlite:///{file}"], check=False)
    if moved == "a backup":
        backup = SqliteStore(f"sqlite:///{tmp_path}/backup.db")
        await backup.open()
        await backup.add([batch_at(START - 1, 4)])
        await backup.close()
        (tmp_path / "backup.db").rename(file)
    if moved == "both":
        await asyncio.to_thread(moved_elsewhere, file, tmp_path / "kicks.db-wal")
    store = SqliteStore(f"sqlite:///{file}")
    await store.open()
    assert await store.count() == (4 if moved == "a backup" else 3_000)
    await store.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_what_is_written_as_the_file_is_replaced_is_not_taken_for_kept(file, store):
    with pytest.raises(StoreUnavailable, match="replaced"):
        async with store._using(write=True):
            file.rename(f"{file}.old")
    await store.add([batch_at(START)])
    assert await store.count() == 1


async def test_a_disk_that_hangs_is_unavailable_and_keeps_nothing_from_closing(file, monkeypatch):
    monkeypatch.setattr(sqlite, "_CLOSING", 0.2)
    threads, back = threading.active_count(), threading.Event()
    store, closed = SqliteStore(f"sqlite:///{file}", limit=2), SqliteStore(f"sqlite:///{file}")
    for each in (store, closed):
        await each.open()
        async with each._using(write=True) as connection:
            await connection.create_function("hang", 0, back.wait)
    calls = (each._change("SELECT hang()") for each in (store, closed))
    hanging = [asyncio.create_task(each) for each in calls]
    await asyncio.sleep(0)
    found = await asyncio.gather(store.count(), store.delete(UNKNOWN), hanging[0], return_exceptions=True)
    assert [type(each) for each in found] == [int, StoreUnavailable, StoreUnavailable]
    assert await store.delete(UNKNOWN) is False  # by new connections
    async with asyncio.timeout(60):
        await asyncio.gather(store.close(), closed.close())
    back.set()
    await asyncio.wait(hanging)
    await eventually(lambda: threading.active_count() <= threads)


def test_a_call_that_outlives_the_service_still_leaves_a_closed_file(file, monkeypatch):
    monkeypatch.setattr(sqlite, "_CLOSING", 0.05)
    with closing(sqlite3.connect(file, timeout=0)) as other:

        async def call_and_close():
            store = SqliteStore(f"sqlite:///{file}", busy=60)
            await store.open()
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(store.delete(UNKNOWN))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await store.close()

        def is_alone():
            with suppress(sqlite3.OperationalError):  # only the last connection can leave WAL mode
                return other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)

        asyncio.run(call_and_close())
        other.execute("ROLLBACK")
        until(is_alone)


def test_the_file_and_its_wal_are_for_the_group_to_read_and_for_others_not_at_all(file):
    code = """
import asyncio, os, sys
from kickserve_storage.sqlite import SqliteStore
os.umask(0o022)
async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    print(*(oct(os.stat(sys.argv[2] + end).st_mode & 0o777) for end in ("", "-wal", "-shm")))
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{file}", file], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0o640"] * 3


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


def ids_of(server):
    return {each["id"] for each in httpx.get(f"{server.url}/predictions?limit=1000").json()}


def test_a_running_service_is_backed_up_and_restored(tmp_path, kickserve):
    with serving(tmp_path, **BARE) as server:

        def predict(count):
            batch = httpx.post(f"{server.url}/predict/batch", json=[EXAMPLE] * count).json()
            return {each["id"] for each in batch}

        before = predict(300)
        assert ids_of(server) == before
        code, out, _ = kickserve("backup", "kicks.db", "--json")
        assert (code, json.loads(out)["predictions"]) == (0, 300)
        deleted, after = min(before), predict(5)
        httpx.delete(f"{server.url}/predictions/{deleted}").raise_for_status()
        assert ids_of(server) == before - {deleted} | after
        code, out, _ = kickserve("restore", "kicks.db", "--yes", "--json")
        assert (code, json.loads(out)["replaced"]) == (0, 304)
        assert ids_of(server) == before, "all that the backup has, and nothing else"
        last = predict(2)
        assert ids_of(server) == before | last
        assert server.end() == 0
        assert not server.log or "replaced" not in "".join(server.log)
    with closing(sqlite3.connect("kickserve.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {each for (each,) in connection.execute("SELECT id FROM predictions")} == before | last
    assert (tmp_path / "kicks.db").stat().st_mode & 0o007 == 0


def test_a_backup_of_an_older_kickserve_is_restored_with_the_schema_of_this_one(kickserve):
    with closing(sqlite3.connect("old.db")) as connection:
        connection.executescript(old_sql("sqlite", 1))
    assert kickserve("restore", "old.db")[0] == 0  # into no database: there is nothing to ask for
    code, out, _ = kickserve("export", "--output", "kicks.ndjson", "--json")
    assert (code, json.loads(out)["predictions"]) == (0, len(old_records(1)))


@pytest.mark.parametrize(
    ("arguments", "url", "words"),
    [
        (["backup", "kickserve.db", "--force"], "", "name another file"),
        (["backup", "there.db"], "", "--force"),
        (["backup", "nowhere/kicks.db"], "", "can't be opened"),
        (["backup", "new.db"], "sqlite:///nowhere.db", "does not exist"),
        (["backup", "new.db"], "sqlite://", "no file"),
        (["backup", "new.db"], "postgresql://app:secret@db/kicks", "pg_dump"),
        (["restore", "kickserve.db"], "", "the database itself"),
        (["restore", "copy.db"], "", "Replace 1 predictions"),
        (["restore", "there.db"], "", "no SQLite database"),
        (["restore", "theirs.db"], "", "no backup"),
        (["restore", "cut.db"], "", "damaged"),
    ],
)
def test_what_can_not_be_backed_up_or_restored_is_refused(
    tmp_path, kickserve, monkeypatch, arguments, url, words
):
    assert kickserve("predict", "--distance", 40, "--angle", 5)[0] == 0
    assert kickserve("backup", "copy.db")[0] == 0
    (tmp_path / "there.db").write_text("minutes of the annual meeting" * 9)
    database(tmp_path / "theirs.db", "CREATE TABLE theirs (id INTEGER)")
    whole = (tmp_path / "kickserve.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(sys, "stdin", io.StringIO("n"))
    if url:
        monkeypatch.setenv("DATABASE_URL", url)
    code, out, err = kickserve(*arguments)
    assert code != 0
    assert words in out + err
    assert "secret" not in out + err
    assert (tmp_path / "kickserve.db").read_bytes() == whole


def test_who_may_only_read_exports_also_beside_a_running_service(tmp_path):
    database = tmp_path / "theirs"
    database.mkdir()

    def export():
        for each in (*database.glob("kickserve.db*"), database):
            each.chmod(0o555)
        command = [sys.executable, "-m", "kickserve", "export", "--output", "kicks.ndjson", "--json"]
        if os.geteuid() == 0:  # whom no mode keeps from writing
            command[:0] = [debian.program("setpriv", "util-linux"), "--bounding-set=-dac_override"]
        environment = {**os.environ, "DATABASE_URL": f"sqlite:///{database}/kickserve.db"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        database.chmod(0o755)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["predictions"]

    with serving(database, **BARE) as server:
        httpx.post(f"{server.url}/predict/batch", json=[EXAMPLE] * 3).raise_for_status()
        assert len(ids_of(server)) == 3
        assert export() == 3
        assert server.end() == 0
    assert export() == 3
