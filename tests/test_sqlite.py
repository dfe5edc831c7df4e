"""SQLite as a store: the contract, and what only a file can do to one."""

from __future__ import annotations

import pytest
from kickserve_storage.sqlite import SqliteStore

from kickserve.contract import StoreContract


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
