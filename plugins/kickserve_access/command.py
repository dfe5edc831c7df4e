"""`kickserve key`: the keys of clients, in a file that running services follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from kickserve.plugins import MEANINGS, ConfigurationError, Scope, kinds, print_json, print_table, say, stdout
from kickserve_access.keyfile import changing, make, read
from kickserve_access.settings import AccessSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_access.keyfile import Entry

_SCOPES = "; ".join(f"{scope}: {meaning}" for scope, meaning in MEANINGS.items())


def _time(_: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    try:
        return None if value is None else kinds.duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}") from error


_file = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of keys; overrides KICKSERVE_KEYS.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")


@click.group("key")
def command() -> None:
    r"""Make, list, rotate and remove the keys of clients.

    The file KICKSERVE_KEYS holds the SHA-256 of each key, never the key. Running services read changes within
    a second.

    \b
    Examples:
      kickserve key new scoreboard --scope predict --file keys.json
      KICKSERVE_KEYS=keys.json kickserve key list
    """


@command.command("new")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([*map(str, Scope)]),
    multiple=True,
    required=True,
    help=f"Scope of the key; repeatable. {_SCOPES}.",
)
@click.option(
    "--expires", callback=_time, help="Lifetime of the key, such as 90d or 12h. Default: unlimited."
)
@_file
@_json
def new(
    name: str, scopes: Sequence[str], expires: timedelta | None, file: Path | None, *, as_json: bool
) -> None:
    r"""Make a key, and show the key once.

    \b
    Examples:
      kickserve key new scoreboard --scope predict --file keys.json
      kickserve key new prometheus --scope read
      kickserve key new contractor --scope read --scope predict --expires 30d
    """
    with changing(_place(file)) as entries:
        if any(each.name == name for each in entries):
            raise ConfigurationError(
                f"the key '{name}' exists already: choose another name, or run  kickserve key rotate {name}"
            )
        key, entry = make(name, [*map(Scope, dict.fromkeys(scopes))], _ending(expires))
        entries.append(entry)
    _show(key, entry, as_json=as_json)


@command.command("rotate")
@click.argument("name")
@click.option(
    "--overlap",
    callback=_time,
    default="7d",
    show_default=True,
    help="Time for which the previous key stays valid.",
)
@click.option("--expires", callback=_time, help="Lifetime of the new key. Default: unlimited.")
@_file
@_json
def rotate(
    name: str, overlap: timedelta | None, expires: timedelta | None, file: Path | None, *, as_json: bool
) -> None:
    r"""Make the next key of a name; the previous key expires after the overlap.

    \b
    Example:
      kickserve key rotate scoreboard --overlap 1d
    """
    with changing(_place(file)) as entries:
        newest = _of(name, entries)[-1]
        key, entry = make(name, newest.scopes, _ending(expires))
        end = datetime.now(UTC).replace(microsecond=0) + (overlap or timedelta())
        entries[:] = [
            msgspec.structs.replace(each, expires=min(each.expires or end, end))
            if each.name == name
            else each
            for each in entries
        ]
        entries.append(entry)
    _show(key, entry, as_json=as_json)


@command.command("list")
@_file
@_json
def listed(file: Path | None, *, as_json: bool) -> None:
    r"""List the keys, with names, scopes and dates.

    \b
    Examples:
      kickserve key list
      kickserve key list --file keys.json --json
    """
    entries = read(_place(file))
    if as_json:
        print_json(entries)
        return
    rows = [
        (each.name, ", ".join(each.scopes), _written(each.created), _written(each.expires), each.sha256[:12])
        for each in entries
    ]
    print_table(("name", "scopes", "created", "expires", "sha256"), rows)


@command.command("remove")
@click.argument("name")
@_file
def remove(name: str, file: Path | None) -> None:
    r"""Remove a key: running services refuse the key within a second.

    \b
    Examples:
      kickserve key remove scoreboard
    """
    with changing(_place(file)) as entries:
        gone = _of(name, entries)
        entries[:] = [each for each in entries if each.name != name]
    say(f"removed {name}" + (f" ({len(gone)} keys)" if len(gone) > 1 else ""))


def _of(name: str, entries: Sequence[Entry]) -> list[Entry]:
    found = [each for each in entries if each.name == name]
    if not found:
        known = ", ".join(sorted({each.name for each in entries})) or "none"
        raise ConfigurationError(f"no key has the name '{name}' (existing keys: {known})")
    return found


def _place(file: Path | None) -> Path:
    file = file or AccessSettings.load().keys
    if file is None:
        raise ConfigurationError(
            "name the file of keys with --file, or in KICKSERVE_KEYS, which the service reads too"
        )
    return file


def _ending(expires: timedelta | None) -> datetime | None:
    return None if expires is None else datetime.now(UTC).replace(microsecond=0) + expires


def _written(at: datetime | None) -> str:
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _show(key: str, entry: Entry, *, as_json: bool) -> None:
    """Write a key to the standard output, and what goes with it beside it: so the key can be piped."""
    if as_json:
        print_json({"key": key, **msgspec.to_builtins(entry)})
        return
    stdout().print(key, soft_wrap=True)
    say(f"{entry.name}: {', '.join(entry.scopes)}; expires: {_written(entry.expires)}")
    say("This key is shown only once: the file holds only its SHA-256. Clients send the key as X-API-Key.")
