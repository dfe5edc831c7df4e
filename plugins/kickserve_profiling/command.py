"""`kickserve profile`: profiles a running service, and `kickserve profile show` lists what took the time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click
from rich.table import Table
from rich.text import Text

from kickserve.plugins import FiniteRange, ServiceUrl, Settings, print_json, progress, say, stdout
from kickserve_client import calls, connected
from kickserve_profiling.formats import FORMATS
from kickserve_profiling.profile import ProfileError
from kickserve_profiling.settings import ProfilingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click import Context

    from kickserve_profiling.profile import Row

_TOP: Final = 20
_SPARE: Final = 60.0  # seconds that an answer may take beyond the profile itself
_SUFFIXES: Final = {".pstat": "pstat", ".callgrind": "callgrind", ".json": "speedscope"}


@click.group("profile", invoke_without_command=True)
@click.option(
    "--url",
    type=ServiceUrl(),
    help="Base URL of the service. Default: the address in the settings.",
)
@click.option(
    "--seconds", type=FiniteRange(0.1, 60), default=10, show_default=True, help="Duration of the profile."
)
@click.option(
    "--clock",
    type=click.Choice(["cpu", "wall"]),
    default="cpu",
    show_default=True,
    help="cpu: processor time; wall: also the time in which threads wait.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write: .pstat, .callgrind or .json (speedscope, which draws a flame graph).",
)
@click.pass_context
def command(context: Context, url: str | None, seconds: float, clock: str, output: Path | None) -> None:
    r"""Profile a running service for some seconds, and write the profile to a file.

    Profiling slows the service down. The command sends API_KEY, if set.

    \b
    Examples:
      kickserve profile
      kickserve profile --url http://127.0.0.1:7860 --seconds 5 --output flames.json
      kickserve profile show profiles/20261124T170533.123456Z-POST-api-v1-predict.pstat
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings.load()
    file = output or Path(f"kickserve-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.pstat")
    form = _format_of(file)
    query = {"seconds": seconds, "clock": clock, "format": form}
    content = asyncio.run(_fetch(url or settings.own_url, settings, query, seconds))
    _write(file, content)
    say(f"wrote {file} ({len(content):,} bytes)")
    if form == "pstat":
        say(f"look at it:  kickserve profile show {file}")


async def _fetch(url: str, settings: Settings, query: Mapping[str, Any], seconds: float) -> bytes:
    async with connected(url, settings) as client:
        call = calls.raw("POST", "/profile", query, timeout=seconds + _SPARE)
        answer = asyncio.create_task(client.send(call))
        with progress() as bar:
            task = bar.add_task("profiling", total=round(seconds))
            while not (await asyncio.wait({answer}, timeout=1))[0]:
                bar.advance(task)
        return await answer


@command.command("show")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--top", type=click.IntRange(1), default=_TOP, show_default=True, help="Number of functions to list."
)
@click.option(
    "--flame",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a file for flame graphs: .json for speedscope, or .callgrind.",
)
@click.option("--json", "as_json", is_flag=True, help="Write all functions as JSON.")
def show(file: Path | None, top: int, flame: Path | None, *, as_json: bool) -> None:
    r"""Show the functions of a profile with the most time of their own.

    Without FILE, the newest of the profiles in this folder and in KICKSERVE_PROFILE_DIR. Only open files from
    people you trust: a forged file can crash this program.

    \b
    Examples:
      kickserve profile show
      kickserve profile show kickserve-20261124T170533Z.pstat
      kickserve profile show kickserve-20261124T170533Z.pstat --flame flames.json
    """
    from kickserve_profiling.profile import read, rows

    if file is None:
        file = _newest()
        say(f"the newest profile is {file}")
    profile = read(file)
    if flame is not None:
        _write(flame, FORMATS[_format_of(flame)].write(profile, file.stem))
        say(f"wrote {flame}")
    found = rows(profile)
    if as_json:
        print_json([row._asdict() for row in found])
    else:
        stdout().print(_table(found, top))


def _newest() -> Path:
    folder = ProfilingSettings.load().folder
    found = [*Path().glob("*.pstat"), *folder.glob("*.pstat")]
    if not found:
        raise ProfileError(f"there is no profile here or in {folder}: `kickserve profile` makes one")
    return max(found, key=lambda file: file.stat().st_mtime)


def _table(rows: Sequence[Row], top: int) -> Table:
    whole = sum(row.own for row in rows)
    table = Table(caption=f"{len(rows):,} functions, {_time(whole)} altogether", caption_justify="left")
    table.add_column("function", overflow="fold")
    for name in ("calls", "in itself", "share", "with all it called"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:top]:
        share = row.own / whole if whole else 0.0
        table.add_row(Text(row.name), f"{row.calls:,}", _time(row.own), f"{share:.1%}", _time(row.total))
    return table


def _time(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1000:,.3f} ms"


def _format_of(file: Path) -> str:
    form = _SUFFIXES.get(file.suffix.lower())
    if form is None:
        known = "; ".join(f"{suffix} ({FORMATS[name].opened_by})" for suffix, name in _SUFFIXES.items())
        raise ProfileError(f"{file} is no name of a profile: use the ending {known}")
    return form


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ProfileError(f"{file} can't be written: {error.strerror}") from error
