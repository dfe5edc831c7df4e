"""Builds the image with the engine of this machine: `python ops/image.py [TAG] [options of its build]`.

The labels say version and revision. Only the standard library is used.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import engine
import release

ROOT = Path(__file__).resolve().parents[1]
TAG = "localhost/kickserve:latest"


def build(tag: str = TAG, *options: str) -> None:
    """Build the image.

    Args:
        tag: its name.
        options: those of `podman build` or `docker build`, such as `--build-arg EXTRAS=metrics,postgres`.

    Raises:
        SystemExit: it could not be built; the engine has said why.
    """
    name = engine.engine()
    labels = ("--build-arg", f"VERSION={release.version()}", "--build-arg", f"REVISION={_revision()}")
    # Podman's own format has no place for a health check.
    form = ("--format", "docker") if name == "podman" else ()
    command = [name, "build", *form, *labels, *options, "--tag", tag, "--file", "Containerfile", "."]
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode  # it is progress
    if code:
        sys.exit(code)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    named = [] if sys.argv[1:2] and not sys.argv[1].startswith("-") else [TAG]
    build(*named, *sys.argv[1:])
