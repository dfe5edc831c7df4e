"""The way to a Postgres server: its URL, the pool of connections, the schema, and its errors in our words."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped] # it ships no types

from kickserve.errors import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable
from kickserve_storage.postgres_into_months import into_months, prepare
from kickserve_storage.postgres_months import AHEAD, LOCK, make, this_month

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CONNECTIONS: Final = 4
CONNECT_TIMEOUT: Final = 5.0  # seconds
COMMAND_TIMEOUT: Final = 30.0  # seconds
# A change of the schema waits so long for those who read the table, and all others wait behind it.
LOCK_TIMEOUT: Final = "3s"
STEP_TIMEOUT: Final = 3_600.0  # seconds: an index over many millions of predictions takes its time
OLDEST: Final = 14  # the first version that can detach a partition while others use the table

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
    -- All that quality needs stands in this index; a prediction enters it when its outcome is told.
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
)
_IN_MONTHS: Final = 3  # the version that the last of these makes


_log = logging.getLogger(__name__)


class Address(NamedTuple):
    """A database URL, read.

    Attributes:
        dsn: what asyncpg takes, with the password.
        label: the same for people: without password and parameters.
        connect_timeout: seconds.
        files: the files that parameters of TLS name.
    """

    dsn: str
    label: str
    connect_timeout: float
    files: tuple[Path, ...]


def address_of(url: str) -> Address:
    """Read a URL such as `postgresql://user:password@host:5432/database?sslmode=require`.

    The parameters are those of libpq that asyncpg knows, `ssl` as other programs spell `sslmode`,
    `connect_timeout`, and settings of the server.

    Raises:
        StoreMisconfigured: the URL can't be understood; the message does not show it, for its password.
    """
    try:
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise StoreMisconfigured(_unreadable("")) from None
    login, _, hosts = parts.netloc.rpartition("@")
    if "@" in login + parts.path + parts.query.partition("=")[0] + parts.fragment or parts.fragment:
        raise StoreMisconfigured(_unreadable(""))
    if not all(map(_is_host, hosts.split(","))):
        raise StoreMisconfigured(_unreadable(" (its port is no number)"))
    timeout = _timeout(parameters.pop("connect_timeout", ""))
    dsn = urlunsplit(parts._replace(query=urlencode(_known(parameters))))
    files = tuple(Path(parameters[name]) for name in _FILES if name in parameters)
    return Address(dsn, _label(login, hosts, unquote(parts.path), parameters), timeout, files)


_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


def _unreadable(what: str) -> str:
    return (
        f"DATABASE_URL can't be understood{what}: it must look like"
        " postgresql://user:password@host:5432/database, with @ : / ? # % in the password written as"
        " %40 %3A %2F %3F %23 %25"
    )


def _is_host(text: str) -> bool:
    port = text.rpartition("]")[2].partition(":")[2]
    return not port or port.isdecimal()


def _timeout(text: str) -> float:
    if text and not text.isdecimal():
        raise StoreMisconfigured("DATABASE_URL: connect_timeout must be a whole number of seconds")
    return float(text or 0) or CONNECT_TIMEOUT


def _known(parameters: dict[str, str]) -> dict[str, str]:
    """Return the parameters as asyncpg has them: what it doesn't know, it would ask the server for."""
    if parameters.get("channel_binding") == "require":
        raise StoreMisconfigured(
            "DATABASE_URL asks for channel_binding=require, which asyncpg can't do:"
            " take it out, and put sslmode=verify-full there, which tells a false server too"
        )
    spelled = {{"ssl": "sslmode"}.get(name, name): value for name, value in parameters.items()}
    return {name: value for name, value in spelled.items() if name not in _NOT_OURS}


# Of libpq, and harmless to leave out: how TCP is kept alive, and other ways to encrypt and authenticate.
_NOT_OURS: Final = frozenset(
    {"channel_binding", "gssencmode", "keepalives", "keepalives_idle", "keepalives_interval"}
    | {"keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni"}
)


def _label(login: str, hosts: str, path: str, parameters: dict[str, str]) -> str:
    user = unquote(login.partition(":")[0]) or parameters.get("user", "")
    where = hosts or ",".join(filter(None, (parameters.get("host"), parameters.get("port")))) or "localhost"
    database = path.removeprefix("/") or parameters.get("dbname") or parameters.get("database", "")
    return f"postgresql://{user}{'@' if user else ''}{where}/{database}"


