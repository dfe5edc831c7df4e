"""A database of an earlier kickserve is taken up with all that is in it, also by several at once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing

import asyncpg
import pytest
from old_databases import VERSIONS, old_records, old_sql
from together import run_together

from kickserve.errors import StoreMisconfigured, StoreUnavailable
from kickserve.record import SetOutcome
from kickserve_storage import postgres
from kickserve_storage.postgres import PostgresStore
from kickserve_storage.sqlite import SqliteStore
from kickserve_testing.contract import START, all_labelled, keep, record_at, streamed


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
async def old(postgres_schema, version):
    """A connection to a Postgres database as an earlier version left it."""
    connection = await asyncpg.connect(postgres_schema)
    await connection.execute(old_sql("postgres", version))
    yield connection
    await connection.close()


@asynccontextmanager
async def opened(store):
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def used(store, version):
    """Look that all is there, and that one can go on with it."""
    records = old_records(version)
    async with opened(store):
        assert await streamed(store) == records
        assert await store.page(3, before=records[-1].id) == records[-2:-5:-1]
        assert [each.success for each in await all_labelled(store)] == [True, False, True]
        changed = SetOutcome(records[0].id, success=True, at=records[0].created_at)
        assert await store.set_outcomes([changed]) == set()
        await keep(store, [*records, record_at(START)])
    async with opened(store):
        assert await store.count() == len(records) + 1


async def test_a_sqlite_file_of_an_earlier_version(tmp_path, version):
    file = tmp_path / "kicks.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(old_sql("sqlite", version))
    await used(SqliteStore(f"sqlite:///{file}"), version)


async def test_a_postgres_database_of_an_earlier_version(old, version, postgres_schema):
    if version >= 3:  # in months already
        await used(PostgresStore(postgres_schema), version)
        return
    file = await old.fetchval("SELECT pg_relation_filenode('predictions')")
    await old.execute(  # left behind where an earlier kickserve broke off the change to months
        "ALTER TABLE predictions ADD CONSTRAINT predictions_below CHECK (id IS NOT NULL) NOT VALID"
    )
    await used(PostgresStore(postgres_schema), version)
    kept = await old.fetchval("SELECT pg_relation_filenode('predictions_before')")
    assert kept == file, "the old table is where it was: nothing is copied"
    assert not await old.fetchval("SELECT count(*) FROM pg_constraint WHERE conname = 'predictions_below'")


async def test_who_may_read_the_old_table_may_read_the_new_ones(old, version, postgres_schema):
    await old.execute("DROP ROLE IF EXISTS dashboard; CREATE ROLE dashboard")
    await old.execute(
        "GRANT SELECT ON predictions TO dashboard; GRANT SELECT, DELETE ON predictions TO public"
    )
    async with opened(PostgresStore(postgres_schema)):
        pass
    rights = await old.fetch(
        "SELECT relname, coalesce(nullif(grantee, 0)::regrole::text, 'public') AS who, privilege_type"
        " FROM pg_class, aclexplode(relacl) WHERE grantee <> relowner"
        " AND relname = ANY ($1) AND relnamespace = current_schema::regnamespace",
        tables := ["predictions", "kickserve_forgotten", *(["kickserve_deleted"] if version < 3 else [])],
    )
    await old.execute("DROP OWNED BY dashboard; DROP ROLE dashboard")
    assert {tuple(each) for each in rights} == {
        (table, *right)
        for table in tables
        for right in (("dashboard", "SELECT"), ("public", "SELECT"), ("public", "DELETE"))
    }


async def test_a_kickserve_of_before_goes_on_writing_meanwhile(old, postgres_schema):
    """Its statements, prepared before the change, and after it."""
    insert = "INSERT INTO predictions SELECT * FROM predictions WHERE id = $1 ON CONFLICT (id) DO NOTHING"
    outcome = await old.prepare("UPDATE predictions SET outcome = true WHERE id = $1")
    last = old_records(1)[-1]
    await old.fetch(insert, last.id)
    async with opened(PostgresStore(postgres_schema)) as store:
        await old.fetch(insert, last.id)
        await outcome.fetch(last.id)
        kept = await store.get(last.id)
        assert kept is not None
        assert kept.outcome is True


@pytest.mark.parametrize("version", [2], indirect=True)
async def test_a_change_that_finds_the_table_in_use_is_left_for_later(old, postgres_schema, monkeypatch):
    monkeypatch.setattr(postgres, "LOCK_TIMEOUT", "200ms")
    store = PostgresStore(postgres_schema)
    async with old.transaction():
        await old.fetch("SELECT FROM predictions")  # as an export of the old version does
        with pytest.raises(StoreUnavailable, match="another session holds"):
            await store.open()
    await used(store, 2)


async def test_an_earlier_kickserve_says_that_it_can_not_use_the_new_schema(postgres_schema, monkeypatch):
    store = PostgresStore(postgres_schema)
    async with opened(store):
        pass
    monkeypatch.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:2])
    with pytest.raises(StoreMisconfigured, match="has schema 6, and this kickserve knows 2: upgrade"):
        await store.open()


_OPEN = """
import asyncio, sys
from kickserve_testing.contract import keep, record_at
from kickserve_storage.postgres import PostgresStore

async def main(url, number):
    store = PostgresStore(url)
    await store.open()
    # Years that have no month yet, the same for all processes at the same moment.
    await keep(store, [record_at(1_000_000_000_000 + 3_000_000_000 * at, number=number) for at in range(24)])
    await store.close()

print(flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", [None, VERSIONS[0]])
def test_replicas_that_start_at_once_change_it_once_and_all_work(postgres_schema, version):
    async def make():
        connection = await asyncpg.connect(postgres_schema)
        await connection.execute(old_sql("postgres", version))
        await connection.close()

    async def kept():
        async with opened(PostgresStore(postgres_schema)) as store:
            return await streamed(store)

    if version:
        asyncio.run(make())
    run_together(_OPEN, postgres_schema)
    new = [record_at(1_000_000_000_000 + 3_000_000_000 * at, number=n) for at in range(24) for n in range(4)]
    assert asyncio.run(kept()) == new + (old_records(version) if version else [])
