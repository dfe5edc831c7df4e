"""Postgres as a store: the contract, what only a server can do to one, and its table in months."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import debian
import pytest
from postgres import binaries, free_port

from kickserve.errors import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable
from kickserve.ids import instant
from kickserve.record import SetOutcome
from kickserve.store import BEGINNING, Retention
from kickserve_storage import postgres_months as months
from kickserve_storage.postgres import _DELETE, PostgresStore
from kickserve_storage.postgres_server import address_of
from kickserve_testing.contract import (
    SET_AT,
    START,
    StoreContract,
    all_labelled,
    batch_at,
    keep,
    record_at,
    some_records,
    streamed,
)


@pytest.fixture
async def store(postgres_schema):
    store = PostgresStore(postgres_schema, command_timeout=60)
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


async def test_behind_a_pooler_it_works_without_prepared_statements(postgres_schema):
    store = PostgresStore(postgres_schema, statement_cache=0)
    await store.open()
    await keep(store, some_records(600))
    await store.add([batch_at(START + 10**9, 3)])
    assert len(await streamed(store)) == await store.count() == 603
    assert await store.page(600, until=instant(START + 10**9)) == some_records(600)[::-1]
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
        ("postgresql://app%3Asecret@db/kicks", "postgresql://app@db/kicks"),
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
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.open()
    done.set()
    server.close()


def altered(url, **parts):
    """The URL with another user, password or database."""
    login, _, place = url.removeprefix("postgresql://").rpartition("@")
    user, _, password = login.partition(":")
    host, _, end = place.partition("/")
    database, _, query = end.partition("?")
    found = {"user": user, "password": password, "database": database, **parts}
    return f"postgresql://{found['user']}:{found['password']}@{host}/{found['database']}?{query}"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"password": "wrongsecret"}, "user or password"),
        ({"user": "nobody"}, "user or password"),
        ({"database": "nowhere"}, "the database does not exist"),
    ],
)
async def test_what_the_operator_must_mend_is_misconfigured(postgres_schema, parts, words):
    with pytest.raises(StoreMisconfigured, match=words) as caught:
        await PostgresStore(altered(postgres_schema, **parts)).open()
    assert "wrongsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("sslmode=require", "no TLS"),
        ("sslmode=sometimes", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem, which is not there"),
        ("colour=blue", "takes? it out"),
        ("channel_binding=require", "channel_binding"),
        ("connect_timeout=soon", "connect_timeout"),
    ],
)
async def test_parameters_that_can_not_be_met_are_misconfigured(postgres_schema, parameter, words):
    with pytest.raises(StoreError, match=words):
        await PostgresStore(f"{postgres_schema}&{parameter}").open()


def test_the_home_of_another_user_does_not_keep_it_from_connecting(postgres_schema, tmp_path):
    home = tmp_path / "theirs"
    home.mkdir(mode=0)
    command = [sys.executable, "-m", "kickserve", "export", "--output", "kicks.csv"]
    if os.geteuid() == 0:  # whom no mode keeps out
        command[:0] = [
            debian.program("setpriv", "util-linux"),
            "--bounding-set=-dac_override,-dac_read_search",
        ]
    environment = {**os.environ, "DATABASE_URL": postgres_schema, "HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    home.rmdir()
    assert done.returncode == 0, done.stderr


async def test_the_store_heals_when_the_server_comes_back(postgres_cluster):
    store = PostgresStore(postgres_cluster.url, command_timeout=60)
    await store.open()
    await keep(store, some_records(3))
    await asyncio.gather(*(store.count() for _ in range(4)))  # fills the pool with connections
    for mode in ("fast", "immediate"):
        await asyncio.to_thread(postgres_cluster.stop, mode)
        for call in (store.ping(), store.count(), keep(store, some_records(4)), streamed(store)):
            with pytest.raises(StoreUnavailable):
                await call
        await asyncio.to_thread(postgres_cluster.start)
        await keep(store, some_records(4))
        assert await store.count() == 4
    await store.close()


async def test_a_server_that_hangs_is_unavailable_and_keeps_nothing_from_closing(postgres_cluster):
    stores = [PostgresStore(f"{postgres_cluster.url}&connect_timeout=1", command_timeout=2) for _ in range(2)]
    for each in stores:
        await each.open()
    with postgres_cluster.frozen():
        for call in (stores[0].ping(), keep(stores[0], some_records(3)), streamed(stores[0])):
            async with asyncio.timeout(30):
                with pytest.raises(StoreUnavailable):
                    await call
        adding = asyncio.create_task(keep(stores[1], some_records(3)))
        await asyncio.sleep(0.1)
        adding.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait([adding])
            await stores[1].close()
    await keep(stores[0], some_records(4))
    assert await stores[0].count() == 4
    await stores[0].close()


async def test_a_store_opened_while_the_server_is_down_opens_later(postgres_cluster):
    await asyncio.to_thread(postgres_cluster.stop)
    store = PostgresStore(postgres_cluster.url)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.open()
    await asyncio.to_thread(postgres_cluster.start)
    await keep(store, some_records(2))  # it connects by itself
    assert await store.count() == 2
    await store.close()


async def test_too_many_connections_are_unavailable(postgres_cluster):
    held = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            held.append(await asyncpg.connect(postgres_cluster.url))
    with pytest.raises(StoreUnavailable, match="out of connections"):
        await PostgresStore(postgres_cluster.url).open()
    for each in held:
        await each.close()


async def test_a_locked_table_is_unavailable_and_no_hang(postgres_schema, other):
    store = PostgresStore(postgres_schema, command_timeout=2)
    await store.open()
    async with other.transaction():
        await other.execute("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            await keep(store, some_records(1))
    await keep(store, some_records(1))
    assert await store.count() == 1
    await store.close()


async def test_a_record_deleted_while_its_batch_is_added_again_does_not_come_back(store, other):
    batch = batch_at(START, 3)
    await store.add([batch])
    deleting = other.transaction()
    await deleting.start()
    await other.execute(_DELETE, batch.ids.texts()[1])  # as another process does
    adding = asyncio.create_task(store.add([batch]))
    async with asyncio.timeout(60):
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
    await deleting.commit()
    await adding
    assert [record.id for record in await streamed(store)] == batch.ids.texts()[::2]


async def test_an_outcome_is_noticed_when_its_transaction_ends_whatever_others_did_meanwhile(store, other):
    records = some_records(3)
    await keep(store, records)
    mark, _ = await store.outcome_changes()
    slow = other.transaction()
    await slow.start()
    setting = "UPDATE predictions SET outcome = true, outcome_at = $1 WHERE id = $2"
    await other.execute(setting, SET_AT, records[0].id)
    for at, record in enumerate(records[1:], 1):
        later = SET_AT + timedelta(minutes=at)
        await store.set_outcomes([SetOutcome(record.id, success=True, at=later)])
        mark, first = await store.outcome_changes(mark)
        assert first == later
        mark, first = await store.outcome_changes(mark)
        assert first is None
    await slow.commit()
    mark, first = await store.outcome_changes(mark)
    assert first == SET_AT
    assert (await store.outcome_changes(mark)).first is None


async def test_after_ten_thousand_changes_without_a_look_all_outcomes_are_read(store, other):
    mark, _ = await store.outcome_changes()
    for _ in range(2):
        await other.execute("SELECT kickserve_note_change(now()) FROM generate_series(1, 10200)")
    assert await other.fetchval("SELECT count(*) FROM kickserve_changes") < 10_200
    mark, first = await store.outcome_changes(mark)
    assert first == BEGINNING
    assert (await store.outcome_changes(mark)).first is None


async def test_a_dropped_month_changes_the_outcomes(store):
    record = record_at(START - 200 * 86_400_000, outcome=True, outcome_at=SET_AT)
    await keep(store, [record])
    mark, _ = await store.outcome_changes()
    assert await store.drop_whole(instant(START))
    assert (await store.outcome_changes(mark)).first < SET_AT


async def test_a_newer_schema_says_to_upgrade(store, other):
    await store.close()
    await other.execute("UPDATE kickserve_schema SET version = 99")
    with pytest.raises(StoreMisconfigured, match=r"schema 99.*upgrade kickserve"):
        await store.open()


async def test_the_table_of_another_program_is_left_alone(postgres_schema):
    connection = await asyncpg.connect(postgres_schema)
    await connection.execute("CREATE TABLE predictions (id integer)")
    with pytest.raises(StoreMisconfigured, match="another program"):
        await PostgresStore(postgres_schema).open()
    assert await connection.fetchval("SELECT to_regclass('kickserve_schema')") is None
    await connection.close()


@pytest.mark.parametrize("change", [{"model": None}, {"status_code": 1 << 40}, {"status_code": "far"}])
async def test_a_record_that_does_not_fit_is_refused_as_unfit(store, change):
    with pytest.raises(RecordUnfit, match="can't hold this record"):
        await store.add([batch_at(START, **change)])


def at(*parts):
    """Milliseconds since 1970 of a moment in UTC."""
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


async def names(connection):
    return [part.name for part in await months.parts(connection)]


async def month_tables(connection):
    """All tables of months, also those that are no longer partitions."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'predictions%'"
        " AND relnamespace = current_schema()::regnamespace ORDER BY 1"
    )
    return [name for (name,) in rows]


