"""Builds the image, and runs it read-only, as user 1000, without capabilities, and first without a network.

`just chaos container` takes a few minutes with both variants, most of them for the build. Ends with 1 where a
variant is too large, does not start or predict, loses something over a restart or a SIGTERM under load, or
takes more than 5 s to end. BUILD_OPTIONS holds options of the engine's build, such as `--pull=never`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from ops import compose
from ops.chaos.drilling import OK, WARM, Load, verdict

VARIANTS = {"full": None, "api": "metrics,postgres"}  # the extras of each; None: those of the Containerfile
LARGEST = {"full": 400, "api": 250}  # MB
KEY = secrets.token_urlsafe(12)
PATIENCE = 60.0
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
    done = subprocess.run([compose.engine(), *arguments], capture_output=True, text=True, check=False)
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
        self.start_seconds = self.ready()

    def ready(self) -> float:
        """Wait until it takes predictions; return how long that took."""
        began = time.perf_counter()
        while self.exec("kickserve", "health", check=False).returncode:
            if time.perf_counter() - began > PATIENCE:
                sys.exit(f"{self.name} is not ready:\n{call('logs', self.name, check=False).stderr}")
            time.sleep(0.1)
        return time.perf_counter() - began

    def exec(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return call("exec", self.name, *command, check=check)

    def ids(self) -> list[str]:
        """Return the ids in its store."""
        return self.exec("python", "-c", IDS).stdout.split()

    def url(self) -> str:
        """Return where it is reached from outside."""
        return f"http://{call('port', self.name, '7860').stdout.split()[0]}"

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; return how many seconds it took to end, and the exit code."""
        began = time.perf_counter()
        call("stop", "--time=30", self.name)
        took = time.perf_counter() - began
        return took, int(call("inspect", "--format={{.State.ExitCode}}", self.name).stdout)

    def start(self) -> None:
        """Start it again."""
        call("start", self.name)
        self.ready()

    def healthy(self) -> bool:
        """Say what the image's own health check says."""
        if compose.engine() == "podman":  # it runs checks on demand, and by itself only under systemd
            return call("healthcheck", "run", self.name, check=False).returncode == 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if call("inspect", "--format={{.State.Health.Status}}", self.name).stdout.strip() == "healthy":
                return True
            time.sleep(1)
        return False

    def remove(self) -> None:
        """Leave nothing of it."""
        call("rm", "--force", self.name, check=False)


def size(tag: str, largest: int) -> dict[str, Any]:
    """Say how large the image is."""
    found = int(call("image", "inspect", "--format={{.Size}}", tag).stdout) / 1e6
    return {"figures": {"MB": round(found), "at_most": largest}, "passed": found < largest}


def without_key(tag: str) -> dict[str, Any]:
    """Start it without a key: it must say what to do, and end."""
    done = call("run", "--rm", *LIMITS, tag, check=False)
    said = "set API_KEY" in done.stderr + done.stdout
    return {"figures": {"exit_code": done.returncode, "says": said}, "passed": said and done.returncode == 2}  # noqa: PLR2004  set up in a way that can't work


def locked_up(tag: str, volume: str) -> dict[str, Any]:
    """Without a network: it starts, predicts, and still has its data when it was started again."""
    container = Container(tag, volume, "--network=none")
    try:
        uid, capabilities, read_only = map(int, container.exec("python", "-c", WHO).stdout.split())
        container.exec("kickserve", "batch", "--url", "auto", "--size", str(KICKS))
        before = container.ids()
        took, code = container.stop()
        container.start()
        kept = set(before) & set(container.ids())
        container.exec("kickserve", "batch", "--url", "auto", "--size", "1")
        healthy = container.healthy()
    finally:
        container.remove()
    figures = {
        "ready_after_s": round(container.start_seconds, 1),
        "uid": uid,
        "capabilities": capabilities,
        "read_only": read_only,
        "kept": len(kept),
        "stopped_in_s": round(took, 1),
        "exit_code": code,
        "healthy": healthy,
    }
    right = (uid, capabilities, read_only, len(kept), code) == (1000, 0, 1, KICKS, 0)
    return {"figures": figures, "passed": right and healthy and took < STOPS_IN}


async def under_load(tag: str, volume: str, *, page: bool) -> dict[str, Any]:
    """SIGTERM while 32 clients ask without pause: no request fails, and no answer is lost."""
    container = Container(tag, volume, "--publish=127.0.0.1::7860")
    try:
        url = container.url()
        shown = httpx.get(f"{url}/ui/", timeout=30, follow_redirects=True).status_code
        load = Load(f"{url}/api/v1", key=KEY)
        await asyncio.sleep(WARM)
        took, code = await asyncio.to_thread(container.stop)
        await load.end()
        container.start()
        figures = verdict(load.answered, container.ids())
    finally:
        container.remove()
    failed = {name: count for name, count in load.statuses.items() if name != str(OK)}
    figures |= {"failed": failed, "stopped_in_s": round(took, 1), "exit_code": code, "page": shown}
    lost = figures["lost"] or figures["twice"] or failed or code
    right = not lost and figures["answered"] > 0 and (shown == OK) == page
    return {"figures": figures, "passed": right and took < STOPS_IN}


def check(variant: str, tag: str) -> list[dict[str, Any]]:
    """Run all checks of a variant; return a row for each."""
    rows = [{"check": "size", **size(tag, LARGEST[variant])}, {"check": "no key", **without_key(tag)}]
    with ExitStack() as stack:
        volumes = [f"kickserve-drill-{secrets.token_hex(4)}" for _ in range(2)]
        for volume in volumes:
            call("volume", "create", volume)
            stack.callback(call, "volume", "rm", "--force", volume, check=False)
        rows.append({"check": "no network, restart", **locked_up(tag, volumes[0])})
        loaded = asyncio.run(under_load(tag, volumes[1], page=variant == "full"))
        rows.append({"check": "SIGTERM under load", **loaded})
    return [{"variant": variant, **row} for row in rows]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the figures for a person."""
    table = Table("variant", "check", "figures", "passed")
    for row in rows:
        figures = ", ".join(f"{name} {value}" for name, value in row["figures"].items())
        table.add_row(row["variant"], row["check"], figures, "yes" if row["passed"] else "[red]NO")
    Console(width=140).print(table)


def run(variants: list[str], *, build: bool) -> list[dict[str, Any]]:
    """Build and check these variants."""
    rows = []
    for variant in variants:
        tag = f"localhost/kickserve:check-{variant}"
        if build:
            extras = VARIANTS[variant]
            options = ("--build-arg", f"EXTRAS={extras}") if extras else ()
            compose.build(tag, *options, *shlex.split(os.environ.get("BUILD_OPTIONS", "")))
        rows += check(variant, tag)
    return rows


def main() -> None:
    """Build and check the variants that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=VARIANTS, action="append", help="one variant")
    parser.add_argument("--no-build", action="store_true", help="check the images of the last time")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    chosen = parser.parse_args()
    figures = run(chosen.only or [*VARIANTS], build=not chosen.no_build)
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    sys.exit(0 if all(row["passed"] for row in figures) else 1)
