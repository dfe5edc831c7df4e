"""Postgres as a store: the contract, and what only a server can do to one."""

from __future__ import annotations

import pytest
from kickserve_storage.postgres import PostgresStore

from kickserve.contract import StoreContract


@pytest.fixture
async def store(postgres_schema):
    store = PostgresStore(postgres_schema)
    await store.open()
    yield store
    await store.close()


class TestPostgres(StoreContract):
    pass


class TestPostgresBehindAPooler(StoreContract):
    @pytest.fixture
    async def store(self, postgres_schema):
        store = PostgresStore(postgres_schema, statement_cache=0)
        await store.open()
        yield store
        await store.close()