async def test_a_new_database_is_ready_for_this_month_and_the_next_ones(other):
    this = months.this_month()
    assert await names(other) == [months.name_of(this + ahead) for ahead in range(months.AHEAD + 1)]


async def test_records_of_years_that_have_no_month_yet_are_kept(store, other):
    moments = [at(1970, 1, 1), at(1987, 6, 1), at(2000, 2, 29, 23, 59, 59), at(2087, 1, 1), at(9998, 12, 31)]
    records = [record_at(each) for each in moments]
    records = records[::2] + records[1::2]
    await keep(store, records[:3])
    await store.add([batch_at(moment) for moment in moments])
    await keep(store, records[3:])
    assert len(await streamed(store)) == 2 * len(records)
    assert {"predictions_1970_01", "predictions_2000_02", "predictions_9998_12"} <= {*await names(other)}


async def test_a_group_over_the_end_of_a_year_is_kept_once_and_found_by_time(store):
    border = at(2024, 1, 1)
    records = [record_at(border + each, number=number) for each in (-2, -1, 0, 1) for number in (0, 1)]
    await keep(store, records)
    await keep(store, records[3:5])
    assert await streamed(store) == records
    year = datetime(2024, 1, 1, tzinfo=UTC)
    assert await streamed(store, since=year) == records[4:]
    assert await streamed(store, until=year) == records[:4]
    assert await store.set_outcomes([SetOutcome(records[3].id, success=True, at=year)]) == set()
    assert await store.delete(records[4].id)
    assert [each.created_at for each in await all_labelled(store, until=year)] == [records[3].created_at]


