"""Drills of the image and of compose.yaml, with the engine of this machine: ENGINE and COMPOSE name another.

`container` runs the image read-only, as user 1000, without capabilities, and first without a network;
`compose` starts a clean copy of the project. BUILD_OPTIONS holds options of the build, as `--pull=never`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from postgres import free_port
from serving import until

from ops.chaos.common import WARM, drained
from ops.clients import OK, Clients, counted, packed
from ops.compose import build, engine

if TYPE_CHECKING:
    from ops.commands import Row

ROOT = Path(__file__).resolve().parents[2]
UNAUTHORIZED = 401
ANY_USER = 1_000_650_000  # as OpenShift picks one, of group 0
WRONGLY_SET_UP = 2  # the exit code
VARIANTS = {
    "full": "",
    "api": "metrics,postgres",
}  # the extras of each; those of the Containerfile where none
LARGEST = {"full": 400, "api": 250}  # MB
KEY = secrets.token_urlsafe(12)
STOPS_IN = 5.0
KICKS = 200
LIMITS = [
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=512m",
]
# Run inside: the user, the capabilities, and whether the root file system is read-only.
WHO = """
import os
capabilities = next(line.split()[1] for line in open("/proc/1/status") if line.startswith("CapEff"))
print(os.getuid(), int(capabilities, 16), int(bool(os.statvfs("/").f_flag & os.ST_RDONLY)))
"""
IDS = """
import sqlite3
for row in sqlite3.connect("/data/kickserve.db").execute("SELECT id FROM predictions"): print(*row)
"""


def call(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Have the engine do something."""
    done = subprocess.run([engine(), *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


class Container:
    """A running container, on a volume that may be another's too.

    Args:
        tag: of the image.
        volume: for /data.
        options: of `run`, such as `--network=none`.

    Attributes:
        start_seconds: how long it took until it was ready.
    """

    def __init__(self, tag: str, volume: str, *options: str) -> None:
        self.name = f"kickserve-drill-{secrets.token_hex(4)}"
        key = ("--env", f"API_KEY={KEY}")
        call("run", "--detach", "--name", self.name, *LIMITS, *key, f"--volume={volume}:/data", *options, tag)
        began = time.perf_counter()
        self.ready()
        self.start_seconds = round(time.perf_counter() - began, 1)

    def ready(self) -> None:
        """Wait until it takes predictions."""
        until(lambda: self.exec("kickserve", "health", check=False).returncode == 0)

    def exec(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return call("exec", self.name, *command, check=check)

    def ids(self) -> list[str]:
        """Return the ids in its store."""
        return self.exec("python", "-c", IDS).stdout.split()

    def url(self) -> str:
        """Return where it is reached from outside."""
        return f"http://{call('port', self.name, '7860').stdout.split()[0]}"

    def stop(self) -> Row:
        """Send SIGTERM; return how many seconds it took to end, and the exit code."""
        began = time.perf_counter()
        call("stop", "--time=30", self.name)
        took = round(time.perf_counter() - began, 1)
        code = int(call("inspect", "--format={{.State.ExitCode}}", self.name).stdout)
        return {"stopped_in_s": took, "exit_code": code}

    def start(self) -> None:
        """Start it again."""
        call("start", self.name)
        self.ready()

    def healthy(self) -> bool:
        """Say what the image's own health check says."""
        if engine() == "podman":  # it runs checks on demand, and by itself only under systemd
            return call("healthcheck", "run", self.name, check=False).returncode == 0
        asked = ("inspect", "--format={{.State.Health.Status}}", self.name)
        return until(lambda: call(*asked).stdout.strip() != "starting") and "healthy" in call(*asked).stdout

    def remove(self) -> None:
        """Leave nothing of it."""
        call("rm", "--force", self.name, check=False)


async def container(only: tuple[str, ...] = (), no_build: bool = False) -> list[Row]:
    """Build the image, and run it locked up: without a network, rights, and a place to write.

    A variant fails that is too large, does not start or predict, loses something over a restart or a SIGTERM
    under load, or takes more than 5 s to end.

    Args:
        only: variants, full or api.
        no_build: check the images of the last time.
    """
    rows = []
    for variant in only or VARIANTS:
        tag = f"localhost/kickserve:check-{variant}"
        if not no_build:
            extras = VARIANTS[variant]
            options = ("--build-arg", f"EXTRAS={extras}") if extras else ()
            build(tag, *options, *shlex.split(os.environ.get("BUILD_OPTIONS", "")))
        with ExitStack() as stack:
            volumes = [f"kickserve-drill-{secrets.token_hex(4)}" for _ in range(3)]
            for volume in volumes:
                call("volume", "create", volume)
                stack.callback(call, "volume", "rm", "--force", volume, check=False)
            rows += [
                {"container": f"{variant}, size", **size(tag, LARGEST[variant])},
                {"container": f"{variant}, no key", **without_key(tag)},
                {"container": f"{variant}, no network, restart", **locked_up(tag, volumes[0])},
                {
                    "container": f"{variant}, another user",
                    **locked_up(tag, volumes[1], f"--user={ANY_USER}:0"),
                },
                {
                    "container": f"{variant}, SIGTERM under load",
                    **await under_load(tag, volumes[2], page=variant == "full"),
                },
            ]
    return rows


def size(tag: str, largest: int) -> Row:
    """Say how large the image is."""
    found = int(call("image", "inspect", "--format={{.Size}}", tag).stdout) / 1e6
    return {"MB": round(found), "at_most": largest, "passed": found < largest}


def without_key(tag: str) -> Row:
    """Start it without a key: it must say what to do, and end."""
    done = call("run", "--rm", *LIMITS, tag, check=False)
    says, code = "set API_KEY" in done.stderr + done.stdout, done.returncode
    return {"exit_code": code, "says": says, "passed": says and code == WRONGLY_SET_UP}


def locked_up(tag: str, volume: str, *options: str) -> Row:
    """Without a network: it starts, predicts, and still has its data when it was started again."""
    locked = Container(tag, volume, "--network=none", *options)
    try:
        uid, capabilities, read_only = map(int, locked.exec("python", "-c", WHO).stdout.split())
        locked.exec("kickserve", "batch", "--url", "auto", "--size", str(KICKS))
        before = locked.ids()
        stopped = locked.stop()
        locked.start()
        kept = len(set(before) & set(locked.ids()))
        locked.exec("kickserve", "batch", "--url", "auto", "--size", "1")
        healthy = locked.healthy()
    finally:
        locked.remove()
    right = (capabilities, read_only, kept, stopped["exit_code"]) == (0, 1, KICKS, 0)
    right = right and uid == (ANY_USER if options else 1000)
    return {
        "ready_after_s": locked.start_seconds,
        "uid": uid,
        "capabilities": capabilities,
        "read_only": read_only,
        "kept": kept,
        **stopped,
        "healthy": healthy,
        "passed": right and healthy and stopped["stopped_in_s"] < STOPS_IN,
    }


async def under_load(tag: str, volume: str, *, page: bool) -> Row:
    """SIGTERM while 32 clients ask without pause: no request fails, and no answer is lost."""
    loaded = Container(tag, volume, "--publish=127.0.0.1::7860")
    try:
        url = loaded.url()
        shown = httpx.get(f"{url}/ui/", timeout=30, follow_redirects=True).status_code
        load = Clients(f"{url}/api/v1", key=KEY)
        await asyncio.sleep(WARM)
        stopped = await asyncio.to_thread(loaded.stop)
        await load.end()
        loaded.start()
        found = counted(load.ids, packed(loaded.ids()))
    finally:
        loaded.remove()
    faults = (found["lost"], found["twice"], load.failed, stopped["exit_code"])
    right = not any(faults) and found["answered"] > 0 and (shown == OK) == page
    return {
        **found,
        "failed": load.failed,
        **stopped,
        "page": shown,
        "passed": right and stopped["stopped_in_s"] < STOPS_IN,
    }


class Composed:
    """A copy of the project as one clones it, and what runs from it.

    Args:
        folder: for the copy.

    Attributes:
        url: where the service is reached.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._project = f"kickserve-drill-{secrets.token_hex(4)}"
        changed = {"COMPOSE_PROJECT_NAME": self._project, "KICKSERVE_PORT": str(port)}
        self._environment = {**os.environ, **changed}
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
            if (ROOT / name).is_file():
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

    def key(self) -> str:
        """Return the key of its .env."""
        lines = (self._folder / ".env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("API_KEY="))

    def postgres(self) -> str:
        """Return the id of the container of Postgres."""
        labels = {"project": self._project, "service": "postgres"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        return call("ps", "--quiet", *filters).stdout.strip()

    def ids(self) -> list[str]:
        """Return the ids in Postgres."""
        query = ("psql", "--username=kickserve", "--tuples-only", "--no-align", "--command")
        return call("exec", self.postgres(), *query, "SELECT id FROM predictions").stdout.split()


async def compose(no_build: bool = False) -> Row:
    """Start a clean copy of the project by `just up`, and stop Postgres under load.

    Fails where page, API or Postgres does not answer, Postgres is open to the outside, a client notices that
    it was away, or something is lost on the way or by `just down` and `just up`.

    Args:
        no_build: take the image as it is (KICKSERVE_IMAGE).
    """
    options = ["--no-build"] if no_build else []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
        composed = Composed(folder)
        stack.callback(composed.run, "down", "--volumes")
        printed = await asyncio.to_thread(composed.run, "up", *options)
        key = composed.key()
        with httpx.Client(base_url=composed.url, timeout=30, follow_redirects=True) as client:
            statuses = {
                "page": client.get("/ui/").status_code,
                "metrics": client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code,
                "no_key": client.get("/api/v1/predictions").status_code,
            }
        postgres = composed.postgres()
        outside = call("port", postgres).stdout.strip() or "closed"
        load = Clients(f"{composed.url}/api/v1", key=key, lasting=True)
        for command in ("stop", "start"):
            await asyncio.sleep(WARM)
            await asyncio.to_thread(call, command, postgres)
        await asyncio.sleep(WARM)
        await load.end()
        await asyncio.to_thread(composed.run, "down")
        await asyncio.to_thread(composed.run, "up", *options)
        await drained(f"{composed.url}/api/v1", key)
        found = counted(load.ids, packed(await asyncio.to_thread(composed.ids)))
    right = [*statuses.values()] == [OK, OK, UNAUTHORIZED] and outside == "closed" and composed.url in printed
    faultless = found["answered"] > 0 and not (found["lost"] or found["twice"] or load.failed)
    figures = {**found, **statuses, "postgres_outside": outside, "failed": load.failed}
    return {"drill": "compose", **figures, "passed": right and faultless}
