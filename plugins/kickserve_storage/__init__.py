"""The plugin `storage`: keeps predictions in SQLite or Postgres, whichever the database URL names."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from kickserve.plugins import MissingExtra, Plugin

if TYPE_CHECKING:
    from kickserve.settings import Settings
    from kickserve.store import Store

__all__ = ["StoragePlugin", "create_plugin"]

_SQLITE: Final = frozenset({"sqlite"})
_POSTGRES: Final = frozenset({"postgresql", "postgres"})


def create_plugin(settings: Settings) -> StoragePlugin:
    """Make the plugin: what the entry point names."""
    return StoragePlugin(settings)


class StoragePlugin(Plugin):
    """Makes the store for a `sqlite:` or `postgresql:` URL.

    Args:
        settings: how many statements Postgres keeps prepared stands there.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._settings = settings

    def create_store(self, url: str) -> Store | None:
        """Make a store for a database URL, without connecting yet.

        Args:
            url: such as `sqlite:///file.db` or `postgresql://user:password@host/database`. A driver
                behind the scheme (`postgresql+psycopg2:`), as other programs want it, is passed over.

        Raises:
            StoreMisconfigured: the URL can't be understood.
            MissingExtra: asyncpg is not installed.
        """
        scheme, _, rest = url.partition(":")
        family = scheme.lower().partition("+")[0]
        if family in _SQLITE:
            return _sqlite(f"sqlite:{rest}")
        if family in _POSTGRES:
            return _postgres(f"postgresql:{rest}", self._settings.postgres_statement_cache)
        return None


# The drivers are imported where they are used: SQLite's start must not pay for asyncpg, nor the reverse.
def _sqlite(url: str) -> Store:
    from kickserve_storage.sqlite import SqliteStore

    return SqliteStore(url)


def _postgres(url: str, statement_cache: int) -> Store:
    if find_spec("asyncpg") is None:  # asked, not tried, so that a bug inside it is not taken for its absence
        raise MissingExtra("Storing to Postgres", "postgres", ["asyncpg"])
    from kickserve_storage.postgres import PostgresStore

    return PostgresStore(url, statement_cache=statement_cache)
