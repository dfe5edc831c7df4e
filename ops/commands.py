"""Runs a benchmark, drill or attack by its name: `python -m ops.bench NAME [options]`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn


def run(package: str, default: str, names: dict[str, str]) -> NoReturn:
    """Call `main()` of the module that the command line names.

    Args:
        package: the package of the modules.
        default: the module to run where the command line names none.
        names: the description of each module, by its name.
    """
    arguments = sys.argv[1:]
    if "--list" in arguments:
        width = max(map(len, names))
        print("\n".join(f"{name:{width}}  {what}" for name, what in names.items()))
        sys.exit()
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else default
    if name not in names:
        sys.exit(f"there is no {name!r} in {package}: choose among {', '.join(names)}")
    sys.argv = [f"python -m {package} {name}", *arguments]
    try:
        sys.exit(import_module(f"{package}.{name.replace('-', '_')}").main())
    except KeyboardInterrupt:
        sys.exit("stopped; nothing is left running")
