"""Prints what kickserve needs, from pyproject.toml: `python ops/requirements.py EXTRA,EXTRA`; `-` for none.

The Containerfile installs this ahead of the code, so that a change of the code installs nothing anew.
Only the standard library is used.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

OWN = re.compile(r"kickserve\[(?P<extras>[\w,-]+)\]")


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Return the requirements of the project and of these extras, each once.

    Raises:
        SystemExit: there is no such extra.
    """
    known: dict[str, list[str]] = project["optional-dependencies"]
    found = dict.fromkeys(project["dependencies"])
    waiting = list(extras)
    while waiting:
        extra = waiting.pop()
        if extra not in known:
            sys.exit(f"there is no extra {extra!r}: choose among {', '.join(known)}")
        for each in known[extra]:
            own = OWN.fullmatch(each)
            waiting += own["extras"].split(",") if own else []
            found |= {} if own else {each: None}
    return list(found)


if __name__ == "__main__":
    described = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    asked = sys.argv[1] if len(sys.argv) > 1 else "-"
    print("\n".join(requirements(described, [] if asked == "-" else asked.split(","))))
