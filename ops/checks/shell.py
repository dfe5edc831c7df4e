"""Checks every shell script of the repository with shellcheck."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = re.compile(rb"#!.*\b(ba|da)?sh\b")


def scripts() -> list[str]:
    """Return the files that begin as a shell script does."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if SHELL.match((ROOT / name).read_bytes()[:64].partition(b"\n")[0])]


def main() -> None:
    """Check them all."""
    found = scripts()
    shellcheck = Path(sys.executable).parent / "shellcheck"
    if subprocess.run([shellcheck, *found], cwd=ROOT, check=False).returncode:
        sys.exit(1)
    print(f"shellcheck has nothing to say of {', '.join(found)}")


if __name__ == "__main__":
    main()
