"""The command `doctor`: examines settings and surroundings of a service, and says what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx
import psutil
import rich_click as click
from rich.table import Table
from rich.text import Text

from kickserve.auth import weakness
from kickserve.dead_letters import DeadLetters
from kickserve.errors import ConfigurationError, KickserveError
from kickserve.journal import Journal
from kickserve.loading import load_model
from kickserve.model import TYPICAL, predict
from kickserve.plugins import API, create_authenticator, create_store, discover, installed_names
from kickserve.server import bind, check_host
from kickserve.settings import Settings
from kickserve.terminal import print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kickserve.plugins import Plugin, Store

    Check = Callable[[], str]

_AHEAD: Final = 5.0  # seconds that clocks of several machines may differ
_NETWORK: Final = frozenset({"9p", "afs", "cephfs", "cifs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "smb3"})
_STYLES: Final = {"ok": "green", "warning": "yellow", "fault": "bold red"}
_FULL: Final = 1_000_000  # bytes: a disk with less takes hardly a prediction
_LINE: Final = 2.0  # seconds for a service to answer


class Finding(NamedTuple):
    """What was found of one part.

    Attributes:
        part: its name.
        state: `ok`, `warning` (it works, and may fail you), or `fault` (predictions are refused, or not
            stored).
        detail: what it is, or what to do.
    """

    part: str
    state: str
    detail: str


class _Doubt(Exception):
    """A part works, but may fail its owner: the message says how, and what to do."""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Write the findings as JSON.")
def doctor(*, as_json: bool) -> int:
    r"""Examine settings, key, store, clock, journal, disk, model and port; say what is well, and what to do.

    Changes nothing, and may be run beside a service or before its start. Exit code 2 where
    predictions would be refused, or not stored.

    \b
    Examples:
      kickserve doctor
      kickserve doctor --json
    """
    findings = [*_examine()]
    if as_json:
        print_json([each._asdict() for each in findings])
    else:
        _print(findings)
    return 2 if any(each.state == "fault" for each in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    for part, state, detail in findings:
        table.add_row(part, Text(state, _STYLES[state]), Text(detail))
    stdout().print(table)


def _examine() -> Iterator[Finding]:
    """Examine one part after the other; without settings and plugins there is nothing more to examine."""
    found: list[Any] = []
    for part, load in (("settings", Settings.load), ("plugins", lambda: discover(found[0]))):
        try:
            found.append(load())
        except KickserveError as error:
            yield Finding(part, "fault", str(error))
            return
    settings, plugins = found
    yield Finding("settings", "ok", _origin_of(settings))
    yield Finding("plugins", "ok", _names_of(plugins))
    checks: dict[str, Check] = {
        "key": lambda: _key(settings, plugins),
        "store": lambda: asyncio.run(_store(settings, plugins)),
        "journal": lambda: _journal(settings, plugins),
        "disk": lambda: _disk(settings),
        "model": lambda: _model(settings, plugins),
        "port": lambda: _port(settings),
    }
    for part, check in checks.items():
        try:
            yield Finding(part, "ok", check())
        except _Doubt as doubt:
            yield Finding(part, "warning", str(doubt))
        except (KickserveError, OSError) as error:
            yield Finding(part, "fault", str(error))


def _origin_of(settings: Settings) -> str:
    file = Path(".env").absolute()
    names = sorted({row.variable for row in Settings.rows()} & settings.environ.keys())
    return f"set: {', '.join(names) or 'none'}; {file} {'is read' if file.is_file() else 'does not exist'}"


def _names_of(plugins: Sequence[Plugin]) -> str:
    loaded, missing = installed_names(plugins)
    extras = f"; for {', '.join(missing)}: pip install 'kickserve[{','.join(missing)}]'" if missing else ""
    return ", ".join(loaded) + extras


def _key(settings: Settings, plugins: Sequence[Plugin]) -> str:
    guarded = create_authenticator(plugins, settings).guarded
    check_host(settings, guarded=guarded)
    if advice := weakness(settings):
        raise _Doubt(advice)
    return "clients need a key" if guarded else "none: the service answers programs of this machine alone"


async def _store(settings: Settings, plugins: Sequence[Plugin]) -> str:
    store = create_store(plugins, settings.database_url)
    file = getattr(store, "path", None)
    if isinstance(file, Path) and not file.exists():
        _expect_writable(file.parent, "DATABASE_URL")
        return f"{store.label} does not exist yet: the first start makes it"
    if isinstance(file, Path) and not os.access(file, os.W_OK):
        raise ConfigurationError(
            f"{file} can't be written by this user: give write access, or set another file in DATABASE_URL"
        )
    try:
        await store.open(read_only=True)
        return await _state_of(store)
    finally:
        await store.close()


async def _state_of(store: Store) -> str:
    started = time.perf_counter()
    count, newest = await store.count(), await store.page(1)
    took = time.perf_counter() - started
    if newest and (ahead := (newest[0].created_at - datetime.now(UTC)).total_seconds()) > _AHEAD:
        raise _Doubt(
            f"{store.label}: the newest prediction lies {ahead:,.0f} s in the future. Set the clocks of the"
            " machines that serve (chrony, systemd-timesyncd): ids, and which outcome is newer, rest on them"
        )
    return f"{store.label}, {count:,} predictions, answers in {took * 1000:,.0f} ms"


def _journal(settings: Settings, plugins: Sequence[Plugin]) -> str:
    _expect_writable(settings.journal_dir, "KICKSERVE_JOURNAL_DIR")
    try:
        label = create_store(plugins, settings.database_url).label
    except KickserveError as error:
        raise _Doubt("what it holds is told by DATABASE_URL: mend that first") from error
    folder = Journal.from_settings(settings, label).folder
    _expect_writable(folder, "KICKSERVE_JOURNAL_DIR")
    if (state := DeadLetters(folder).state) != "ok":
        raise _Doubt(state)
    if (kind := _file_system(folder)) in _NETWORK:
        raise _Doubt(
            f"{folder} is on a network share ({kind}), whose locks can't be relied on: set a folder of a"
            " local disk in KICKSERVE_JOURNAL_DIR"
        )
    size = sum(file.stat().st_size for file in folder.glob("*/*.log"))
    return f"{folder}, {size:,} bytes, durable by {settings.journal}"


def _expect_writable(folder: Path, variable: str) -> None:
    there = _existing(folder)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ConfigurationError(
            f"{there} can't be written by this user: give write access, or set another folder in {variable}"
        )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def _file_system(folder: Path) -> str:
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    path = folder.absolute()
    return next((mounts[each] for each in (path, *path.parents) if each in mounts), "")


def _disk(settings: Settings) -> str:
    folder = _existing(settings.journal_dir)
    free = shutil.disk_usage(folder).free
    if free < _FULL:
        raise ConfigurationError(
            f"{free:,} bytes are free at {folder}: free some, or set a folder of another disk in"
            " KICKSERVE_JOURNAL_DIR"
        )
    if free < settings.journal_max * settings.workers:
        raise _Doubt(
            f"{free:,} bytes are free at {folder}, less than the journal may take (KICKSERVE_JOURNAL_MAX for"
            " each worker): free some, or lower the limit"
        )
    return f"{free:,} bytes are free at {folder}"


def _model(settings: Settings, plugins: Sequence[Plugin]) -> str:
    model = load_model(settings, plugins)
    started = time.perf_counter()
    predict(model, TYPICAL)
    took = time.perf_counter() - started
    return f"{model.card.name}, revision {model.card.revision}, answers a kick in {took * 1000:,.2f} ms"


def _port(settings: Settings) -> str:
    try:
        answer = httpx.get(f"{settings.own_url}{API}/health", timeout=_LINE, trust_env=False).json()
        state, version = answer["status"], answer["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        for listener in bind(settings, 1, guarded=True):
            listener.close()
        return f"{settings.host}:{settings.port} is free: no service runs there"
    if state != "ok":
        faults = "; ".join(f"{part}: {said}" for part, said in answer["parts"].items() if said != "ok")
        raise _Doubt(f"the service at {settings.own_url} is {state}: {faults}")
    return f"kickserve {version} answers at {settings.own_url}, and is well"
