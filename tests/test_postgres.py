"""Postgres as a store: the contract, and what only a server can do to one."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import timedelta

import anyio
import asyncpg
import pytest
from postgres import free_port
from together import run_together

from kickserve.errors import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable
from kickserve.ids import instant
from kickserve_storage import postgres as postgres_module
from kickserve_storage import postgres_server
from kickserve_storage.columns import COLUMNS, STREAM_GROUP, USUAL
from kickserve_storage.postgres import STREAMS, PostgresStore
from kickserve_storage.postgres_server import address_of
from kickserve_testing.contract import START, StoreContract, all_labelled, record_at, some_records, streamed


@pytest.fixture
async def store(postgres_schema):
    store = PostgresStore(postgres_schema, command_timeout=5)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(postgres_schema, store):  # noqa: ARG001 - the table must be there
    """Another program's connection to the same schema."""
    connection = await asyncpg.connect(postgres_schema)
    yield connection
    await connection.close()


class TestPostgres(StoreContract):
    """With the store above."""


class TestPostgresBehindAPooler(StoreContract):
    @pytest.fixture
    async def store(self, postgres_schema):
        store = PostgresStore(postgres_schema, statement_cache=0)
        await store.open()
        yield store
        await store.close()


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("postgresql://app:secret@db:5433/kicks", "postgresql://app@db:5433/kicks"),
        ("postgresql://app:s%40cret@db/kicks?sslmode=require", "postgresql://app@db/kicks"),
        ("postgresql://db/kicks?user=app&password=secret", "postgresql://app@db/kicks"),
        ("postgresql:///kicks?host=/run/postgresql", "postgresql:///run/postgresql/kicks"),
        ("postgresql://app@a:1,b:2/kicks", "postgresql://app@a:1,b:2/kicks"),
        ("postgresql://app@[::1]:5432/kicks", "postgresql://app@[::1]:5432/kicks"),
        ("postgresql://", "postgresql://localhost/"),
    ],
)
def test_the_label_shows_all_but_password_and_parameters(url, label):
    assert address_of(url).label == label


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:sec/ret@db/kicks",
        "postgresql://app:sec#ret@db/kicks",
        "postgresql://app:sec?ret@db/kicks",
        "postgresql://app:12/ret@db/kicks",
        "postgresql://app:12?ret@db/kicks",
        "postgresql://app:sec@ret@db/kicks",
        "postgresql://app:[sec@db/kicks",
        "postgresql://app:secret@db:port/kicks",
    ],
)
def test_a_url_that_can_not_be_read_is_not_shown(url):
    with pytest.raises(StoreMisconfigured, match="%40") as caught:
        address_of(url)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("sslmode=require", "?sslmode=require"),
        ("ssl=verify-full", "?sslmode=verify-full"),
        ("channel_binding=prefer&keepalives=1&application_name=kicks", "?application_name=kicks"),
    ],
)
def test_parameters_reach_asyncpg_as_it_spells_them(query, left):
    assert address_of(f"postgresql://db/kicks?{query}").dsn == f"postgresql://db/kicks{left}"


def test_the_connect_timeout_of_the_url_is_used():
    assert address_of("postgresql://db/kicks?connect_timeout=2").connect_timeout == 2
    assert address_of("postgresql://db/kicks").connect_timeout == 5
    with pytest.raises(StoreMisconfigured, match="connect_timeout"):
        address_of("postgresql://db/kicks?connect_timeout=soon")


def test_channel_binding_is_not_dropped_in_silence():
    with pytest.raises(StoreMisconfigured, match="channel_binding"):
        address_of("postgresql://db/kicks?channel_binding=require")


async def test_a_server_that_is_not_there_is_unavailable():
    port = free_port()
    store = PostgresStore(f"postgresql://app:secret@127.0.0.1:{port}/kicks")
    with pytest.raises(StoreUnavailable, match=f"app@127.0.0.1:{port}/kicks") as caught:
        await store.open()
    assert "secret" not in str(caught.value)
    await store.close()


