"""The table of Postgres in months: each has a partition, made when it is needed and dropped as a whole.

The partitions are ranges of ids, which are ordered by time: so the key of the table stays the id alone.
Readers and writers go on meanwhile. A partition is made by `CREATE TABLE` and `ATTACH`, not by
`PARTITION OF`, and goes by `DETACH CONCURRENTLY`, which Postgres refuses beside a default partition: so there
is none.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg  # type: ignore[import-untyped] # it ships no types
import numpy as np

from kickserve.plugins import first_id_in
from kickserve_storage.postgres_server import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK: Final = 0x6B69636B  # "kick": the advisory lock under which the schema and the months change
AHEAD: Final = 2  # months that are made before they begin
PATIENCE: Final = 600.0  # seconds to wait for exports that began before a month is dropped
OLD: Final = "predictions_before"  # the table of schema 2, as a partition
CHECK: Final = "predictions_below"  # the constraint on it that holds its bound
CHECK_PATIENCE: Final = 3_600.0  # seconds: all ids of the old table are read once
_DOOMED: Final = "kickserve drops this"  # the comment of a table that is being dropped
_BOUND: Final = re.compile(r"FROM \((MINVALUE|'(?P<low>[^']+)')\) TO \((MAXVALUE|'(?P<high>[^']+)')\)")

_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """A partition.

    Attributes:
        name: as SQL writes it.
        low: the smallest id that it takes; None for no bound.
        high: the smallest id beyond it; None for no bound.
        leaving: whether it is being detached: queries don't see it any more.
    """

    name: str
    low: str | None
    high: str | None
    leaving: bool

    def takes(self, record_id: str) -> bool:
        """Say whether a record with this id would go here."""
        above = self.low is None or self.low <= record_id
        return above and (self.high is None or record_id < self.high) and not self.leaving


def month_at(millisecond: int) -> int:
    """Return the month of an instant in UTC, counted from January 1970."""
    return int(np.datetime64(millisecond, "ms").astype("datetime64[M]").astype(np.int64))


def month_of(record_id: str) -> int:
    """Return the month in which an id was made."""
    return month_at(int(record_id[:8] + record_id[9:13], 16))


def this_month() -> int:
    """Return the month that it is."""
    return month_at(time.time_ns() // 1_000_000)


def first_id(month: int) -> str:
    """Return the smallest id that a month can have."""
    return first_id_in(int(np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64)))


def name_of(month: int) -> str:
    """Return the name of a month's partition, such as `predictions_2026_11`."""
    return f"predictions_{1970 + month // 12}_{month % 12 + 1:02d}"


async def parts(connection: Any) -> list[Part]:
    """Return the partitions that there are, oldest first."""
    rows = await connection.fetch(
        "SELECT oid::regclass::text, pg_get_expr(relpartbound, oid), inhdetachpending"
        " FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = to_regclass('predictions')"
    )
    found = [
        Part(name, bound["low"], bound["high"], leaving)
        for name, expression, leaving in rows
        if (bound := _BOUND.search(expression))
    ]
    return sorted(found, key=lambda part: part.low or "")


async def make(connection: Any, months: Iterable[int]) -> None:
    """Make a partition for each of these months that none takes yet; several processes may ask at once."""
    async with transaction(connection):
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        there = await parts(connection)
        for month in sorted(set(months)):
            if not any(part.takes(first_id(month)) for part in there):
                await _make(connection, month)


async def _make(connection: Any, month: int) -> None:
    name = name_of(month)
    while await connection.fetchval("SELECT to_regclass($1)", name):
        name += "_anew"  # an operator has detached that month, to keep it elsewhere
    low, high = first_id(month), first_id(month + 1)
    await connection.execute(f"CREATE TABLE {name} (LIKE predictions)")
    await connection.execute(
        f"ALTER TABLE predictions ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')"
    )


async def drop(connection: Any, until: str) -> list[str]:
    """Drop each partition that holds nothing but smaller ids than this one; return their names.

    Queries that already read such a partition end first, and no other waits. Two processes may drop at the
    same time, and a drop that was broken off is finished.
    """
    dropped = []
    for name in await _left_over(connection):
        dropped += await _drop(connection, name, attached=False)
    for part in await parts(connection):
        if part.high is not None and part.high <= until:
            dropped += await _drop(connection, part.name, attached=True, leaving=part.leaving)
    return dropped


async def _left_over(connection: Any) -> list[str]:
    """Return tables that were detached to be dropped, and then were not."""
    rows = await connection.fetch(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND NOT relispartition"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('predictions'))"
        " AND obj_description(oid, 'pg_class') = $1",
        _DOOMED,
    )
    return [name for (name,) in rows]


async def _drop(connection: Any, name: str, *, attached: bool, leaving: bool = False) -> list[str]:
    how = "FINALIZE" if leaving else "CONCURRENTLY"
    try:
        if attached:
            if not leaving:
                await connection.execute(f"COMMENT ON TABLE {name} IS '{_DOOMED}'")
            await connection.execute(
                f"ALTER TABLE predictions DETACH PARTITION {name} {how}", timeout=PATIENCE
            )
        await connection.execute(f"DROP TABLE {name}")
    except (asyncpg.UndefinedTableError, asyncpg.ObjectNotInPrerequisiteStateError) as error:
        _log.debug("another process drops %s as well: %s", name, error)
        return []
    return [name]


_KIND: Final = "SELECT relkind FROM pg_class WHERE oid = to_regclass('predictions')"


async def check_bound(connection: Any, lock_timeout: str) -> None:
    """Have Postgres check the bound of the old table's partition while others read and write.

    Without the constraint, `into_months` would hold them up until all ids are read.
    """
    async with transaction(connection):
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
        kind = await connection.fetchval(
            "SELECT relkind FROM pg_class WHERE oid = to_regclass('predictions')"
        )
        if kind != b"r":
            return  # another process has made the change
        await connection.execute(
            f"ALTER TABLE predictions DROP CONSTRAINT IF EXISTS {CHECK},"
            f" ADD CONSTRAINT {CHECK} CHECK (id < '{await _bound(connection)}') NOT VALID"
        )
    with suppress(asyncpg.UndefinedObjectError):  # another process has made the change meanwhile
        await connection.execute(
            f"ALTER TABLE predictions VALIDATE CONSTRAINT {CHECK}", timeout=CHECK_PATIENCE
        )


async def into_months(connection: Any) -> None:
    """Make schema 3: a table in months takes the old one's place, with the old one as its first partition.

    Nothing is copied. A kickserve of before that still runs goes on writing, to the table of the same name.
    """
    await connection.execute("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")
    empty = await connection.fetchval("SELECT NOT EXISTS (SELECT FROM predictions)")
    bound = await _bound(connection)
    grants = await connection.fetch(_GRANTS)
    await connection.execute(_CHANGE)
    for (grant,) in grants:
        await connection.execute(grant)
    if empty:
        await connection.execute(f"DROP TABLE {OLD}")
        return
    await connection.execute(
        f"ALTER TABLE predictions ATTACH PARTITION {OLD} FOR VALUES FROM (MINVALUE) TO ('{bound}')",
        timeout=CHECK_PATIENCE,  # where the bound is no longer the one that was checked
    )
    await connection.execute(f"ALTER TABLE {OLD} DROP CONSTRAINT IF EXISTS {CHECK}")


async def _bound(connection: Any) -> str:
    """Return a bound above all ids in the table, and above those of this month and the next."""
    newest = await connection.fetchval("SELECT id::text FROM predictions ORDER BY id DESC LIMIT 1")
    return first_id(max(this_month(), month_of(newest) if newest else 0) + 2)


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
