"""Fixtures for tests that need a real Postgres: `postgres_url`, `postgres_schema` and `postgres_cluster`."""

from __future__ import annotations

import os
import secrets

import asyncpg
import postgres
import pytest


def _binaries():
    try:
        return postgres.binaries()
    except postgres.NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def postgres_url():
    """URL of a database: `TEST_DATABASE_URL`, or else a throwaway cluster's."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    cluster = postgres.Cluster(_binaries())
    try:
        cluster.start()
        yield cluster.url
    finally:
        cluster.remove()


@pytest.fixture
async def postgres_schema(postgres_url):
    """URL of an empty schema in that database, dropped afterwards: a test's own tables."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"CREATE SCHEMA {name}")
        yield f"{postgres_url}{'&' if '?' in postgres_url else '?'}search_path={name}"
        await connection.execute(f"DROP SCHEMA {name} CASCADE")
    finally:
        await connection.close()


@pytest.fixture
def postgres_cluster():
    """A running cluster of the test's own, to be stopped and started by it."""
    cluster = postgres.Cluster(_binaries(), "max_connections=8")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
