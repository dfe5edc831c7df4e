"""Looks up whether the packages of this environment have known vulnerabilities: `just audit`.

pip-audit asks PyPI, or with `--vulnerability-service osv` OSV. Where that can't be reached, as behind a
mirror that has packages alone, nothing is known: that is said, and is a failure only with AUDIT=required.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from typing import Any

KNOWS = f"https://pypi.org/pypi/pip/{version('pip')}/json"
FOUND = 1
UNKNOWN = 3


def main(arguments: list[str]) -> int:
    """Ask, say what is known, and return the exit code: 1 where something is vulnerable."""
    if not arguments and not answers():
        return unknown(f"{KNOWS} does not answer as PyPI does")
    # Our own package is installed from this folder: nobody else knows it.
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--skip-editable", *arguments], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    looked_up = [each for each in packages if "vulns" in each]
    vulnerable = [each for each in looked_up if each["vulns"]]
    for each in vulnerable:
        print("\n".join(described(each)))
    if not looked_up:
        return unknown(done.stderr)
    print(f"{len(looked_up)} of {len(packages)} packages looked up, {len(vulnerable)} of them vulnerable")
    return FOUND if vulnerable else 0


def answers() -> bool:
    """Say whether PyPI itself can be asked: a mirror that does not know is not asked for each package."""
    try:
        with urllib.request.urlopen(KNOWS, timeout=10) as answer:
            return "vulnerabilities" in json.load(answer)
    except (OSError, ValueError):
        return False


def described(package: dict[str, Any]) -> list[str]:
    """Say what is known of a package, and which version mends it."""
    name = f"{package['name']} {package['version']}"
    return [
        f"{name}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for each in package["vulns"]
    ]


def unknown(said: str) -> int:
    """Say that nothing could be looked up."""
    last = said.strip().splitlines()[-1:] or ["no package is known there"]
    print(f"nothing could be looked up ({last[0][:200]}): run this where PyPI's or OSV's own address answers")
    return UNKNOWN if os.environ.get("AUDIT") == "required" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
