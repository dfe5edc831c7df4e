"""Runs kickserve in containers with Docker or Podman: `python ops/compose.py up`.

The commands are up, down, rebuild, logs, image and secrets; `just up` and its neighbours call them. ENGINE
picks an engine (`podman` or `docker`), COMPOSE the program that reads compose.yaml, with options if need be
(`docker compose`, `podman-compose --in-pod false`). Only the standard library is used.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENV_FILE = ROOT / ".env"
TAG = "localhost/kickserve:latest"
PATIENCE = 180.0  # seconds until the built containers must be ready
WATCH = ["--profile", "watch"]
COMPOSES = {
    "docker": (["docker", "compose"],),
    "podman": (["podman-compose"], ["podman", "compose"]),
}
SECRETS = {
    "API_KEY": "what clients send as X-API-Key",
    "POSTGRES_PASSWORD": "of the user kickserve in Postgres, set when the database is made",
    "GRAFANA_PASSWORD": "of the user admin in Grafana (just up --watch)",
}


def engine() -> str:
    """Return the name of a container engine that works on this machine.

    Raises:
        SystemExit: there is none; the message names what to install.
    """
    chosen = os.environ.get("ENGINE")
    for each in [chosen] if chosen else COMPOSES:
        if _works([each, "info"]):
            return each
    if chosen:
        sys.exit(f"ENGINE={chosen} does not work: run `{chosen} info`")
    sys.exit("no container engine works here: install Podman, or install Docker and start its daemon")


def compose() -> list[str]:
    """Return the first words of a command that runs compose on this machine.

    Raises:
        SystemExit: there is none; the message names what to install.
    """
    if chosen := os.environ.get("COMPOSE"):
        return shlex.split(chosen)
    found = engine()
    for each in COMPOSES.get(found, ()):
        if _works([*each, "version"]):
            return each
    package = (
        "podman-compose (pip install podman-compose)" if found == "podman" else "Docker's compose plugin"
    )
    sys.exit(f"{found} works here, but nothing that reads compose.yaml: install {package}")


def _works(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build(tag: str = TAG, *options: str) -> None:
    """Build the image, with version and revision in its labels.

    Args:
        tag: its name.
        options: of `podman build` or `docker build`, such as `--build-arg EXTRAS=metrics,postgres`.

    Raises:
        SystemExit: the build failed; the engine has printed why.
    """
    name = engine()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    labels = ("--build-arg", f"VERSION={version}", "--build-arg", f"REVISION={_revision()}")
    form = ("--format", "docker") if name == "podman" else ()  # Podman's own format has no health check
    command = [name, "build", *form, *labels, *options, "--tag", tag, "--file", "Containerfile", "."]
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
    if code:
        sys.exit(code)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def value_of(text: str, name: str) -> str:
    """Return the value of a variable in the text of a .env file; empty if it has none."""
    found = re.findall(rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=[ \t]*(\S+)", text, re.MULTILINE)
    return found[-1].strip("\"'") if found else ""


def add_missing(file: Path) -> list[str]:
    """Add the secrets that a .env file lacks, and return their names. Present values stay as they are.

    Args:
        file: made if it is missing, readable by its owner alone.

    Raises:
        OSError: it can't be read or written.
    """
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [name for name in SECRETS if not value_of(text, name)]
    if missing:
        # Letters, digits, - and _ need no quoting in a URL, a shell and a .env file.
        lines = (f"# {SECRETS[name]}\n{name}={secrets.token_urlsafe(24)}\n" for name in missing)
        opened = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(opened, "a", encoding="utf-8") as output:
            output.write("\n" * bool(text and not text.endswith("\n")) + "".join(lines))
    return missing


def make_secrets(*_: object) -> None:
    """Make .env with random secrets, or add the missing ones."""
    verb = "added to" if ENV_FILE.exists() else "made"
    if added := add_missing(ENV_FILE):
        print(f"{verb} {ENV_FILE.name}: {', '.join(added)} (random; keep the file to yourself)")


def up(options: argparse.Namespace, rest: list[str]) -> None:
    """Make .env if need be, build the image, start the containers, and print their addresses once ready."""
    make_secrets()
    os.environ["ENV_DIGEST"] = hashlib.sha256(ENV_FILE.read_bytes()).hexdigest()
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
    """Stop the containers; --volumes deletes their data too."""
    _run(*WATCH, "down", *rest)


def rebuild(options: argparse.Namespace, rest: list[str]) -> None:
    """Build the image without a cache on the newest base, and start it."""
    _run("build", "--pull", "--no-cache", "kickserve")
    up(options, rest)


def logs(_: argparse.Namespace, rest: list[str]) -> None:
    """Show the logs of the containers; --follow goes on."""
    _run(*WATCH, "logs", *rest)


def image(_: argparse.Namespace, rest: list[str]) -> None:
    """Build the image: `image [TAG] [options of the engine's build]`."""
    named = [] if rest and not rest[0].startswith("-") else [TAG]
    build(*named, *rest)


def _run(*arguments: str) -> None:
    command = [*compose(), "--file", str(ROOT / "compose.yaml"), *arguments]
    try:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:  # the end of `logs --follow`
        code = 130
    if code:
        sys.exit(code)


def _wait(url: str) -> None:
    """Wait until every part is well; predictions are taken earlier, and wait in the journal for Postgres."""
    deadline = time.monotonic() + PATIENCE
    print("waiting until it is ready ...", file=sys.stderr, flush=True)
    while (state := _state(url)) != "ok":
        if time.monotonic() > deadline:
            sys.exit(f"after {PATIENCE:.0f} s {url} answers: {state}; `just logs` shows why")
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
    """Return the value that compose takes for a variable: from the environment, else from .env."""
    return os.environ.get(name) or value_of(ENV_FILE.read_text(encoding="utf-8"), name) or default


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for does in (up, down, rebuild, logs, image, make_secrets):
        name = does.__name__.removeprefix("make_")
        command = commands.add_parser(name, help=does.__doc__)
        command.set_defaults(does=does)
        if does in {up, rebuild}:
            command.add_argument("--watch", action="store_true", help="start Prometheus and Grafana too")
            command.add_argument("--no-build", action="store_true", help="take the image as it is")
    chosen, others = parser.parse_known_args()
    chosen.does(chosen, others)
