"""Debian's packages for what tests need beside Python: installed where that can be done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path


class Missing(Exception):
    """A program is missing and could not be installed; its message names the package. Tests skip for it."""


def program(name: str, package: str) -> str:
    """Find a program, and install its package where that can be done.

    Raises:
        Missing: it is not there.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    found = shutil.which(name, path=path) or (install(package) and shutil.which(name, path=path))
    if not found:
        raise Missing(f"no {name}: install Debian's package {package}")
    return found


def install(package: str) -> bool:
    """Install a package as root on Debian or a system like it; say whether that went well."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    wanted = ("install", "-y", "-qq", "--no-install-recommends", package)
    with _alone():
        return _apt(*wanted) or (_apt("update") and _apt(*wanted))  # the lists may be old, or missing


@contextmanager
def _alone():
    """Wait until no other process of the tests installs something."""
    import fcntl

    with (Path(tempfile.gettempdir()) / "kickserve-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _apt(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
