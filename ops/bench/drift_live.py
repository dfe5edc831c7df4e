"""Measures what the live figures of drift cost: predictions with and without them, memory over ten reports.

Run it as  python -m ops.bench drift_live [--rounds N] [--seconds S] [--reports N] [--json]. It needs wrk.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from kickserve.features import named
from kickserve_data.simulate import simulate
from ops.bench import wrk
from ops.bench.processes import Server, Start, cores, free_port, pinned

PREDICT: Final = "/api/v1/predict"
REPORTS: Final = "/api/v1/drift/reports"
CONNECTIONS: Final = 32
KICKS: Final = 2_000
PATIENCE: Final = 120.0
ACCEPTED: Final = 202
KINDS: Final = {"without": "storage", "with": "storage,drift"}


def serve(folder: Path, plugins: str, core: int | None) -> Server:
    """Start a service with these plugins in a folder of its own."""
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "kickserve", "serve", "--port", str(port)]
    settings = {"KICKSERVE_PLUGINS": plugins}
    return Server(command, port, folder, settings, Start("/api/v1/health/ready", core))


def speeds(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Load both kinds in turn; what slows the machine down for a while slows both."""
    shared, kicks = cores(), folder / "bodies.ndjson"
    wrk.write_bodies(kicks)
    found: dict[str, list[wrk.Load]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        servers = {}
        for kind, plugins in KINDS.items():
            servers[kind] = serve(folder / kind, plugins, shared.server)
            stack.callback(servers[kind].end)
        for number in range(rounds + 1):
            order = [*KINDS] if number % 2 else [*reversed(KINDS)]
            for kind in order:
                with pinned(shared.load):
                    load, _ = wrk.run(servers[kind].url + PREDICT, CONNECTIONS, seconds, kicks, "")
                assert not load.errors
                servers[kind].rest()
                if number:  # the first round warms up
                    found[kind].append(load)
    ratios = [
        (w.requests / w.seconds) / (o.requests / o.seconds)
        for w, o in zip(found["with"], found["without"], strict=True)
    ]
    return {
        "requests_per_second": {
            kind: median(each.requests / each.seconds for each in loads) for kind, loads in found.items()
        },
        "p99_ms": {kind: median(each.p99_ms for each in loads) for kind, loads in found.items()},
        "ratio_of_speeds": {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }


def memory(folder: Path, reports: int) -> dict[str, Any]:
    """Ask a service for report after report; return what it takes itself, in MB, before and after each."""
    server = serve(folder / "reports", KINDS["with"], None)
    try:
        kicks = json.dumps([named(row) for row in simulate(KICKS, 2).matrix.tolist()])
        server.ask("POST", "/api/v1/predict/batch", kicks, {"Content-Type": "application/json"})
        taken, seconds = [], []
        for _ in range(reports):
            began = time.perf_counter()
            status, answer = server.ask("POST", REPORTS)
            assert status == ACCEPTED, answer
            wait(server)
            seconds.append(time.perf_counter() - began)
            taken.append(server.memory()[0])
        return {"memory_mb": taken, "seconds_a_report": median(seconds)}
    finally:
        server.end()


def wait(server: Server) -> None:
    """Wait until no report is being made."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        run = json.loads(server.ask("GET", REPORTS)[1])["newest_run"]
        if run["status"] != "running":
            assert run["status"] == "done", run
            return
        time.sleep(0.1)
    raise SystemExit("a report does not end")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measures what the live figures of drift cost.")
    parser.add_argument("--rounds", type=int, default=6, help="how often each kind is loaded")
    parser.add_argument("--seconds", type=float, default=5, help="how long each time")
    parser.add_argument("--reports", type=int, default=10, help="reports in a row")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {**speeds(folder, asked.rounds, asked.seconds), **memory(folder, asked.reports)}
    if not asked.json:
        print("with the live figures of drift against without them, in turn, on one core")
    print(json.dumps(result, indent=2))