async def test_a_server_that_never_answers_is_unavailable_and_no_hang():
    done = asyncio.Event()

    async def silent(_reader, writer):
        await done.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = PostgresStore(f"postgresql://app@127.0.0.1:{port}/kicks?connect_timeout=1")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await store.open()
    assert time.monotonic() - began < 4
    done.set()
    server.close()


def altered(url, **parts):
    """The URL with another user, password or database."""
    login, _, place = url.removeprefix("postgresql://").rpartition("@")
    user, _, password = login.partition(":")
    host, _, _ = place.partition("/")
    return (
        f"postgresql://{parts.get('user', user)}:{parts.get('password', password)}"
        f"@{host}/{parts.get('database', 'postgres')}"
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"password": "wrongsecret"}, "user or password"),
        ({"user": "nobody"}, "user or password"),
        ({"database": "nowhere"}, "no such database"),
    ],
)
async def test_what_the_operator_must_mend_is_misconfigured(postgres_cluster, parts, words):
    with pytest.raises(StoreMisconfigured, match=words) as caught:
        await PostgresStore(altered(postgres_cluster.url, **parts)).open()
    assert "wrongsecret" not in str(caught.value)


async def test_a_user_without_rights_is_told_which_to_grant(postgres_cluster):
    connection = await asyncpg.connect(postgres_cluster.url)
    await connection.execute("CREATE USER reader PASSWORD 'pw'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await connection.close()
    with pytest.raises(StoreMisconfigured, match="GRANT"):
        await PostgresStore(altered(postgres_cluster.url, user="reader", password="pw")).open()


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("sslmode=require", "no TLS"),
        ("sslmode=sometimes", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem, which is not there"),
        ("colour=blue", "takes? it out"),
    ],
)
async def test_parameters_that_can_not_be_met_are_misconfigured(postgres_url, parameter, words):
    with pytest.raises(StoreError, match=words):
        await PostgresStore(f"{postgres_url}{'&' if '?' in postgres_url else '?'}{parameter}").open()


async def test_the_store_heals_when_the_server_comes_back(postgres_cluster):
    store = PostgresStore(postgres_cluster.url, command_timeout=5)
    await store.open()
    await store.add(some_records(3))
    await asyncio.gather(*(store.count() for _ in range(4)))  # fills the pool with connections
    for mode in ("fast", "immediate"):
        await asyncio.to_thread(postgres_cluster.stop, mode)
        for call in (store.ping(), store.count(), store.add(some_records(4)), streamed(store)):
            with pytest.raises(StoreUnavailable):
                await call
        await asyncio.to_thread(postgres_cluster.start)
        await store.add(some_records(4))
        assert await store.count() == 4
    await store.close()


async def test_a_store_opened_while_the_server_is_down_opens_later(postgres_cluster):
    await asyncio.to_thread(postgres_cluster.stop)
    store = PostgresStore(postgres_cluster.url)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.open()
    await asyncio.to_thread(postgres_cluster.start)
    await store.add(some_records(2))  # it connects by itself
    assert await store.count() == 2
    await store.close()


async def test_too_many_connections_are_unavailable(postgres_cluster):
    held = [await asyncpg.connect(postgres_cluster.url) for _ in range(8)]
    with pytest.raises(StoreUnavailable, match="out of connections"):
        await PostgresStore(postgres_cluster.url).open()
    for each in held:
        await each.close()


async def test_a_stream_that_the_server_ends_is_unavailable(postgres_cluster):
    store = PostgresStore(postgres_cluster.url)
    await store.open()
    await store.add(some_records(2_500))
    stream = store.stream()
    assert len(await anext(stream)) == STREAM_GROUP
    await asyncio.to_thread(postgres_cluster.stop, "immediate")
    with pytest.raises(StoreUnavailable):
        await anext(stream)
    await store.close()


