"""Measures how long it takes to tell outcomes, together and one by one, and how long predictions wait for it.

`just bench outcomes`. With SQLite, and with a Postgres of its own where there is one. The last column is the
longest that a lone client waited for a prediction, beside outcomes that are told together and beside none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from statistics import median
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table
from serving import BARE, serving

from kickserve.openapi import EXAMPLE
from ops.bench.stores import with_each_store

MANY: Final = 100_000
SINGLE: Final = 300
ROUNDS: Final = 3
QUIET: Final = 3.0  # seconds


def measure(environment: dict[str, str], many: int) -> dict[str, Any]:
    """Measure on a service of its own; microseconds an outcome, and milliseconds that a prediction waited."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(folder, **BARE, **environment) as server,
        httpx.Client(base_url=server.url, timeout=300) as client,
    ):
        batch = client.post("/predict/batch", json=[EXAMPLE] * many).json()
        told = [{"id": each["id"], "success": at % 3 > 0} for at, each in enumerate(batch)]
        client.get("/predictions?limit=1")  # waits until all of them are stored
        alone, waits_alone = [], longest_wait(server.url, lambda: time.sleep(QUIET))
        together, waits = [], []
        for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
            alone.append(one_by_one(client, told[:SINGLE]) / SINGLE)
            started = time.perf_counter()
            waits.append(longest_wait(server.url, lambda: tell(client, told)))
            together.append((time.perf_counter() - started) / many)
    return {
        "one_by_one_us": 1e6 * median(alone),
        "together_us": 1e6 * median(together),
        "wait_ms": 1e3 * median(waits),
        "wait_alone_ms": 1e3 * waits_alone,
    }


def tell(client: httpx.Client, told: list[dict[str, Any]]) -> None:
    """Tell all of them at once."""
    kept = client.put("/predictions/outcomes", json=told).raise_for_status().json()
    if kept != {"kept": len(told), "unknown": []}:
        raise SystemExit(f"not all outcomes were kept: {kept}")


def one_by_one(client: httpx.Client, told: list[dict[str, Any]]) -> float:
    """Tell them one by one, and return the seconds that it took."""
    started = time.perf_counter()
    for each in told:
        path = f"/predictions/{each['id']}/outcome"
        client.put(path, json={"success": each["success"]}).raise_for_status()
    return time.perf_counter() - started


def longest_wait(url: str, work: Any) -> float:
    """Do some work, and return the seconds that a client beside it waited for a prediction at most."""
    done, waited = threading.Event(), [0.0]

    def predict() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.is_set():
                started = time.perf_counter()
                client.post("/predict", json=EXAMPLE).raise_for_status()
                waited.append(time.perf_counter() - started)
                time.sleep(0.002)

    beside = threading.Thread(target=predict)
    beside.start()
    try:
        work()
    finally:
        done.set()
        beside.join()
    return max(waited)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--many", type=int, default=MANY, help="outcomes that are told together")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    found = with_each_store(lambda environment: measure(environment, asked.many))
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    table = Table(box=None, header_style="dim")
    for head in ("", "one by one, µs", f"of {asked.many:,}, µs", "times as quick", "a prediction waited, ms"):
        table.add_column(head, justify="right" if head else "left")
    for name, each in found.items():
        ratio = each["one_by_one_us"] / each["together_us"]
        waited = f"{each['wait_ms']:,.0f} (beside none {each['wait_alone_ms']:,.0f})"
        table.add_row(
            name, f"{each['one_by_one_us']:,.0f}", f"{each['together_us']:,.1f}", f"{ratio:,.0f}", waited
        )
    Console().print(table)
