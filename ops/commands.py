"""Runs a benchmark, drill or attack by its name: `python -m ops.bench NAME [options]`.

Each is a function: its parameters are the options, its docstring the help, and its result is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from rich.console import Console, Group, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Row = dict[str, Any]
progress = Console(stderr=True)


class Report(NamedTuple):
    """What a function found.

    Attributes:
        figures: for `--json`.
        text: for a person.
        passed: whether all is as it should be.
    """

    figures: Any
    text: RenderableType
    passed: bool = True


def run(package: str, default: str, names: dict[str, tuple[str, str]]) -> NoReturn:
    """Call the function that the command line names, print its result, and end: with 1 where it failed.

    Args:
        package: the package of the functions.
        default: the name to run where the command line has none.
        names: `module.function` in the package, and a description, by name.
    """
    arguments = sys.argv[1:]
    if "--list" in arguments:
        width = max(map(len, names))
        print("\n".join(f"{name:{width}}  {what}" for name, (_, what) in names.items()))
        sys.exit()
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else default
    if name not in names:
        sys.exit(f"there is no {name!r} in {package}: choose among {', '.join(names)}")
    called = function(package, names[name][0])
    try:
        made = parser(called, f"python -m {package} {name}")
        known, flags = made.parse_known_args(arguments)
        if flags and not inspect.getfullargspec(called).varargs:
            made.error(f"there is no option {flags[0]}")
        options = vars(known)
        as_json = options.pop("json")
        found = called(*flags, **options)
        report = reported(asyncio.run(found) if inspect.iscoroutine(found) else found)
    except KeyboardInterrupt:
        sys.exit("stopped; nothing is left running")
    if as_json:
        print(json.dumps(report.figures, indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(report.text)
    sys.exit(0 if report.passed else 1)


def function(package: str, place: str) -> Callable[..., Any]:
    """Return the function at `module.function` of a package."""
    module, _, name = place.partition(".")
    found: Callable[..., Any] = getattr(import_module(f"{package}.{module}"), name)
    return found


def parser(called: Callable[..., Any], program: str) -> argparse.ArgumentParser:
    """Make an option of each parameter: of the type of its default, with the help of the docstring."""
    text = inspect.getdoc(called) or ""
    made = argparse.ArgumentParser(
        program,
        description=text.partition("\n\nArgs:")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, each in inspect.signature(called).parameters.items():
        if each.kind is each.VAR_POSITIONAL:
            continue
        [described] = re.findall(rf"^ +{name}: (.+(?:\n {{8}}.+)*)", text, re.MULTILINE)
        option, words = "--" + name.replace("_", "-"), re.sub(r"\s+", " ", described)
        if isinstance(each.default, bool):
            made.add_argument(option, action="store_true", help=words)
        elif isinstance(each.default, tuple):
            kind = type(each.default[0]) if each.default else str
            made.add_argument(option, nargs="+", type=kind, default=each.default, help=words)
        else:
            made.add_argument(option, type=type(each.default), default=each.default, help=words)
    made.add_argument("--json", action="store_true", help="print JSON and no table")
    return made


def reported(found: Report | Row | list[Row] | dict[str, list[Row]]) -> Report:
    """Lay out a row, some rows, or tables of rows by their titles; a row whose `passed` is false fails."""
    if isinstance(found, Report):
        return found
    if isinstance(found, dict) and all(isinstance(rows, list) for rows in found.values()):
        tables: dict[str, list[Row]] = found
        figures = found if len(found) > 1 else next(iter(found.values()))
    else:
        tables = {"": found if isinstance(found, list) else [found]}
        figures = found
    rows = [row for each in tables.values() for row in each]
    text = Group(*(part for title, each in tables.items() for part in (title, table(each)) if part))
    return Report(figures, text, all(row.get("passed", True) for row in rows))


def table(rows: Sequence[Row]) -> Table:
    """Lay out rows: in columns where all have the same names, with one cell for all figures of a drill."""
    if "passed" in rows[0]:
        made = Table(next(iter(rows[0])), "figures", "passed")
        for row in rows:
            (_, name), *figures = ((key, value) for key, value in row.items() if key != "passed")
            words = ", ".join(f"{key} {cell(value)}" for key, value in figures)
            made.add_row(str(name), words, "yes" if row["passed"] else "[red]NO")
        return made
    made = Table(box=None, padding=(0, 2, 0, 0))
    for at, name in enumerate(rows[0]):
        made.add_column(name.replace("_", " "), justify="right" if at else "left")
    for row in rows:
        made.add_row(*map(cell, row.values()))
    return made


def cell(value: Any) -> str:
    """Return a value as a table has it: numbers with four digits that count."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"  # noqa: PLR2004  four digits
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