class _PlansOnce(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """A connection that plans a prepared statement once, for all values.

    Else the server would look, each time anew, which months a statement needs, which takes longer than to
    read a page; a plan for all values leaves out months as well, when it is run.
    """

    SETTING: Final = "SET plan_cache_mode = force_generic_plan"

    def get_reset_query(self) -> str:
        """Return what gives the pool a connection back as it was new."""
        return f"{super().get_reset_query()}\n{self.SETTING}"


async def _plan_once(connection: Any) -> None:
    await connection.execute(_PlansOnce.SETTING)


class Server:
    """A pool of connections to one database, which heals by itself.

    Args:
        url: the database URL.
        statement_cache: statements that a connection keeps prepared; 0 behind pgbouncer.
        command_timeout: seconds that a command may take, and that one may wait for a connection.

    Raises:
        StoreMisconfigured: the URL can't be understood.
    """

    def __init__(self, url: str, *, statement_cache: int, command_timeout: float = COMMAND_TIMEOUT) -> None:
        self._address = address_of(url)
        self._statement_cache = statement_cache
        self._command_timeout = command_timeout
        self._wanted = False
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self._ready_for: int | None = None  # the month in which the coming ones were made

    @property
    def label(self) -> str:
        """The URL without password and parameters."""
        return self._address.label

    async def open(self) -> None:
        """Connect, and bring the schema up to date."""
        self._wanted = True
        await self._connected()
        await self.look_ahead()

    async def close(self) -> None:
        """Close the connections: politely, but not for longer than connecting may take."""
        self._wanted = False
        async with self._opening:
            pool, self._pool = self._pool, None
            if pool is not None:
                await _close(pool, self._address.connect_timeout)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection."""
        pool = await self._connected()
        with self.in_our_words():
            async with pool.acquire(timeout=self._command_timeout) as connection:
                yield connection

    async def look_ahead(self) -> None:
        """Make the coming months ready, once a month: an insert that finds none has to wait for it."""
        month = this_month()
        if month == self._ready_for:
            return
        self._ready_for = month
        try:
            async with self.connection() as connection:
                await make(connection, range(month, month + AHEAD + 1))
        except StoreError as error:  # it may never matter; where it does, an insert says so
            _log.warning("the table could not be made ready for the coming months: %s", error)

    async def _connected(self) -> Any:
        if self._pool is None:
            async with self._opening:
                if not self._wanted:
                    raise StoreUnavailable(f"{self.label} is not open: call open() first")
                if self._pool is None:
                    with self.in_our_words():
                        self._pool = await self._connect()
        return self._pool

    async def _connect(self) -> Any:
        for file in self._address.files:
            if not file.is_file():  # asyncpg would say no more than that some file is missing
                raise StoreMisconfigured(
                    f"{self.label}: DATABASE_URL names the file {file}, which is not there"
                )
        pool = asyncpg.create_pool(
            self._address.dsn,
            min_size=0,  # kept up by asyncpg, one would be a traceback in the log each second of an outage
            max_size=CONNECTIONS,
            timeout=self._address.connect_timeout,
            command_timeout=self._command_timeout,
            statement_cache_size=self._statement_cache,
            # A transaction pooler would hand the setting on to others; nothing is prepared there anyway.
            **({"connection_class": _PlansOnce, "init": _plan_once} if self._statement_cache else {}),
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
        if version < OLDEST:
            raise StoreMisconfigured(
                f"{self.label} is Postgres {version}, and kickserve needs {OLDEST} or newer: upgrade it"
            )

    async def _migrate(self, connection: Any) -> None:
        version = await self._version(connection)
        if version == len(MIGRATIONS):
            return
        if 0 < version < _IN_MONTHS <= len(MIGRATIONS):
            await prepare(connection)
        async with connection.transaction():
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
        # Through pg_class, because to_regclass alone may repeat what it said before this process waited.
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

    @contextmanager
    def in_our_words(self) -> Iterator[None]:
        """Raise what goes wrong inside as one of `kickserve.errors`."""
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise _explained(error, self.label) from error
        except (OSError, TimeoutError) as error:
            raise _unreachable(error, self.label) from error


async def _close(pool: Any, seconds: float) -> None:
    try:
        await asyncio.wait_for(pool.close(), seconds)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


# Classes of SQLSTATE, as PostgreSQL's manual lists them in appendix A.
_PASSING: Final = {
    "08": "the connection broke",
    "25": "it does not take writes now; a standby after a failover?",
    "40": "it stood in the way of another transaction",
    "53": "it is out of connections, memory or disk: make room",
    "55": "something else holds what is needed",
    "57": "it is starting, shutting down, or was told to stop this",
    "58": "its disk or system failed: look at its log",
}
_LASTING: Final = {
    "28": "user or password are not accepted: correct them in DATABASE_URL",
    "3D": "there is no such database: make it with createdb, or correct DATABASE_URL",
    "3F": "there is no schema to put tables in: correct search_path",
    "42501": "the user may not do this: GRANT it (CREATE on the schema: each month is a table)",
    "42P07": "another program's table stands where ours must: point DATABASE_URL to a database of its own",
    "42704": "DATABASE_URL has a parameter that neither asyncpg nor the server knows: take it out",
    "26": "a pooler such as pgbouncer mixes up statements: set KICKSERVE_POSTGRES_STATEMENT_CACHE=0",
    "42P05": "a pooler such as pgbouncer mixes up statements: set KICKSERVE_POSTGRES_STATEMENT_CACHE=0",
}
_UNFIT: Final = frozenset({"22", "23"})


def _explained(error: Exception, label: str) -> StoreError:
    """Turn what Postgres or asyncpg says into what may pass, what will not, or a record that doesn't fit."""
    state = str(getattr(error, "sqlstate", None) or "")
    family = state[:2]
    lasting = _LASTING.get(state) or _LASTING.get(family)
    if lasting:
        return StoreMisconfigured(f"{label}: {lasting} ({error})")
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return StoreMisconfigured(f"{label}: DATABASE_URL can't be used: {error}")
    if family in _UNFIT or isinstance(error, asyncpg.exceptions.DataError):
        return RecordUnfit(f"{label} can't hold this record: {error}")
    return StoreUnavailable(f"{label}: {_PASSING.get(family, 'it failed')} ({error})")


def _unreachable(error: OSError, label: str) -> StoreError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return StoreMisconfigured(
            f"{label}: its certificate is not trusted ({error}): name its authority by sslrootcert=FILE"
        )
    if "rejected SSL upgrade" in str(error):
        return StoreMisconfigured(
            f"{label}: the server has no TLS; take sslmode out of DATABASE_URL, or set it up"
        )
    reason = str(error) or "no answer in time"
    return StoreUnavailable(f"{label} can't be reached ({reason}): is the server up, and the address right?")
