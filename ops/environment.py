"""Makes the project's environment, quickly where it stands: `python ops/environment.py serve|drift|dev`.

`serve` holds what the service needs, `drift` also what the reports of drift need, `dev` also what tests and
checks need. Only the standard library and pip are used. VENV names the folder (default `.venv`).
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
INSTALLS = {  # each holds all that those before it hold
    "serve": ["-e", ".[ui]"],
    "drift": ["-e", ".[drift,ui]"],
    "dev": [
        "-e",
        ".[dask,drift,metrics,onnx,otel,parquet,postgres,profiling,s3,sklearn,ui]",
        "--group",
        "dev",
    ],
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
