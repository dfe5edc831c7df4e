"""Finds the container engine of this machine, and what drives compose with it.

ENGINE names an engine (`podman` or `docker`), COMPOSE what drives compose, with options if need be
(`docker compose`, `podman-compose --in-pod false`). Only the standard library is used.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

COMPOSES = {
    "docker": (["docker", "compose"],),
    "podman": (["podman-compose"], ["podman", "compose"]),
}


def engine() -> str:
    """Return the name of an engine that works here.

    Raises:
        SystemExit: there is none; the message says what to install.
    """
    named = os.environ.get("ENGINE")
    for each in [named] if named else COMPOSES:
        if _works([each, "info"]):
            return each
    if named:
        sys.exit(f"ENGINE={named} does not work: `{named} info` says why")
    sys.exit("no container engine works here: install Podman, or install Docker and start its daemon")


def compose() -> list[str]:
    """Return the beginning of a command that drives compose here.

    Raises:
        SystemExit: there is none; the message says what to install.
    """
    named = os.environ.get("COMPOSE")
    if named:
        return shlex.split(named)
    found = engine()
    for each in COMPOSES.get(found, ()):
        if _works([*each, "version"]):
            return each
    package = (
        "podman-compose (pip install podman-compose)" if found == "podman" else "Docker's compose plugin"
    )
    sys.exit(f"{found} works here, but nothing drives compose.yaml: install {package}")


def _works(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
