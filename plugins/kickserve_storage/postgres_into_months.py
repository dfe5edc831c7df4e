"""Schema 3 of Postgres: the one table of before becomes the first partition of one in months, as it stands.

Nothing is copied. What takes long, to check that every id lies below the bound of that partition, is done
beforehand, while others read and write; the change itself takes milliseconds. A kickserve of before that
still runs goes on writing, to the table of the same name.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped] # it ships no types

from kickserve_storage.postgres_months import LOCK, first_id, month_of, this_month

OLD: Final = "predictions_before"  # the old table, as a partition
CHECK: Final = "predictions_below"  # the constraint that shows what its bound is
CHECK_PATIENCE: Final = 3_600.0  # seconds: a hundred million records are read for it
LOCK_PATIENCE: Final = "5s"  # whoever waits for a lock on the whole table holds up all others
_ID: Final = re.compile(r"[0-9a-f-]{36}")


async def prepare(connection: Any) -> None:
    """Show that the ids of the old table are below a bound; called again, go on from there.

    Another process may be at the same, and be done with it at any moment: then nothing is left to do.
    """
    if not await _is_old(connection):
        return
    if not _holds_yet(await _bound(connection)):
        async with connection.transaction():
            await _lock(connection)
            if not await _is_old(connection):
                return
            await connection.execute(
                f"ALTER TABLE predictions DROP CONSTRAINT IF EXISTS {CHECK},"
                f" ADD CONSTRAINT {CHECK} CHECK (id < '{await _wanted(connection)}') NOT VALID"
            )
    with suppress(asyncpg.UndefinedObjectError):  # it waited, and the table in months came instead
        await connection.execute(
            f"ALTER TABLE predictions VALIDATE CONSTRAINT {CHECK}", timeout=CHECK_PATIENCE
        )


async def _is_old(connection: Any) -> bool:
    """Say whether the table is there and is still the one of before, not the one in months."""
    kind = await connection.fetchval("SELECT relkind FROM pg_class WHERE oid = to_regclass('predictions')")
    return bool(kind == b"r")


async def into_months(connection: Any) -> None:
    """Put a table in months into the old one's place, with the old one as its first part."""
    await _lock(connection)
    await connection.execute("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")
    bound = await _bound(connection) or await _wanted(connection)
    empty = await connection.fetchval("SELECT NOT EXISTS (SELECT FROM predictions)")
    grants = await connection.fetch(_GRANTS)
    await connection.execute(_CHANGE)
    for (grant,) in grants:
        await connection.execute(grant)
    if empty:
        await connection.execute(f"DROP TABLE {OLD}")
        return
    await connection.execute(
        f"ALTER TABLE predictions ATTACH PARTITION {OLD} FOR VALUES FROM (MINVALUE) TO ('{bound}')",
        timeout=CHECK_PATIENCE,  # where nobody has checked the bound beforehand, it is checked here
    )
    await connection.execute(f"ALTER TABLE {OLD} DROP CONSTRAINT IF EXISTS {CHECK}")


_CHANGE: Final = f"""
    ALTER TABLE predictions RENAME TO {OLD};
    ALTER INDEX predictions_pkey RENAME TO {OLD}_pkey;
    ALTER INDEX predictions_judged RENAME TO {OLD}_judged;
    CREATE TABLE predictions (LIKE {OLD}) PARTITION BY RANGE (id);
    ALTER TABLE predictions ADD PRIMARY KEY (id);
    CREATE INDEX predictions_judged ON predictions (id)
        INCLUDE (created_at, model, prediction, outcome, shadow_model, shadow_prediction)
        WHERE outcome IS NOT NULL AND prediction IS NOT NULL
"""
# What others may do with the table, a dashboard's user say, they may go on doing.
_GRANTS: Final = """
    SELECT format('GRANT %s ON predictions TO %s', privilege_type,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
    FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass('predictions') AND grantee <> relowner
"""


async def _lock(connection: Any) -> None:
    """Wait for other processes that change the schema, and then for nobody for long."""
    await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_PATIENCE}'")


async def _bound(connection: Any) -> str | None:
    """Return the bound that the table has been given already."""
    definition = await connection.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = to_regclass('predictions') AND conname = $1",
        CHECK,
    )
    found = _ID.search(definition or "")
    return found and found[0]


def _holds_yet(bound: str | None) -> bool:
    """Say whether what is written meanwhile stays below a bound."""
    return bound is not None and bound >= first_id(this_month() + 1)


async def _wanted(connection: Any) -> str:
    """Return a bound above all that is there, and that will be for a month."""
    newest = await connection.fetchval("SELECT id::text FROM predictions ORDER BY id DESC LIMIT 1")
    return first_id(max(this_month(), month_of(newest) if newest else 0) + 2)
