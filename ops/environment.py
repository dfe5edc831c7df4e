"""Makes the project's environment, quickly where it stands: `ops/environment.py serve|drift|dev|checks`.

`serve` holds what the service needs, `drift` also what the reports of drift need, `dev` also what tests and
checks of the code need, `checks` also what reads workflows, manifests and scripts. Only the standard library
and pip are used. VENV names the folder (default `.venv`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("VENV", ".venv")
NEWEST_PIP = "pip>=25.1"  # the first that knows dependency groups
DEV = ["-e", ".[dask,drift,metrics,onnx,otel,parquet,postgres,profiling,s3,sklearn,ui]", "--group", "dev"]
INSTALLS = {  # each holds all that those before it hold
    "serve": ["-e", ".[ui]"],
    "drift": ["-e", ".[drift,ui]"],
    "dev": DEV,
    "checks": [*DEV, "--group", "checks"],
}
OLDEST_PYTHON = (3, 11)


def main(kind: str) -> None:
    """Make the environment of this kind, unless it or a larger one stands as it should."""
    if sys.version_info < OLDEST_PYTHON:
        version = sys.version.split()[0]
        sys.exit(f"kickserve needs Python 3.11 or newer, this is {version}: set PYTHON=python3.12")
    kinds = [*INSTALLS]
    wanted = [_stamp(each) for each in kinds[kinds.index(kind) :]]
    stamp = VENV / "kickserve-stamp"
    if stamp.is_file() and stamp.read_text() in wanted:
        return
    print(f"making the environment {VENV.name} (once; it takes a minute)", file=sys.stderr, flush=True)
    if not _python().is_file():
        venv.create(VENV, with_pip=True, clear=True)
    _pip("--upgrade", NEWEST_PIP)
    _pip(*INSTALLS[kind])
    stamp.write_text(_stamp(kind))


def _stamp(kind: str) -> str:
    project = (ROOT / "pyproject.toml").read_bytes()
    digest = hashlib.sha256(project + repr(INSTALLS[kind]).encode() + sys.version.encode())
    return f"{kind} {digest.hexdigest()}"


def _python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _pip(*arguments: str) -> None:
    command = [_python(), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("pip could not install what kickserve needs: its words above say why")


if __name__ == "__main__":
    main(sys.argv[1])
