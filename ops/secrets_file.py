"""Makes .env with random secrets for compose.yaml, or adds those that it lacks.

What stands there already is never changed. Only the standard library is used.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / ".env"
NEEDED = {
    "API_KEY": "what clients send as X-API-Key",
    "POSTGRES_PASSWORD": "of the user kickserve in Postgres; it is taken up when the database is made",
    "GRAFANA_PASSWORD": "of the user admin in Grafana (just up --watch)",
}


def value_of(text: str, name: str) -> str:
    """Return what a variable is set to by a text in the form of .env, or nothing."""
    found = re.findall(rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=[ \t]*(\S+)", text, re.MULTILINE)
    return found[-1].strip("\"'") if found else ""


def add_missing(file: Path) -> list[str]:
    """Add the secrets that a file lacks, make the file if need be, and return their names.

    Args:
        file: in the form of .env; nobody but its owner can read it if it is made here.

    Raises:
        OSError: it can't be read or written.
    """
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [name for name in NEEDED if not value_of(text, name)]
    if missing:
        # Letters, digits, - and _ : they can stand in a URL, a shell and a file like this as they are.
        lines = (f"# {NEEDED[name]}\n{name}={secrets.token_urlsafe(24)}\n" for name in missing)
        with os.fdopen(
            os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8"
        ) as output:
            output.write("\n" * bool(text and not text.endswith("\n")) + "".join(lines))
    return missing


def main() -> None:
    """Do so for the file at the top of the project, and say what was done."""
    there = FILE.exists()
    added = add_missing(FILE)
    if added:
        what = f"{'added to' if there else 'made'} {FILE.name}: {', '.join(added)}"
        print(f"{what} (random; keep the file to yourself)")


if __name__ == "__main__":
    main()
