"""The terminal: text and tables for people, JSON for machines, progress bars, types of options."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kickserve import kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from click import Context, Parameter
    from rich.progress import Progress

_WIDE: Final = 10_000  # columns

# Consoles are made when needed: tests and shells may put another stream in place of the process's own.


def stdout() -> Console:
    """Return the console for results; one that is no terminal is as wide as they need."""
    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=_WIDE)


def stderr() -> Console:
    """Return the console for progress and complaints, so that results can be piped."""
    return Console(stderr=True, highlight=False, emoji=False)


def complain(message: str) -> None:
    """Write an error."""
    stderr().print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def say(message: str) -> None:
    """Write a note to standard error."""
    stderr().print(Text(message), soft_wrap=True)


def print_json(value: Any) -> None:
    """Write a result for a machine: one JSON document, indented."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if not stdout().encoding.startswith("utf"):
        text = json.dumps(json.loads(text), indent=2)  # in ASCII
    sys.stdout.write(text + "\n")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Write names and values, one pair a line."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    stdout().print(table)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, gap: int = 2) -> None:
    """Write a table; all columns but the first are right-aligned, with `gap` spaces between."""
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    stdout().print()
    stdout().print(table)


def progress(*, in_bytes: bool = False, shares: bool = False) -> Progress:
    """Make a progress bar on the standard error; it draws nothing where that is no terminal.

    Args:
        in_bytes: count bytes.
        shares: count fractions of a whole.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    counted = TaskProgressColumn() if shares else DownloadColumn() if in_bytes else MofNCompleteColumn()
    console = stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


AUTO: Final = "auto"
"""What `--url` says for the service that the settings describe, if it answers."""
_SCHEMES: Final = ("http://", "https://")


class FiniteRange(click.FloatRange):
    """A number within a range, and none of `nan` and `inf`, which `float` reads too."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        """Read it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class Instant(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """An instant, as parameters of the API take it (`kinds.instant`)."""

    name = "instant"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> datetime:
        """Read it."""
        try:
            return kinds.instant(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}.", param, ctx)


class ServiceUrl(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """The base URL of a running service.

    Args:
        auto: whether it may be `auto` instead.
    """

    name = "text"

    def __init__(self, *, auto: bool = False) -> None:
        self._auto = auto

    def convert(self, value: str, param: Parameter | None, ctx: Context | None) -> str:
        """Look at it; nothing is asked."""
        if self._auto and value == AUTO:
            return value
        try:
            address = urlsplit(value)
            usable = value.startswith(_SCHEMES) and bool(address.hostname) and address.port != 0
        except ValueError:
            usable = False
        if not usable:
            self.fail(f"{value!r} can't be used: it must read http://HOST:PORT or https://HOST.", param, ctx)
        return value