async def test_a_locked_table_is_unavailable_and_no_hang(postgres_schema, other):
    store = PostgresStore(postgres_schema, command_timeout=0.5)
    await store.open()
    async with other.transaction():
        await other.execute("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await store.add(some_records(1))
    await store.add(some_records(1))
    assert await store.count() == 1
    await store.close()


async def test_slow_readers_leave_connections_to_everybody_else(postgres_schema):
    store = PostgresStore(postgres_schema, command_timeout=0.5)
    await store.open()
    await store.add(some_records(1_500))
    streams = [store.stream() for _ in range(STREAMS)]
    for each in streams:
        await anext(each)
    with pytest.raises(StoreUnavailable, match="exports are under way"):
        await anext(store.stream())
    await store.add([record_at(START - 1)])
    for each in streams:
        await each.aclose()
    assert len(await streamed(store)) == 1_501
    await store.close()


async def test_a_reader_that_goes_away_leaves_no_transaction_behind(postgres_schema, caplog):
    store = PostgresStore(postgres_schema)
    await store.open()
    await store.add(some_records(10 * STREAM_GROUP))

    async def read(read_on):
        async for _ in store.stream():
            read_on.set()

    for _ in range(3 * STREAMS):
        async with anyio.create_task_group() as readers:  # as the server does: cancelled at every await
            readers.start_soon(read, read_on := anyio.Event())
            await read_on.wait()
            readers.cancel_scope.cancel()
    assert len(await store.page(1)) == 1
    await store.close()
    assert not caplog.records


async def test_closing_does_not_wait_for_a_stream_for_ever(postgres_schema):
    store = PostgresStore(f"{postgres_schema}&connect_timeout=1")
    await store.open()
    await store.add(some_records(1_500))
    stream = store.stream()
    await anext(stream)
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < 4
    with pytest.raises(StoreUnavailable):
        await anext(stream)


async def test_a_closed_store_says_so(store):
    await store.close()
    with pytest.raises(StoreUnavailable, match=r"open\(\) first"):
        await store.count()


async def test_a_newer_schema_says_to_upgrade(store, other):
    await store.close()
    await other.execute("UPDATE kickserve_schema SET version = 99")
    with pytest.raises(StoreMisconfigured, match=r"schema 99.*upgrade kickserve"):
        await store.open()


async def test_a_migration_keeps_what_is_there_and_happens_once(store, monkeypatch):
    await store.add(some_records(3))
    await store.close()
    more = (*postgres_server.MIGRATIONS, "ALTER TABLE predictions ADD COLUMN spin double precision")
    monkeypatch.setattr(postgres_server, "MIGRATIONS", more)
    for _ in range(2):
        await store.open()
        assert await store.page(10) == some_records(3)[::-1]
        await store.close()


@pytest.fixture
async def first_schema(postgres_schema, monkeypatch):
    """URL of a database of the first schema, with three predictions in it."""
    with monkeypatch.context() as patch:
        patch.setattr(postgres_server, "MIGRATIONS", postgres_server.MIGRATIONS[:1])
        store = PostgresStore(postgres_schema)
        await store.open()
        await store.close()
    connection = await asyncpg.connect(postgres_schema)
    rows = [postgres_module.values_of(record)[: len(USUAL)] for record in some_records(3)]
    await connection.execute(postgres_module._insert(USUAL), *zip(*rows, strict=True))
    await connection.close()
    return postgres_schema


async def test_a_database_of_the_first_schema_is_taken_up_with_all_that_is_in_it(first_schema):
    records = some_records(3)
    store = PostgresStore(first_schema)
    await store.open()
    assert await store.page(10) == records[::-1]
    assert await store.set_outcome(records[0].id, success=True, at=records[0].created_at)
    assert [each.shadow for each in await all_labelled(store)] == [None]
    await store.close()


async def test_a_migration_does_not_make_everybody_wait_behind_an_export(first_schema):
    store = PostgresStore(first_schema)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        reader, writer = [await asyncpg.connect(first_schema) for _ in range(2)]
        for each in (reader, writer):
            stack.callback(each.terminate)
        async with reader.transaction():
            await reader.fetch("SELECT id FROM predictions")  # holds on to the table as it is
            opening = asyncio.create_task(store.open())
            await asyncio.sleep(0.3)
            await writer.execute("UPDATE predictions SET outcome = true", timeout=10)
            with pytest.raises(StoreUnavailable):
                await opening
        assert await store.count() == 3
        versions = await reader.fetch("SELECT version FROM kickserve_schema")
        assert versions == [(len(postgres_server.MIGRATIONS),)]


async def test_a_migration_may_take_longer_than_a_command(first_schema, monkeypatch):
    more = (*postgres_server.MIGRATIONS, "SELECT pg_sleep(1.5)")
    monkeypatch.setattr(postgres_server, "MIGRATIONS", more)
    first, second = (PostgresStore(first_schema, command_timeout=0.5) for _ in range(2))
    migrating = asyncio.create_task(first.open())
    await asyncio.sleep(0.2)
    with pytest.raises(StoreUnavailable):  # and its predictions wait in the journal
        await second.open()
    await migrating
    assert await second.count() == await first.count() == 3
    await first.close()
    await second.close()


async def test_the_table_of_another_program_is_left_alone(postgres_schema):
    connection = await asyncpg.connect(postgres_schema)
    await connection.execute("CREATE TABLE predictions (id integer)")
    with pytest.raises(StoreMisconfigured, match="another program"):
        await PostgresStore(postgres_schema).open()
    assert await connection.fetchval("SELECT to_regclass('kickserve_schema')") is None
    await connection.close()


async def test_the_table_has_the_columns_that_the_code_knows(other):
    rows = await other.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'predictions'::regclass AND attnum > 0"
        " ORDER BY attnum"
    )
    assert tuple(row[0] for row in rows) == COLUMNS


