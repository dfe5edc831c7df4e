"""Runs a benchmark, drill or attack by its name: `python -m ops.bench NAME [options]`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def run(package: str, default: str, names: dict[str, tuple[str, str]]) -> NoReturn:
    """Call the function that the command line names.

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
    sys.argv = [f"python -m {package} {name}", *arguments]
    try:
        sys.exit(function(package, names[name][0])())
    except KeyboardInterrupt:
        sys.exit("stopped; nothing is left running")


def function(package: str, place: str) -> Callable[[], int | None]:
    """Return the function at `module.function` of a package."""
    module, _, name = place.partition(".")
    found: Callable[[], int | None] = getattr(import_module(f"{package}.{module}"), name)
    return found
