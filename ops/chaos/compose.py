"""Has `just up` start service and Postgres on a clean copy of the project, and stops Postgres under load.

`just chaos compose`, about a minute when the image is built. Ends with 1 where page, API or Postgres does
not answer, Postgres is open to the outside, a client notices that it was away, or something is lost on the
way or by `just down` and `just up`. ENGINE and COMPOSE name what this machine has: see ops/compose.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from postgres import free_port

from ops.chaos.drilling import OK, WARM, Load, finish, verdict
from ops.compose import engine

ROOT = Path(__file__).resolve().parents[2]
UNAUTHORIZED = 401


class Composed:
    """A copy of the project as one clones it, and what runs from it.

    Args:
        folder: for the copy.
        no_build: whether to take the image as it is.

    Attributes:
        url: where the service is reached.
    """

    def __init__(self, folder: Path, *, no_build: bool) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._project = f"kickserve-drill-{secrets.token_hex(4)}"
        self._no_build = ["--no-build"] if no_build else []
        surroundings = {"COMPOSE_PROJECT_NAME": self._project, "KICKSERVE_PORT": str(port)}
        self._environment = {**os.environ, **surroundings}
        for name in _files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def run(self, *arguments: str) -> str:
        """Run a command of ops/compose.py; return its output."""
        command = [sys.executable, "ops/compose.py", *arguments]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}")
        return done.stdout

    def up(self) -> str:
        """Start it all."""
        return self.run("up", *self._no_build)

    def secret(self, name: str) -> str:
        """Return a secret of its .env."""
        lines = (self._folder / ".env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        labels = {"project": self._project, "service": service}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        return _engine("ps", "--quiet", *filters).strip()

    def stored(self) -> list[str]:
        """Return the ids in Postgres."""
        query = ("psql", "--username=kickserve", "--tuples-only", "--no-align", "--command")
        return _engine("exec", self.container("postgres"), *query, "SELECT id FROM predictions").split()

    def published(self) -> str:
        """Return where Postgres can be reached from outside."""
        return _engine("port", self.container("postgres")).strip()


def _files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def _engine(*arguments: str) -> str:
    command = [engine(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


async def _statuses(url: str, key: str) -> dict[str, int]:
    async with httpx.AsyncClient(base_url=url, timeout=30, follow_redirects=True) as client:
        return {
            "page": (await client.get("/ui/")).status_code,
            "metrics": (await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})).status_code,
            "no_key": (await client.get("/api/v1/predictions")).status_code,
        }


async def _drained(url: str, key: str) -> None:
    """Have the service bring to Postgres what waits in its journal: it does so before it lists."""
    async with httpx.AsyncClient(timeout=30, headers={"X-API-Key": key}) as client:
        (await client.get(f"{url}/api/v1/predictions?limit=1")).raise_for_status()


async def _outage(composed: Composed, load: Load) -> None:
    """Let Postgres be away for a while."""
    postgres = composed.container("postgres")
    await asyncio.sleep(WARM)
    await asyncio.to_thread(_engine, "stop", postgres)
    await asyncio.sleep(WARM)
    await asyncio.to_thread(_engine, "start", postgres)
    await asyncio.sleep(WARM)
    await load.end()


async def drill(composed: Composed) -> dict[str, Any]:
    """Start, look, stop Postgres under load, and start all once more."""
    said = await asyncio.to_thread(composed.up)
    key = composed.secret("API_KEY")
    figures: dict[str, Any] = await _statuses(composed.url, key)
    figures["postgres_outside"] = composed.published() or "closed"
    load = Load(f"{composed.url}/api/v1", key=key, lasting=True)
    await _outage(composed, load)
    await asyncio.to_thread(composed.run, "down")
    await asyncio.to_thread(composed.up)
    await _drained(composed.url, key)
    result = verdict(load.answered, await asyncio.to_thread(composed.stored))
    result |= {**figures, "failed": load.failed}
    right = (figures["page"], figures["metrics"], figures["no_key"]) == (OK, OK, UNAUTHORIZED)
    closed = figures["postgres_outside"] == "closed"
    faultless = not (result["lost"] or result["twice"] or result["failed"]) and composed.url in said
    return {"drill": "compose", **result, "passed": right and closed and faultless and load.answered != []}


def run(*, no_build: bool) -> dict[str, Any]:
    """Run the drill, and leave nothing of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
        composed = Composed(folder, no_build=no_build)
        stack.callback(composed.run, "down", "--volumes")
        return asyncio.run(drill(composed))


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="take the image as it is (KICKSERVE_IMAGE)")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    options = parser.parse_args()
    figures = run(no_build=options.no_build)
    finish(figures, as_json=options.json)
