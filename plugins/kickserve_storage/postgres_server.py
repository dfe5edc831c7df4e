"""A Postgres server as its URL names it, and its errors in our words."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped] # it ships no types

from kickserve.plugins import RecordUnfit, StoreError, StoreMisconfigured, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 5.0  # seconds


@asynccontextmanager
async def transaction(connection: Any) -> AsyncIterator[None]:
    """Run a transaction, and roll it back after an error of the server or of ours.

    Where the server is silent, or the task is cancelled, the end of the connection ends the transaction too:
    a rollback, as asyncpg's own transaction makes one, would wait for an answer.
    """
    await connection.execute("BEGIN")
    try:
        yield
        await connection.execute("COMMIT")
    except (OSError, asyncio.CancelledError):  # TimeoutError is an OSError
        raise
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise


def leave_foreign_home() -> None:
    """Unset HOME where this user can't look into it: asyncpg looks there for certificates, and would fail."""
    try:
        (Path(os.environ.get("HOME", "/")) / ".postgresql").stat()
    except PermissionError:
        _log.warning("HOME is %s, which this user can't read: it is passed over", os.environ.pop("HOME"))
    except OSError:
        return  # there is none


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
    """Return the parameters as asyncpg spells them; it passes unknown ones on to the server."""
    if parameters.get("channel_binding") == "require":
        raise StoreMisconfigured(
            "DATABASE_URL has channel_binding=require, which asyncpg does not support: replace it by"
            " sslmode=verify-full, which detects a false server too"
        )
    spelled = {{"ssl": "sslmode"}.get(name, name): value for name, value in parameters.items()}
    return {name: value for name, value in spelled.items() if name not in _NOT_OURS}


# Of libpq, and harmless to leave out: how TCP is kept alive, and other ways to encrypt and authenticate.
_NOT_OURS: Final = frozenset(
    {"channel_binding", "gssencmode", "keepalives", "keepalives_idle", "keepalives_interval"}
    | {"keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni"}
)


def _label(login: str, hosts: str, path: str, parameters: dict[str, str]) -> str:
    # Up to a colon, also to one that is escaped: a password may follow.
    user = unquote(login).partition(":")[0] or parameters.get("user", "")
    where = hosts or ",".join(filter(None, (parameters.get("host"), parameters.get("port")))) or "localhost"
    database = path.removeprefix("/") or parameters.get("dbname") or parameters.get("database", "")
    return f"postgresql://{user}{'@' if user else ''}{where}/{database}"


# Classes of SQLSTATE, as PostgreSQL's manual lists them in appendix A.
_PASSING: Final = {
    "08": "the connection broke",
    "25": "it refuses writes now; is it a standby after a failover?",
    "40": "it conflicted with another transaction",
    "53": "it is out of connections, memory or disk: make room",
    "55": "another session holds a lock",
    "57": "it is starting or shutting down, or cancelled the statement",
    "58": "its disk or system failed: check its log",
}
_LASTING: Final = {
    "28": "user or password are not accepted: correct them in DATABASE_URL",
    "3D": "the database does not exist: make it with createdb, or correct DATABASE_URL",
    "3F": "no schema for tables exists: correct search_path",
    "42501": "the user lacks a privilege: GRANT the rights on the tables predictions, kickserve_deleted and"
    " kickserve_schema, and CREATE on the schema (each month is a table)",
    "42P07": "a table of another program has the name of ours: point DATABASE_URL to a database for kickserve"
    " alone",
    "42704": "DATABASE_URL has a parameter that neither asyncpg nor the server knows: take it out",
    "26": "a pooler such as pgbouncer mixes up statements: set KICKSERVE_POSTGRES_STATEMENT_CACHE=0",
    "42P05": "a pooler such as pgbouncer mixes up statements: set KICKSERVE_POSTGRES_STATEMENT_CACHE=0",
}
_UNFIT: Final = frozenset({"22", "23"})


def explained(error: Exception, label: str) -> StoreError:
    """Turn an error of Postgres or asyncpg into one of a store: may pass, will not, or a record is unfit."""
    if isinstance(error, OSError):
        return _unreachable(error, label)
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