async def test_a_record_that_does_not_fit_is_refused_as_unfit(store):
    for change in ({"model": None}, {"distance": "far"}, {"status_code": 1 << 40}):
        with pytest.raises(RecordUnfit, match="can't hold this record"):
            await store.add([record_at(START, **change)])


async def test_a_page_walks_the_primary_key(store, other):
    await store.add(some_records(5_000))
    await other.execute("ANALYZE predictions")
    plan = await other.fetch(
        "EXPLAIN SELECT * FROM predictions WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT 100",
        record_at(START).id,
        record_at(START + 4_000_000).id,
    )
    assert "Index Scan Backward using predictions_2026_09_pkey" in "\n".join(row[0] for row in plan)


_OPEN = """
import asyncio, sys
from kickserve_testing.contract import record_at
from kickserve_storage.postgres import PostgresStore

async def main(url, number):
    store = PostgresStore(url)
    await store.open()
    await store.add([record_at(1_790_000_000_000 + at, number=number) for at in range(50)])
    await store.close()

print(flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_that_open_one_new_database_at_once_all_work(postgres_schema):
    run_together(_OPEN, postgres_schema)

    async def counted():
        store = PostgresStore(postgres_schema)
        await store.open()
        assert await store.purge(instant(START) + timedelta(days=1), 1_000) == 200
        await store.close()

    asyncio.run(counted())


def test_processes_that_open_one_old_database_at_once_all_work(first_schema):
    run_together(_OPEN, first_schema)
    written = {record_at(START + at, number=number).id for number in range(4) for at in range(50)}

    async def looked_at():
        connection = await asyncpg.connect(first_schema)
        assert await connection.fetch("SELECT version FROM kickserve_schema") == [
            (len(postgres_server.MIGRATIONS),)
        ]
        found = {str(row[0]) for row in await connection.fetch("SELECT id FROM predictions")}
        assert found == written | {record.id for record in some_records(3)}
        await connection.close()

    asyncio.run(looked_at())
