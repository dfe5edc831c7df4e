"""Debian's packages for what tests need beside Python: installed where that can be done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def install(package: str) -> bool:
    """Install a package as root on Debian or a system like it; say whether that went well."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    wanted = ("install", "-y", "-qq", "--no-install-recommends", package)
    return _apt(*wanted) or (_apt("update") and _apt(*wanted))  # the machine's lists may be old, or missing


def _apt(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
