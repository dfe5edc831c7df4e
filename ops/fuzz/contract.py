"""Holds a running service to its OpenAPI document: schemathesis asks what fits, and nonsense.

`just fuzz contract` (20,000 cases); `just fuzz contract --cases 2000 --seed 7` some. Every operation, alone
and along the document's links, with drift, metrics and profiling installed. No answer may be a 5xx, or other
than documented; no nonsense may be taken, nothing that fits be refused, no key be needless. Ends with 1 where
one is otherwise, and prints the command that shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from serving import serving

from kickserve.openapi import EXAMPLE

KEY: Final = "contract"
KICKS: Final = 100
EXAMPLES: Final = 200  # an operation and round: about 5,000 cases


def prepare(url: str, *, report: bool) -> str | None:
    """Store kicks and outcomes, and make a report of drift; return its name."""
    with httpx.Client(base_url=url, headers={"X-API-Key": KEY}, timeout=60) as client:
        kicks = [{**EXAMPLE, "distance": 5 + number / 2} for number in range(KICKS)]
        answers = client.post("/predict/batch", json=kicks).raise_for_status().json()
        outcomes = [{"id": each["id"], "success": each["prediction"] > 0.5} for each in answers]  # noqa: PLR2004
        client.put("/predictions/outcomes", json=outcomes).raise_for_status()
        if not report:
            return None
        client.post("/drift/reports").raise_for_status()
        while (run := client.get("/drift/reports").json()["newest_run"])["status"] == "running":
            time.sleep(0.2)
        assert run["status"] == "done", run
        return str(run["report"]).rpartition("/")[2]


def examine(url: str, folder: Path, examples: int, seed: int, report: str | None) -> dict[str, Any]:
    """Let schemathesis ask, and return its report, with its output under `text`."""
    summary = folder / "report.json"
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "contract_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    if report is not None:
        environment["CONTRACT_REPORT"] = report
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", url.replace("/api/v1", "/docs/openapi.json")),
            *("--header", f"X-API-Key: {KEY}", "--max-examples", str(examples), "--seed", str(seed)),
            *("--continue-on-failure", "--generation-database", "none", "--no-color"),
            *("--report", "json", "--report-json-path", str(summary)),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not summary.is_file():
        sys.exit(finished.stdout + finished.stderr)
    return {**json.loads(summary.read_text()), "text": finished.stdout}


def run(cases: int, seed: int, examples: int, console: Console) -> dict[str, Any]:
    """Examine a service in rounds, until so many cases have been asked."""
    total: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    operations = rounds = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugins = "storage,drift,metrics,profiling"
        settings = {
            "API_KEY": KEY,
            "KICKSERVE_LOG_LEVEL": "warning",
            "KICKSERVE_PLUGINS": plugins,
            "KICKSERVE_RATE_FAILURES": "0",  # else nothing but 429 would be seen of calls with wrong keys
        }
        with serving(folder, **settings) as server:
            report = prepare(server.url, report=cases > EXAMPLES * 10)
            while total["generated"] < cases:
                reported = examine(server.url, folder, examples, seed + rounds, report)
                rounds += 1
                operations = reported["operations"]["tested"]
                total.update({key: reported["test_cases"][key] for key in ("generated", "errored")})
                found += reported["failures"] + reported["errors"]
                texts += [reported["text"]] * bool(reported["failures"] or reported["errors"])
                console.print(f"{total['generated']:,} of {cases:,} cases, {len(found)} kinds of failures")
            ended = server.end()
        bugs = [line for line in server.log if "Traceback" in line or '"level":"error"' in line]
    return {
        "seeds": [seed, seed + rounds - 1],
        "operations": operations,
        "cases": total["generated"],
        "errored": total["errored"],
        "failures": found,
        "log": bugs[:10],
        "exit_code": ended,
        "seconds": round(time.perf_counter() - started, 1),
        "passed": not (found or bugs or ended),
        "text": "\n".join(texts),
    }


def main() -> None:
    """Read the arguments, run it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="requests at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next takes the next")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="an operation and round, at most")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    arguments = parser.parse_args()
    console = Console(stderr=True, quiet=arguments.json)
    summary = run(arguments.cases, arguments.seed, arguments.examples, console)
    text = summary.pop("text")
    if not arguments.json and text:
        print(text)
    print(json.dumps(summary if not arguments.json else {**summary, "text": text}))
    sys.exit(not summary["passed"])