async def test_a_page_reads_the_months_that_it_needs_and_no_other(store, other):
    await keep(store, [record_at(at(2020, 1 + month, 5) + n) for month in range(12) for n in range(300)])
    await other.execute("ANALYZE predictions")
    plan = await other.fetch(
        "EXPLAIN (ANALYZE, COSTS off) SELECT * FROM predictions WHERE id >= $1 AND id < $2"
        " ORDER BY id DESC LIMIT 100",
        record_at(at(1980, 1, 1)).id,
        record_at(at(2020, 12, 28)).id,
    )
    read = [row[0] for row in plan if "predictions_" in row[0] and "never executed" not in row[0]]
    assert len(read) == 1
    assert "Index Scan Backward using predictions_2020_12_pkey" in read[0]


async def test_a_statement_is_planned_once_also_on_a_connection_that_comes_back(store):
    for _ in range(3):
        async with store._connection() as connection:
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"


async def test_retention_drops_whole_months_and_purges_the_rest(store, other):
    records = [record_at(at(2024, month, day)) for month in (1, 2, 3) for day in (1, 20)]
    await keep(store, records)
    tables = await month_tables(other)
    age = datetime.now(UTC) - datetime(2024, 3, 10, tzinfo=UTC)
    assert await Retention(store, age).remove_old(age) == 1, "that of the 1st of March, in an open month"
    assert await streamed(store) == records[5:]
    gone = {*tables} - {*await month_tables(other)}
    assert gone == {"predictions_2024_01", "predictions_2024_02"}
    await keep(store, records[:2])  # from a journal, say
    assert await store.count() == 3


async def test_a_month_that_is_not_over_is_not_dropped(store):
    records = [record_at(at(2024, 1, 31, 23, 59, 59) + 999), record_at(at(2024, 2, 1))]
    await keep(store, records)
    assert await store.drop_whole(records[1].created_at - timedelta(milliseconds=1)) == []
    assert await store.drop_whole(records[1].created_at) == ["predictions_2024_01"]
    assert await streamed(store) == records[1:]
    assert await store.drop_whole(records[1].created_at) == []


async def leaving(connection):
    """Wait until a month is on its way out."""
    async with asyncio.timeout(60):
        while not any(part.leaving for part in await months.parts(connection)):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def a_reader(url):
    """A dashboard, or a kickserve of before, reads all predictions and has only begun."""
    connection = await asyncpg.connect(url)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetch("SELECT FROM predictions LIMIT 1")
        yield connection
    await connection.close()


