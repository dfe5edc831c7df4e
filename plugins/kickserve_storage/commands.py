"""The commands `kickserve backup` and `kickserve restore`: copies of SQLite while a service runs."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from kickserve.plugins import (
    ConfigurationError,
    Settings,
    StoreMisconfigured,
    StoreUnavailable,
    atomic_write,
    create_store,
    discover,
    print_facts,
    print_json,
)
from kickserve_storage.sqlite import APPLICATION, MIGRATIONS, SqliteStore
from kickserve_storage.sqlite_file import create, explained, read_only_uri

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 30.0  # seconds to wait for another process that has the database locked


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def backup(file: Path, *, force: bool, as_json: bool) -> None:
    r"""Copy the SQLite database to FILE while the service runs.

    \b
    Examples:
      kickserve backup kicks-2026-11-30.db
      kickserve backup /backups/kicks.db --force
    """
    database = _database()
    if not database.exists():
        raise ConfigurationError(
            f"{database} does not exist, so there is nothing to copy: check DATABASE_URL"
        )
    if file.exists() and (file.samefile(database) or not force):
        raise click.UsageError(f"{file} exists: name another file, or replace it with --force")
    try:
        with atomic_write(file, durable=True) as draft:
            create(draft)
            _copy(database, draft)
            count = _check(draft)
    except OSError as error:
        raise ConfigurationError(f"{file} can't be written ({error.strerror})") from error
    _report({"backup": str(file), "database": str(database), "predictions": count}, as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Don't ask before the predictions in the database are replaced.")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def restore(file: Path, *, yes: bool, as_json: bool) -> None:
    r"""Replace all predictions in the SQLite database by those of FILE, a backup, while the service runs.

    Predictions that still wait in the journal go to the restored database afterwards.

    \b
    Examples:
      kickserve restore kicks-2026-11-30.db
      kickserve restore /backups/kicks.db --yes
    """
    database, count = _database(), _check(file)
    if database.exists() and file.samefile(database):
        raise click.UsageError(f"{file} is the database itself: name a backup")
    replaced = asyncio.run(_prepare())
    if replaced and not yes:
        click.confirm(
            f"Replace {replaced:,} predictions in {database} by {count:,} of {file}?", abort=True, err=True
        )
    _copy(file, database)
    asyncio.run(_prepare())  # a backup of an older kickserve has an older schema
    _report(
        {"restored": str(file), "database": str(database), "predictions": count, "replaced": replaced},
        as_json=as_json,
    )


def _store() -> SqliteStore:
    settings = Settings.load()
    store = create_store(discover(settings), settings.database_url)
    if not isinstance(store, SqliteStore):
        raise ConfigurationError(
            f"{store.label} is no SQLite file. Postgres has its own tools: `pg_dump --format=custom` for a"
            " backup, and `pg_restore` into a new database for a restore"
        )
    return store


def _database() -> Path:
    store = _store()
    if store.path is None:
        raise ConfigurationError(f"{store.label} is no file: name one in DATABASE_URL")
    return store.path


async def _prepare() -> int:
    """Open the database, with the schema of today, and return how many predictions are in it."""
    store = _store()
    try:
        await store.open()
        return await store.count()
    finally:
        await store.close()


def _copy(source: Path, target: Path) -> None:
    """Copy one database over another, by pages, in one transaction of each: others may use both meanwhile."""
    try:
        with closing(_open(source)) as reader, closing(sqlite3.connect(target)) as writer:
            reader.backup(writer, progress=_give_up_after(PATIENCE, target), sleep=0.05)
    except sqlite3.Error as error:
        raise explained(error, f"{source} or {target}") from error


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(read_only_uri(file), uri=True)


def _give_up_after(seconds: float, target: Path) -> Callable[[int, int, int], None]:
    end = time.monotonic() + seconds

    def progress(status: int, _remaining: int, _total: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > end:
            raise StoreUnavailable(f"{target} is locked by another process: try again")

    return progress


def _check(file: Path) -> int:
    """Return the number of predictions in a copy; refuse one that is damaged, or none of kickserve's."""
    try:
        with closing(_open(file)) as reader:
            [fault] = reader.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise StoreMisconfigured(f"{file} is damaged ({fault}): take another backup")
            [application] = reader.execute("PRAGMA application_id").fetchone()
            [version] = reader.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION or not 0 < version <= len(MIGRATIONS):
                raise StoreMisconfigured(
                    f"{file} is no backup that this kickserve, or an older one, has made"
                )
            [count] = reader.execute("SELECT count(*) FROM predictions").fetchone()
            return int(count)
    except sqlite3.Error as error:
        raise explained(error, str(file)) from error


def _report(facts: dict[str, str | int], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_facts([(name, f"{fact:,}" if isinstance(fact, int) else fact) for name, fact in facts.items()])
