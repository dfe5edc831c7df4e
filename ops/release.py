"""Version and notes of a release: `python ops/release.py version`, or `python ops/release.py notes v1.2.3`.

`version` prints the one that pyproject.toml has. `notes` prints what the changelog says of a tag, and fails
where the tag is another version, or the changelog has no dated section for it. Only the standard library is
used.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """Return the version that pyproject.toml has."""
    described = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: str = described["project"]["version"]
    return found


def notes(tag: str, changelog: str, version: str) -> str:
    """Return what the changelog says of a release.

    Args:
        tag: such as v1.2.3.
        changelog: in Markdown, a heading `## 1.2.3 (2026-01-31)` a release.
        version: the one that would be released.

    Raises:
        SystemExit: the tag is not the version, or the changelog is not ready for it.
    """
    if tag != f"v{version}":
        sys.exit(f"the tag is {tag}, and pyproject.toml has version {version}: one of them is wrong")
    heading = rf"^## {re.escape(version)} \((?P<when>[^)]*)\)\n(?P<text>.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"CHANGELOG.md has no section '## {version} (date)': write what has changed")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", found["when"]):
        sys.exit(
            f"CHANGELOG.md says '{found['when']}' of {version}: write the date of the release, as 2026-01-31"
        )
    return found["text"].strip()


def main(arguments: list[str]) -> None:
    """Print the version or the notes."""
    match arguments:
        case ["version"]:
            print(version())
        case ["notes", tag]:
            print(notes(tag, (ROOT / "CHANGELOG.md").read_text("utf-8"), version()))
        case _:
            sys.exit(f"use it so: {(__doc__ or '').splitlines()[0].partition(': ')[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