async def test_a_month_is_dropped_while_others_read_and_write_and_a_drop_broken_off_is_finished(
    store, other, postgres_schema
):
    await keep(store, [record_at(at(2024, month, 1) + each) for month in (1, 2) for each in range(1_200)])
    border = datetime(2024, 3, 1, tzinfo=UTC)
    async with a_reader(postgres_schema) as reader:
        dropping = asyncio.create_task(store.drop_whole(border))
        await leaving(other)
        assert not dropping.done(), "the reader that began before may end first"
        await asyncio.wait_for(keep(store, some_records(3)), 3)
        assert len(await asyncio.wait_for(store.page(10), 3)) == 10
        assert await reader.fetchval("SELECT count(*) FROM predictions") == 2_400
        dropping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropping
        assert [part.leaving for part in await months.parts(other)][:2] == [True, False]
    assert await store.drop_whole(border) == ["predictions_2024_01", "predictions_2024_02"]
    assert await store.count() == 3
    await keep(store, [record_at(at(2024, 3, 1))])
    # Between being detached and dropped: what a killed process leaves.
    await other.execute("COMMENT ON TABLE predictions_2024_03 IS 'kickserve drops this'")
    await other.execute("ALTER TABLE predictions DETACH PARTITION predictions_2024_03")
    assert await store.drop_whole(border) == ["predictions_2024_03"]
    assert "predictions_2024_03" not in await month_tables(other)


async def test_what_an_operator_has_detached_stays_and_its_month_can_come_again(store, other):
    records = [record_at(at(2024, 1, 1)), record_at(at(2024, 1, 2))]
    await keep(store, records[:1])
    await other.execute("ALTER TABLE predictions DETACH PARTITION predictions_2024_01")
    assert await streamed(store) == []
    await keep(store, records[1:])
    assert await streamed(store) == records[1:]
    assert await store.drop_whole(datetime(2025, 1, 1, tzinfo=UTC)) == ["predictions_2024_01_anew"]
    assert await other.fetchval("SELECT count(*) FROM predictions_2024_01") == 1


async def test_several_that_drop_at_once_do_not_stand_in_each_others_way(postgres_schema):
    stores = [PostgresStore(postgres_schema) for _ in range(3)]
    for each in stores:
        await each.open()
    await keep(stores[0], [record_at(at(2020, 1 + month, 1)) for month in range(12)])
    border = datetime(2021, 1, 1, tzinfo=UTC)
    found = await asyncio.gather(*(each.drop_whole(border) for each in stores), return_exceptions=True)
    assert not [each for each in found if isinstance(each, BaseException)], found
    await stores[0].drop_whole(border)
    assert await stores[1].count() == 0
    for each in stores:
        await each.close()


async def test_without_the_right_to_make_tables_it_goes_on_as_long_as_months_are_there(
    store, postgres_schema, other
):
    name = f"writer_{postgres_schema[-12:]}"
    schema = await other.fetchval("SELECT current_schema()")
    await keep(store, [record_at(at(2024, 1, 1))])
    await other.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA {schema} TO {name};"
        f"GRANT SELECT ON kickserve_schema TO {name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON predictions, kickserve_deleted TO {name}"
    )
    await other.execute(f"DROP TABLE {months.name_of(months.this_month() + months.AHEAD)}")
    place = postgres_schema.rpartition("@")[2]
    writer = PostgresStore(f"postgresql://{name}:pw@{place}")
    await writer.open()
    await keep(writer, [record_at(at(2024, 1, 2))])
    assert await writer.count() == 2
    with pytest.raises(StoreMisconfigured, match="GRANT"):
        await keep(writer, [record_at(at(2024, 2, 1))])
    await writer.close()
    await other.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_month_that_can_not_be_made_now_is_made_later(postgres_schema, other):
    store, record = PostgresStore(postgres_schema, command_timeout=2), record_at(at(2024, 1, 1))
    await store.open()
    async with other.transaction():
        await other.execute(f"SELECT pg_advisory_xact_lock({months.LOCK})")
        with pytest.raises(StoreUnavailable):
            await keep(store, [record])
    await keep(store, [record])
    assert await store.page(1) == [record]
    await store.close()


@asynccontextmanager
async def opened(url):
    store = PostgresStore(url)
    await store.open()
    yield store
    await store.close()


async def test_a_dump_goes_into_a_new_database(postgres_server, other, tmp_path):
    base, dump = postgres_server.url.removesuffix("/postgres"), tmp_path / "kickserve.dump"
    url, new = f"{base}/dumped", f"{base}/restored"
    for name in ("dumped", "restored"):
        await other.execute(f"CREATE DATABASE {name}")
    kicks = [record_at(START + month * 32 * 86_400_000) for month in range(3)]
    async with opened(url) as store:
        await keep(store, kicks)
        assert await store.delete(kicks[0].id)

    for program, *arguments in (
        ("pg_dump", "--format=custom", f"--file={dump}", url),
        ("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={new}", dump),
    ):
        await asyncio.to_thread(subprocess.run, [binaries() / program, *arguments], check=True)

    async with opened(new) as store:
        assert await streamed(store) == kicks[1:]
        await keep(store, kicks)
        assert await streamed(store) == kicks[1:], "what was deleted stays deleted"
    for name in ("dumped", "restored"):
        await other.execute(f"DROP DATABASE {name}")
