"""The plugin `storage`: keeps predictions in SQLite or Postgres, whichever the database URL names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kickserve.plugins import MissingExtra, Plugin, SettingsTable, kinds, setting

if TYPE_CHECKING:
    from click import Group

    from kickserve.plugins import Settings, Store

__all__ = ["StoragePlugin", "StorageSettings", "create_plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings(SettingsTable):
    """The settings of databases."""

    postgres_statement_cache: int = setting(
        "KICKSERVE_POSTGRES_STATEMENT_CACHE",
        "100",
        kinds.whole,
        "Number of prepared statements that each Postgres connection caches. Set 0 behind pgbouncer.",
    )


def create_plugin(settings: Settings) -> StoragePlugin:
    """Make the plugin: the entry point names this function."""
    return StoragePlugin(settings)


class StoragePlugin(Plugin):
    """Makes the store for a `sqlite:` or `postgresql:` URL."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table: StorageSettings = StorageSettings.load(settings.environ)

    def on_cli_init(self, cli: Group) -> None:
        """Add the commands."""
        from kickserve_storage.commands import backup, restore

        cli.add_command(backup)
        cli.add_command(restore)

    def create_store(self, url: str) -> Store | None:
        """Make a store for a database URL, without connecting yet.

        Args:
            url: such as `sqlite:///file.db` or `postgresql://user:password@host/database`. A driver behind
                the scheme (`postgresql+psycopg2:`), as other programs want it, is passed over.

        Raises:
            StoreMisconfigured: the URL can't be understood.
            MissingExtra: asyncpg is not installed.
        """
        scheme, _, rest = url.partition(":")
        # A driver is imported where it is used: SQLite's start must not pay for asyncpg, nor the reverse.
        match scheme.lower().partition("+")[0]:
            case "sqlite":
                from kickserve_storage.sqlite import SqliteStore

                return SqliteStore(f"sqlite:{rest}")
            case "postgresql" | "postgres":
                # Looked for, not tried, so that a bug inside it is not taken for its absence.
                if find_spec("asyncpg") is None:
                    raise MissingExtra("Storing to Postgres", "postgres", ["asyncpg"])
                from kickserve_storage.postgres import PostgresStore

                cache = self.table.postgres_statement_cache
                return PostgresStore(f"postgresql:{rest}", statement_cache=cache)
        return None
