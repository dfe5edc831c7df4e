"""The table of Postgres in months: made when needed, at the right borders, and dropped as a whole."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kickserve.errors import StoreMisconfigured, StoreUnavailable
from kickserve.ids import first_id_at
from kickserve.store import Retention
from kickserve_storage import postgres_months as months
from kickserve_storage.postgres import PostgresStore
from kickserve_testing.contract import (
    all_labelled,
    batch_at,
    expected_page,
    record_at,
    some_records,
    streamed,
)


def at(*parts):
    """Milliseconds since 1970 of a moment in UTC."""
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


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


async def names(connection):
    return [part.name for part in await months.parts(connection)]


async def month_tables(connection):
    """All tables of months, those that are no longer partitions too."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'predictions%'"
        " AND relnamespace = current_schema()::regnamespace ORDER BY 1"
    )
    return [name for (name,) in rows]


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - hypothesis wants them bare
def test_a_month_begins_with_its_first_millisecond_in_utc(moment):
    moment = moment.replace(tzinfo=UTC)
    month = months.month_of(first_id_at(moment))
    assert month == (moment.year - 1970) * 12 + moment.month - 1
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert months.first_id(month) == first_id_at(first)
    assert months.month_of(
        first_id_at(first - timedelta(milliseconds=1)) if month else first_id_at(first)
    ) == max(month - 1, 0)
    assert months.name_of(month) == f"predictions_{moment:%Y_%m}"


async def test_a_new_database_is_ready_for_this_month_and_the_next_ones(other):
    this = months.this_month()
    assert await names(other) == [months.name_of(this + ahead) for ahead in range(months.AHEAD + 1)]


async def test_records_of_years_that_have_no_month_yet_are_kept(store, other):
    moments = [at(1970, 1, 1), at(1987, 6, 1), at(2000, 2, 29, 23, 59, 59), at(2087, 1, 1), at(9998, 12, 31)]
    records = [record_at(each) for each in moments]
    records = records[::2] + records[1::2]
    await store.add(records[:3])
    await store.add_batches([batch_at(moment) for moment in moments])
    await store.add(records[3:])
    assert len(await streamed(store)) == 2 * len(records)
    assert {"predictions_1970_01", "predictions_2000_02", "predictions_9998_12"} <= {*await names(other)}


async def test_a_group_over_the_end_of_a_year_is_kept_once_and_found_by_time(store):
    border = at(2024, 1, 1)
    records = [record_at(border + each, number=number) for each in (-2, -1, 0, 1) for number in (0, 1)]
    await store.add(records)
    await store.add(records[3:5])
    assert await streamed(store) == records
    year = datetime(2024, 1, 1, tzinfo=UTC)
    assert await streamed(store, since=year) == records[4:]
    assert await streamed(store, until=year) == records[:4]
    assert await store.set_outcome(records[3].id, success=True, at=year)
    assert await store.delete(records[4].id)
    assert [each.created_at for each in await all_labelled(store, until=year)] == [records[3].created_at]


_BORDERS = (at(2023, 12, 31), at(2024, 2, 29), at(2024, 3, 31), at(2024, 12, 31), at(2025, 3, 1))


@pytest.fixture(scope="module")
def spread_records():
    """Records on both sides of the ends of months and years."""
    chosen = random.Random(11)  # noqa: S311 - nothing secret hangs on it
    day = 86_400_000
    moments = sorted({border + chosen.randrange(2 * day) for border in _BORDERS for _ in range(40)})
    return [record_at(each) for each in moments]


async def test_pages_and_spans_are_what_a_plain_search_finds_over_the_borders_of_months(
    store, spread_records
):
    await store.add(spread_records)
    chosen = random.Random(12)  # noqa: S311 - as above
    moments = [None, *(record.created_at for record in spread_records)]
    befores = [None, *(record.id for record in spread_records)]
    for _ in range(150):
        asked = {
            "before": chosen.choice(befores),
            "since": chosen.choice(moments),
            "until": chosen.choice(moments),
        }
        limit = chosen.choice((1, 7, 50, 1_000))
        assert await store.page(limit, **asked) == expected_page(spread_records, limit, **asked)
    assert await streamed(store) == spread_records


async def test_pages_one_after_the_other_walk_through_all_months(store, spread_records):
    await store.add(spread_records)
    seen, before = [], None
    while page := await store.page(33, before=before):
        seen += page
        before = page[-1].id
    assert seen == spread_records[::-1]


async def test_a_page_reads_the_months_that_it_needs_and_no_other(store, other):
    await store.add([record_at(at(2020, 1 + month, 5) + n) for month in range(12) for n in range(300)])
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
        async with store._server.connection() as connection:
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"


async def test_retention_drops_whole_months_and_purges_the_rest(store, other):
    records = [record_at(at(2024, month, day)) for month in (1, 2, 3) for day in (1, 20)]
    await store.add(records)
    tables = await month_tables(other)
    keep = datetime.now(UTC) - datetime(2024, 3, 10, tzinfo=UTC)
    assert await Retention(store, keep).remove_old(keep) == 1, "that of the 1st of March, in an open month"
    assert await streamed(store) == records[5:]
    gone = {*tables} - {*await month_tables(other)}
    assert gone == {"predictions_2024_01", "predictions_2024_02"}
    await store.add(records[:2])  # somebody brings the old ones again
    assert await store.count() == 3


