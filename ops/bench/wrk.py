"""Runs wrk, the load generator, and reads what it found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from kickserve.features import named
from kickserve_data.simulate import simulate

SCRIPT: Final = Path(__file__).with_name("load.lua")
PATIENCE: Final = 30  # seconds that wrk waits for an answer
KICKS: Final = 500
SEED: Final = 5


@dataclass(frozen=True)
class Load:
    """What a run of wrk found.

    Attributes:
        requests: answers that it received.
        seconds: how long it ran.
        refused: answers with a status above 399.
        socket_errors: connections that could not be made, read or written.
        timeouts: answers that did not come in time.
        p50_ms: time from sending to answer that half of the requests took at most; so `p90_ms` and `p99_ms`.
        max_ms: the longest time.
    """

    requests: int
    seconds: float
    refused: int
    socket_errors: int
    timeouts: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @property
    def errors(self) -> int:
        """All that went wrong."""
        return self.refused + self.socket_errors + self.timeouts


def parse(output: str) -> Load:
    """Read the line of JSON that `load.lua` prints among wrk's own words.

    Raises:
        ValueError: it is not there.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise ValueError(f"wrk said nothing that can be read:\n{output}")
    return Load(**json.loads(lines[-1]))


def find() -> str:
    """Return the path of wrk, or end with how to install it."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit(
            "the benchmark needs wrk: `apt-get install wrk` on Debian, `brew install wrk` on macOS"
        )
    return found


def write_bodies(file: Path) -> None:
    """Write the bodies of some hundreds of kicks, one a line."""
    lines = [msgspec.json.encode(named(row)) for row in simulate(KICKS, SEED).matrix.tolist()]
    file.write_bytes(b"\n".join(lines) + b"\n")


def run(url: str, connections: int, seconds: float, bodies: Path, key: str) -> tuple[Load, float]:
    """Load a server.

    Args:
        url: where to post.
        connections: each sends its next request when its last is answered.
        seconds: how long; wrk knows whole ones only, so it is rounded, to 1 at least.
        bodies: a file with the body of a kick a line.
        key: goes into the header X-API-Key.

    Returns:
        What wrk found, and the share of a core that it took itself: near 1 it measures itself.
    """
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={PATIENCE}s"]
    command = [find(), *options, "-s", str(SCRIPT), url, "--", str(bodies), key]
    # All children that ended, but no other ends meanwhile.
    used, began = _children(), time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    share = (_children() - used) / (time.perf_counter() - began)
    if finished.returncode:
        raise SystemExit(f"wrk failed: {finished.stderr or finished.stdout}")
    return parse(finished.stdout), share


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
