"""Keeps predictions in Postgres, in a table with a partition for each month."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped] # it ships no types

from kickserve.features import FLAGS
from kickserve.plugins import (
    BEGINNING,
    KnownOutcome,
    LabelledPrediction,
    OutcomeChanges,
    StoreError,
    StoreMisconfigured,
    canonical,
    first_id_in,
    instant,
)
from kickserve_storage.changes import KEPT, POSTGRES, POSTGRES_CHANGES, POSTGRES_NOTE
from kickserve_storage.postgres_months import (
    AHEAD,
    LOCK,
    check_bound,
    drop,
    into_months,
    make,
    month_of,
    this_month,
)
from kickserve_storage.postgres_server import address_of, explained, leave_foreign_home, transaction
from kickserve_storage.table import (
    DELETED_IN,
    FORGET,
    FORGOTTEN,
    REMOVE,
    STRIP,
    TOMBSTONES_DAYS,
    TableStore,
    columns_of,
    forgotten_of,
    hash_of,
    ids_around,
    names_in,
    record_of,
    span,
    steps,
    to_millisecond,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from kickserve.plugins import RecordBatch, SetOutcome
    from kickserve.schemas import Record

CONNECTIONS: Final = 4
COMMAND_TIMEOUT: Final = 30.0  # seconds
_NAMES: Final = LOCK + 1  # the advisory lock between adding labels of kickers and forgetting one
# A change of the schema waits so long for the readers of the table, and new readers wait behind it.
LOCK_TIMEOUT: Final = "3s"
STEP_TIMEOUT: Final = 3_600.0  # seconds: an index over many millions of predictions takes its time
VERSION_MIN: Final = 14  # the first version that can detach a partition while others use the table
_STEP: Final = 500  # rows a statement: 5 ms of the event loop


def _rights_of_predictions(table: str) -> str:
    """Return the statement that gives a new table the rights that others have on predictions."""
    return f"""DO $$ DECLARE statement text; BEGIN
        FOR statement IN
            SELECT format('GRANT %s ON {table} TO %s', privilege_type,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
            FROM pg_class, aclexplode(relacl)
            WHERE oid = to_regclass('predictions') AND grantee <> relowner
        LOOP EXECUTE statement; END LOOP;
    END $$"""  # noqa: S608 - a name of ours


# Each is a step from one version of the schema to the next, and never changes once released.
MIGRATIONS: Final = (
    """
    CREATE TABLE predictions (
        id uuid PRIMARY KEY,
        created_at timestamptz NOT NULL,
        time_norm double precision NOT NULL,
        distance double precision NOT NULL,
        angle double precision NOT NULL,
        wind_speed double precision NOT NULL,
        precipitation_probability double precision NOT NULL,
        is_left_footed boolean NOT NULL,
        game_away boolean NOT NULL,
        is_endgame boolean NOT NULL,
        is_start boolean NOT NULL,
        is_left_side boolean NOT NULL,
        has_previous_attempts boolean NOT NULL,
        prediction double precision,
        confidence double precision,
        interval_low double precision,
        interval_high double precision,
        model text NOT NULL,
        revision text NOT NULL,
        latency_ms double precision NOT NULL,
        cpu_percent double precision NOT NULL,
        memory_mb double precision NOT NULL,
        status_code integer NOT NULL,
        error text,
        outcome boolean,
        outcome_at timestamptz
    );
    -- This index holds all that quality needs; a prediction enters it with its outcome.
    CREATE INDEX predictions_judged ON predictions (id) INCLUDE (created_at, model, prediction, outcome)
        WHERE outcome IS NOT NULL AND prediction IS NOT NULL
    """,
    """
    ALTER TABLE predictions
        ADD COLUMN shadow_model text,
        ADD COLUMN shadow_revision text,
        ADD COLUMN shadow_prediction double precision;
    DROP INDEX predictions_judged;
    CREATE INDEX predictions_judged ON predictions (id)
        INCLUDE (created_at, model, prediction, outcome, shadow_model, shadow_prediction)
        WHERE outcome IS NOT NULL AND prediction IS NOT NULL
    """,
    into_months,
    # Who may change predictions may change this table too.
    f"""
    CREATE TABLE kickserve_deleted (id uuid PRIMARY KEY, at timestamptz NOT NULL);
    CREATE INDEX kickserve_deleted_at ON kickserve_deleted (at);
    {_rights_of_predictions("kickserve_deleted")}
    """,
    f"""
    ALTER TABLE predictions
        ADD COLUMN kicker text,
        ADD COLUMN source text NOT NULL DEFAULT 'api',
        ADD COLUMN base double precision,
        ADD COLUMN learned_level double precision,
        ADD COLUMN learned_outcomes integer,
        ADD COLUMN learned_ability double precision,
        ADD COLUMN learned_from double precision,
        ADD COLUMN learned_to double precision;
    DROP INDEX predictions_judged;
    CREATE INDEX predictions_judged ON predictions (id)
        INCLUDE (created_at, model, prediction, outcome, shadow_model, shadow_prediction, source, base)
        WHERE outcome IS NOT NULL AND prediction IS NOT NULL;
    -- In this order a learner hears outcomes.
    CREATE INDEX predictions_told ON predictions (outcome_at, id) WHERE outcome_at IS NOT NULL;
    CREATE INDEX predictions_kicker ON predictions (kicker, id) WHERE kicker IS NOT NULL;
    CREATE TABLE kickserve_forgotten (kicker text PRIMARY KEY, at timestamptz NOT NULL);
    {_rights_of_predictions("kickserve_forgotten")}
    """,
    f"{POSTGRES}; {_rights_of_predictions('kickserve_changes')}",
)
_TYPES: Final = {
    "id": "uuid",
    **dict.fromkeys(("created_at", "outcome_at"), "timestamptz"),
    **dict.fromkeys(("model", "revision", "error", "shadow_model", "shadow_revision"), "text"),
    **dict.fromkeys(("kicker", "source"), "text"),
    **dict.fromkeys((*FLAGS, "outcome"), "boolean"),
    **dict.fromkeys(("status_code", "learned_outcomes"), "integer"),
}
# The same plan of a prepared statement for all values: else the server would look, each time anew, which
# months it needs, which takes longer than to read a page; that plan leaves out months as well when it is run.
_PLAN_ONCE: Final = {"plan_cache_mode": "force_generic_plan"}

_DELETE: Final = f"""WITH removed AS ({REMOVE} RETURNING id),
        old AS (DELETE FROM kickserve_deleted WHERE at < now() - interval '{TOMBSTONES_DAYS} days')
    INSERT INTO kickserve_deleted SELECT id, now() FROM removed ON CONFLICT (id) DO NOTHING"""  # noqa: S608 - as above
_SET_OUTCOMES: Final = """UPDATE predictions
    SET outcome = CASE WHEN outcome_at > new.at THEN predictions.outcome ELSE new.outcome END,
        outcome_at = CASE WHEN outcome_at > new.at THEN outcome_at
            WHEN new.outcome IS NULL THEN NULL ELSE new.at END
    FROM unnest($1::uuid[], $2::boolean[], $3::timestamptz[]) AS new (id, outcome, at)
    WHERE predictions.id = new.id RETURNING predictions.id"""

_log = logging.getLogger(__name__)


@cache
def _insert(columns: tuple[str, ...]) -> str:
    """Make one statement, and so one transaction and one way to the server and back: an array a column."""
    arrays = (f"${at}::{_TYPES.get(name, 'double precision')}[]" for at, name in enumerate(columns, start=1))
    return (
        f"INSERT INTO predictions ({', '.join(columns)}) SELECT * FROM unnest({', '.join(arrays)})"  # noqa: S608 - columns
        " ON CONFLICT (id) DO NOTHING"
    )


def _count(status: str) -> int:
    """Return how many rows a statement has changed, of its status such as `DELETE 3`."""
    return int(status.rpartition(" ")[2])


class PostgresStore(TableStore):
    """A `kickserve.store.Store` in Postgres: a pool of connections to one database, which heals by itself.

    Args:
        url: `postgresql://user:password@host:5432/database`, with parameters as libpq has them.
        statement_cache: statements that a connection keeps prepared; 0 behind pgbouncer.
        command_timeout: seconds that a command may take, and that one may wait for a connection.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(
        self, url: str, *, statement_cache: int = 100, command_timeout: float = COMMAND_TIMEOUT
    ) -> None:
        super().__init__(command_timeout)
        self._address = address_of(url)
        self._statement_cache = statement_cache
        self._pool: Any = None
        self._ready_for: int | None = None  # the month in which the coming ones were made

    @property
    def label(self) -> str:
        """The URL without password and parameters."""
        return self._address.label

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and bring the schema to the version that this code knows."""
        self._wanted = True
        await self._connected()
        if not read_only:
            await self._look_ahead()

    async def close(self) -> None:
        """Close the connections: politely, but not for longer than connecting may take."""
        self._wanted = False
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), self._address.connect_timeout)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()

    async def add(self, batches: Sequence[RecordBatch]) -> None:
        """Keep the predictions of all of these or none; one whose id is kept already is passed over."""

        async def write() -> None:
            async with self._connection() as connection, transaction(connection):
                for step in steps(batches, _STEP):
                    names, columns = columns_of(step, moment=instant, flag=bool)
                    await connection.execute(_insert(names), *columns)
                # A statement of its own: an insert that had to wait for a delete does not see the deleted id.
                if batches and (gone := await connection.fetch(DELETED_IN, *ids_around(batches))):
                    await connection.executemany(REMOVE, gone)
                if named := names_in(batches):
                    await self._strip_forgotten(connection, named)

        await self._in_months(write, (first_id_in(batch.millisecond) for batch in batches))

    async def _in_months(self, write: Callable[[], Awaitable[None]], ids: Iterable[str]) -> None:
        """Write; where the month of an id has no partition, make the partition and write again."""
        await self._look_ahead()
        try:
            await write()
        except StoreError as error:
            if not isinstance(error.__cause__, asyncpg.CheckViolationError):
                raise
            async with self._connection() as connection:
                await make(connection, map(month_of, ids))
            await write()

    async def delete(self, record_id: str) -> bool:
        """Remove one record, and keep its id from coming back; say whether it was there."""
        return await self._change(_DELETE, canonical(record_id)) > 0

    async def forget(self, kicker: str, at: datetime) -> int:
        """Take a label off all records made before an instant, and keep it from coming back."""
        async with self._connection() as connection, transaction(connection):
            await connection.execute(f"SELECT pg_advisory_xact_lock({_NAMES})")
            status: str = await connection.execute(STRIP, kicker, span(until=at).high)
            await connection.execute(
                f"DELETE FROM kickserve_forgotten WHERE at < now() - interval '{TOMBSTONES_DAYS} days'"  # noqa: S608 - a number
            )
            await connection.execute(FORGET, hash_of(kicker), instant(to_millisecond(at)))
        return _count(status)

    async def _strip_forgotten(self, connection: Any, named: set[str]) -> None:
        """Take forgotten labels off the records that this transaction has added."""
        # `forget` waits for this transaction to end, or this for `forget`: else each could miss rows of the
        # other.
        await connection.execute(f"SELECT pg_advisory_xact_lock_shared({_NAMES})")
        await connection.executemany(STRIP, forgotten_of(named, await connection.fetch(FORGOTTEN)))

    async def drop_whole(self, until: datetime) -> list[str]:
        """Drop each month that is over before this instant, whatever is in it; return their tables' names."""
        async with self._connection() as connection:
            dropped = await drop(connection, span(until=until).high)
            if dropped:
                await connection.execute(POSTGRES_NOTE)
            return dropped

    async def _rows(self, sql: str, *values: object) -> list[Any]:
        async with self._connection() as connection:
            return list(await connection.fetch(sql, *values))

    async def _change(self, sql: str, *values: object) -> int:
        async with self._connection() as connection:
            return _count(await connection.execute(sql, *values))

    async def _set_outcomes(self, outcomes: Sequence[SetOutcome]) -> set[str]:
        # Instants are cut to milliseconds, as SQLite's store does.
        rows = [(each.id, each.success, instant(to_millisecond(each.at))) for each in outcomes]
        return {str(found) for [found] in await self._rows(_SET_OUTCOMES, *zip(*rows, strict=True))}

    @staticmethod
    def _record(row: Sequence[Any]) -> Record:
        """Turn a row of the table, whose id is a UUID, into a record."""
        return record_of([str(row[0]), *row[1:]])

    @staticmethod
    def _labelled(row: Sequence[Any]) -> LabelledPrediction:
        return LabelledPrediction(*row[:-1])

    @staticmethod
    def _known_outcome(row: Sequence[Any]) -> KnownOutcome:
        at, _, *others = row
        return KnownOutcome(at, *others)

    @staticmethod
    def _moment(at: datetime) -> datetime:
        return at

    async def outcome_changes(self, mark: object = None) -> OutcomeChanges:
        """Return since when outcomes have changed; all have where the database is an older one."""
        since, number, seen = mark if isinstance(mark, tuple) else ("0", -1, [])
        [row] = await self._rows(POSTGRES_CHANGES, since, seen)
        bound, end, newest, first, again = row
        now = (bound, newest or 0, again)
        if number < 0 or int(end) < int(since) or now[1] - number > KEPT:
            return OutcomeChanges(now, BEGINNING)
        return OutcomeChanges(now, first)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Lend a connection; end it where the server is silent, or the task is cancelled.

        To have it back in the pool, asyncpg would wait for the answers to a cancel and a reset.
        """
        pool = await self._connected()
        with self._in_our_words():
            connection = await pool.acquire(timeout=self._limit)
            try:
                yield connection
            except (OSError, asyncio.CancelledError):
                connection.terminate()
                raise
            finally:
                await pool.release(connection, timeout=self._limit)

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Raise the errors inside as those of `kickserve.errors`."""
        try:
            yield
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,  # TimeoutError is one
        ) as error:
            raise explained(error, self.label) from error

    async def _connected(self) -> Any:
        if self._pool is None:
            async with self._turn_to_connect():
                if self._pool is None:
                    with self._in_our_words():
                        pool = await self._connect()
                    if not self._wanted:  # it was closed meanwhile
                        pool.terminate()
                    self._expect_open()
                    self._pool = pool
        return self._pool

    async def _connect(self) -> Any:
        for file in self._address.files:
            if not file.is_file():  # asyncpg would say no more than that some file is missing
                raise StoreMisconfigured(
                    f"{self.label}: DATABASE_URL names the file {file}, which is not there"
                )
        leave_foreign_home()
        pool = asyncpg.create_pool(
            self._address.dsn,
            min_size=0,  # kept up by asyncpg, one would be a traceback in the log each second of an outage
            max_size=CONNECTIONS,
            timeout=self._address.connect_timeout,
            command_timeout=self._limit,
            statement_cache_size=self._statement_cache,
            # A transaction pooler takes no settings; nothing is prepared there anyway.
            server_settings=_PLAN_ONCE if self._statement_cache else None,
        )
        try:
            await pool
            async with pool.acquire() as connection:
                self._check_age(connection)
                await self._migrate(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    def _check_age(self, connection: Any) -> None:
        version = connection.get_server_version().major
        if version < VERSION_MIN:
            raise StoreMisconfigured(
                f"{self.label} is Postgres {version}, and kickserve needs {VERSION_MIN} or newer: upgrade it"
            )

    async def _migrate(self, connection: Any) -> None:
        version = await self._version(connection)
        if version == len(MIGRATIONS):
            return
        if version and into_months in MIGRATIONS[version:]:
            await check_bound(connection, LOCK_TIMEOUT)
        async with transaction(connection):
            await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # Another process may have done it while this one waited for the lock.
            for version in range(await self._version(connection), len(MIGRATIONS)):
                await self._step(connection, version)

    async def _step(self, connection: Any, version: int) -> None:
        if version == 0:
            await connection.execute("CREATE TABLE kickserve_schema (version integer NOT NULL)")
        step = MIGRATIONS[version]
        if isinstance(step, str):
            await connection.execute(step, timeout=STEP_TIMEOUT)
        else:
            await step(connection)
        await connection.execute("DELETE FROM kickserve_schema")
        await connection.execute("INSERT INTO kickserve_schema VALUES ($1)", version + 1)

    async def _version(self, connection: Any) -> int:
        # Through pg_class, because to_regclass alone may return a value from before this process waited.
        if not await connection.fetchval(
            "SELECT 1 FROM pg_class WHERE oid = to_regclass('kickserve_schema')"
        ):
            return 0
        version = int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM kickserve_schema"))
        if version > len(MIGRATIONS):
            raise StoreMisconfigured(
                f"{self.label} has schema {version}, and this kickserve knows {len(MIGRATIONS)}:"
                " upgrade kickserve, or point DATABASE_URL to another database"
            )
        return version

    async def _look_ahead(self) -> None:
        """Make the partitions of the coming months, once a month: an insert without one has to wait."""
        month = this_month()
        if month == self._ready_for:
            return
        self._ready_for = month
        try:
            async with self._connection() as connection:
                await make(connection, range(month, month + AHEAD + 1))
        except StoreError as error:  # it may never matter; where it does, an insert says so
            _log.warning("the table could not be made ready for the coming months: %s", error)