async def test_a_month_that_is_not_over_is_not_dropped(store):
    records = [record_at(at(2024, 1, 31, 23, 59, 59) + 999), record_at(at(2024, 2, 1))]
    await store.add(records)
    assert await store.drop_whole(records[1].created_at - timedelta(milliseconds=1)) == []
    assert await store.drop_whole(records[1].created_at) == ["predictions_2024_01"]
    assert await streamed(store) == records[1:]
    assert await store.drop_whole(records[1].created_at) == []


@asynccontextmanager
async def an_export(store):
    """Somebody reads all predictions, and has only begun."""
    stream = store.stream()
    first = await anext(stream)
    yield first, stream
    await stream.aclose()


async def test_a_month_is_dropped_while_others_read_and_write_and_an_export_sees_its_end(store):
    old = [record_at(at(2024, 1, 1) + each) for each in range(1_500)]
    await store.add(old)
    async with an_export(store) as (first, stream):
        seen = [*first]
        dropping = asyncio.create_task(store.drop_whole(datetime(2024, 2, 1, tzinfo=UTC)))
        await asyncio.sleep(0.3)
        assert not dropping.done(), "the export that began before may end first"
        await asyncio.wait_for(store.add(some_records(3)), 3)
        assert len(await asyncio.wait_for(store.page(10), 3)) == 3
        async for group in stream:
            seen += group
    assert seen == old
    assert await dropping == ["predictions_2024_01"]
    assert await store.count() == 3


async def test_a_drop_that_was_broken_off_is_finished_the_next_time(store, other):
    await store.add([record_at(at(2024, month, 1) + each) for month in (1, 2) for each in range(1_200)])
    border = datetime(2024, 3, 1, tzinfo=UTC)
    async with an_export(store):
        dropping = asyncio.create_task(store.drop_whole(border))
        await asyncio.sleep(0.3)
        dropping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropping
        assert [part.leaving for part in await months.parts(other)][:2] == [True, False]
    assert await store.drop_whole(border) == ["predictions_2024_01", "predictions_2024_02"]
    await store.add([record_at(at(2024, 3, 1))])
    # Between being detached and dropped: what a killed process leaves.
    await other.execute("COMMENT ON TABLE predictions_2024_03 IS 'kickserve drops this'")
    await other.execute("ALTER TABLE predictions DETACH PARTITION predictions_2024_03")
    assert await store.drop_whole(border) == ["predictions_2024_03"]
    assert "predictions_2024_03" not in await month_tables(other)


async def test_what_an_operator_has_detached_stays_and_its_month_can_come_again(store, other):
    records = [record_at(at(2024, 1, 1)), record_at(at(2024, 1, 2))]
    await store.add(records[:1])
    await other.execute("ALTER TABLE predictions DETACH PARTITION predictions_2024_01")
    assert await streamed(store) == []
    await store.add(records[1:])
    assert await streamed(store) == records[1:]
    assert await store.drop_whole(datetime(2025, 1, 1, tzinfo=UTC)) == ["predictions_2024_01_anew"]
    assert await other.fetchval("SELECT count(*) FROM predictions_2024_01") == 1


async def test_several_that_drop_at_once_do_not_stand_in_each_others_way(postgres_schema):
    stores = [PostgresStore(postgres_schema) for _ in range(3)]
    for each in stores:
        await each.open()
    await stores[0].add([record_at(at(2020, 1 + month, 1)) for month in range(12)])
    border = datetime(2021, 1, 1, tzinfo=UTC)
    found = await asyncio.gather(*(each.drop_whole(border) for each in stores), return_exceptions=True)
    assert not [each for each in found if isinstance(each, BaseException)], found
    await stores[0].drop_whole(border)
    assert await stores[1].count() == 0
    for each in stores:
        await each.close()


async def test_a_long_running_service_makes_the_coming_months_before_they_begin(store, other, monkeypatch):
    this = months.this_month()
    monkeypatch.setattr("kickserve_storage.postgres_server.this_month", lambda: this + 1)
    await store.add(some_records(1))
    assert months.name_of(this + 1 + months.AHEAD) in await names(other)


async def test_without_the_right_to_make_tables_it_goes_on_as_long_as_months_are_there(
    store, postgres_schema, other
):
    name = f"writer_{postgres_schema[-12:]}"
    schema = await other.fetchval("SELECT current_schema()")
    await store.add([record_at(at(2024, 1, 1))])
    await other.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw'; GRANT USAGE ON SCHEMA {schema} TO {name};"
        f"GRANT SELECT ON kickserve_schema TO {name};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON predictions TO {name}"
    )
    await other.execute(f"DROP TABLE {months.name_of(months.this_month() + months.AHEAD)}")
    place = postgres_schema.rpartition("@")[2]
    writer = PostgresStore(f"postgresql://{name}:pw@{place}")
    await writer.open()
    await writer.add([record_at(at(2024, 1, 2))])
    assert await writer.count() == 2
    with pytest.raises(StoreMisconfigured, match="GRANT"):
        await writer.add([record_at(at(2024, 2, 1))])
    await writer.close()
    await other.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_month_that_can_not_be_made_now_is_made_later(store, other):
    record = record_at(at(2024, 1, 1))
    async with other.transaction():
        await other.execute(f"SELECT pg_advisory_xact_lock({months.LOCK})")
        writing = asyncio.create_task(store.add([record]))
        with pytest.raises(StoreUnavailable):
            await writing
    await store.add([record])
    assert await store.page(1) == [record]
