"""Starts, ends and shows what compose.yaml describes, with Docker or Podman: `python ops/compose.py up`.

`just up`, `just down`, `just rebuild` and `just logs` call it. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import engine
import secrets_file

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180.0  # seconds that all may take to come up, once it is built
WATCH = ["--profile", "watch"]


def up(options: argparse.Namespace, rest: list[str]) -> None:
    """Make .env if need be, build what has changed, start, wait until it is ready, and say where."""
    secrets_file.main()
    profile = WATCH if options.watch else []
    _run(*profile, "up", "--detach", *([] if options.no_build else ["--build"]), *rest)
    base = _base()
    _wait(f"{base}/api/v1/health")
    print("kickserve is ready")
    print(f"page     {base}/ui")
    print(f"API      {base}/api/v1, with the key of .env as X-API-Key")
    print(f"docs     {base}/docs")
    if options.watch:
        port = _setting("GRAFANA_PORT", "3000")
        print(f"Grafana  http://127.0.0.1:{port}, as admin with GRAFANA_PASSWORD of .env")


def down(_: argparse.Namespace, rest: list[str]) -> None:
    """End all of it; the volumes stay, but with --volumes."""
    _run(*WATCH, "down", *rest)


def rebuild(options: argparse.Namespace, rest: list[str]) -> None:
    """Build the image from nothing, with the newest base, and start it."""
    _run("build", "--pull", "--no-cache", "kickserve")
    up(options, rest)


def logs(_: argparse.Namespace, rest: list[str]) -> None:
    """Show what the services say; --follow shows what they go on to say."""
    _run(*WATCH, "logs", *rest)


def _run(*arguments: str) -> None:
    command = [*engine.compose(), "--file", str(ROOT / "compose.yaml"), *arguments]
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:  # the end of `logs --follow`
        code = 130
    if code:
        sys.exit(code)


def _wait(url: str) -> None:
    """Wait until every part is well: the service takes predictions earlier, and keeps them for Postgres."""
    deadline = time.monotonic() + PATIENCE
    print("waiting until it is ready ...", file=sys.stderr, flush=True)
    while (state := _state(url)) != "ok":
        if time.monotonic() > deadline:
            sys.exit(f"after {PATIENCE:.0f} s {url} says: {state}; `just logs` says why")
        time.sleep(0.5)


def _state(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  an address of our own
            health = json.load(answer)
        return "ok" if health["status"] == "ok" else str(health["parts"])
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    except (ValueError, KeyError, TypeError):
        return "something that is no answer of kickserve"


def _base() -> str:
    address = _setting("KICKSERVE_ADDRESS", "127.0.0.1")
    return f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{_setting('KICKSERVE_PORT', '7860')}"  # noqa: S104


def _setting(name: str, default: str) -> str:
    """Return what compose takes for a variable: from the environment, else from .env."""
    text = secrets_file.FILE.read_text(encoding="utf-8")
    return os.environ.get(name) or secrets_file.value_of(text, name) or default


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, does in {"up": up, "down": down, "rebuild": rebuild, "logs": logs}.items():
        command = commands.add_parser(name, help=does.__doc__)
        command.set_defaults(does=does)
        if does in {up, rebuild}:
            command.add_argument("--watch", action="store_true", help="start Prometheus and Grafana too")
            command.add_argument("--no-build", action="store_true", help="take the image as it is")
    chosen, others = parser.parse_known_args()
    chosen.does(chosen, others)
