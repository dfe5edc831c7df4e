"""Holds a running service to its OpenAPI document: schemathesis asks what fits, and nonsense."""

from __future__ import annotations

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
from rich.markup import escape
from serving import serving

from kickserve.openapi import EXAMPLE
from ops.commands import Report, progress

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


def contract(cases: int = 20_000, seed: int = 1, examples: int = EXAMPLES) -> Report:
    """Hold the service to its OpenAPI document: every operation, alone and along the document's links.

    Drift, metrics and profiling are installed. No answer may be a 5xx, or other than documented; no nonsense
    may be taken, nothing that fits be refused, no key be needless. Fails where one is otherwise, and prints
    the command that shows it.

    Args:
        cases: requests at least.
        seed: of the first round; the next takes the next.
        examples: an operation and round, at most.
    """
    total: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    operations = rounds = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugins = "storage,metrics,profiling"
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
                progress.print(f"{total['generated']:,} of {cases:,} cases, {len(found)} kinds of failures")
            ended = server.end()
        bugs = [line for line in server.log if "Traceback" in line or '"level":"error"' in line]
    summary = {
        "seeds": [seed, seed + rounds - 1],
        "operations": operations,
        "cases": total["generated"],
        "errored": total["errored"],
        "failures": found,
        "log": bugs[:10],
        "exit_code": ended,
        "seconds": round(time.perf_counter() - started, 1),
        "passed": not (found or bugs or ended),
    }
    text = "\n".join(texts)
    return Report({**summary, "text": text}, escape(f"{text}\n{json.dumps(summary)}"), summary["passed"])
