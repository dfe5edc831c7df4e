"""Drills of what uses the service up: a model that does not end, and pages that are never opened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper
from serving import BARE, Server

from kickserve.features import COUNT, INDEX
from kickserve.openapi import EXAMPLE
from ops.chaos.common import SQLITE, WARM, ended, health, predicted, stored_in, terminated
from ops.clients import OK, Clients, Connection, counted, packed
from ops.commands import progress

if TYPE_CHECKING:
    from onnx import ModelProto

    from ops.commands import Row

LOOPS: Final = 10**12
ENDLESS: Final = 98.5  # metres: around it the model does not end; the corners of the ranges are tried
TIMEOUT: Final = 5.0  # seconds: KICKSERVE_SHUTDOWN_TIMEOUT of the services
SLACK: Final = 2.0  # seconds beyond it, on a busy machine
PATIENCE: Final = 30  # seconds in which a service must give a model up
UNAVAILABLE: Final = 503
RSS_MAX: Final = 200.0  # MB
PREDICTIONS: Final = 50


def endless(around: float = 0.1) -> ModelProto:
    """Make a model that predicts 0.5, in a loop that is run once, and 10¹² times around `ENDLESS` metres."""
    scalar = numpy_helper.from_array
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Sin", ["value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None, 1]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["kicks", "column"], ["distance"], axis=1),
            helper.make_node("Sub", ["distance", "place"], ["beside"]),
            helper.make_node("Abs", ["beside"], ["away"]),
            helper.make_node("ReduceMin", ["away"], ["nearest"], keepdims=0),
            helper.make_node("Less", ["nearest", "around"], ["near"]),
            helper.make_node("Where", ["near", "many", "one"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "true", "distance"], ["looped"], body=body),
            helper.make_node("Mul", ["looped", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "half"], ["probability"]),
        ],
        "endless",
        [helper.make_tensor_value_info("kicks", TensorProto.FLOAT, [None, COUNT])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        [
            scalar(np.array([INDEX["distance"]]), "column"),
            scalar(np.float32(ENDLESS), "place"),
            scalar(np.float32(around), "around"),
            scalar(np.int64(LOOPS), "many"),
            scalar(np.int64(1), "one"),
            scalar(np.array(True), "true"),
            scalar(np.float32(0), "zero"),
            scalar(np.float32(0.5), "half"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


async def hang() -> list[Row]:
    """Serve a model that does not end for one kick, as shadow and as model, and check a file that never ends.

    As shadow: predictions are answered and stored without it, and `/health` says so. As model: who waits is
    answered 503, `/health/live` answers, `/health` says so. In both SIGTERM ends the service in
    KICKSERVE_SHUTDOWN_TIMEOUT, and the next start works. `kickserve model check` ends by itself.
    """
    with tempfile.TemporaryDirectory(prefix="kickserve-drill-") as name:
        file = Path(name, "endless.onnx")
        onnx.save(endless(), file)
        rows = []
        for place in ("shadow", "model"):
            folder = Path(name, place)
            folder.mkdir()
            rows.append(await _hanging(folder, place, f"KICKSERVE_{place.upper()}", str(file)))
        rows.append(await _checked(Path(name)))
    return rows


async def _hanging(folder: Path, place: str, variable: str, file: str) -> Row:
    settings = {**BARE, "DATABASE_URL": SQLITE, "KICKSERVE_SHUTDOWN_TIMEOUT": str(TIMEOUT), variable: file}
    server = await asyncio.to_thread(Server, folder, **settings)
    ids = await predicted(server.url, PREDICTIONS)
    asking = asyncio.create_task(_status(server.url, "POST", "/predict", {**EXAMPLE, "distance": ENDLESS}))
    await asyncio.sleep(WARM)
    waiting = (_status(server.url, "POST", "/predict", EXAMPLE) for _ in range(3))
    live, *others = await asyncio.gather(_status(server.url, "GET", "/health/live"), *waiting)
    began, states = time.perf_counter(), dict[str, str]()
    while states.get(place, "ok") == "ok" and time.perf_counter() - began < PATIENCE:
        _, states = await health(server.url)
        await asyncio.sleep(0.5)
    status = await asking
    took, code = await terminated(server, 4 * TIMEOUT)
    again = await asyncio.to_thread(Server, folder, **settings)
    restarted = await _status(again.url, "POST", "/predict", EXAMPLE)
    stored = await _status(again.url, "GET", "/predictions?limit=1")
    again_took, again_code = await terminated(again, 4 * TIMEOUT)
    lost = counted(packed(ids), await stored_in(SQLITE, folder))["lost"]
    answered = [OK] * 4 if place == "shadow" else [UNAVAILABLE] * 4
    right = [status, *others] == answered and (live, restarted, stored) == (OK, OK, OK)
    ends = max(took, again_took) <= TIMEOUT + SLACK and (code, again_code) == (0, 0)
    return {
        "drill": f"endless {place}",
        "answered": status,
        "others": others,
        "live": live,
        place: states.get(place, "ok"),
        "ended_in_s": took,
        "exit_code": code,
        "restarted": restarted,
        "listed": stored,
        "ended_again_in_s": again_took,
        "lost": lost,
        "passed": right and ends and not lost and states.get(place, "ok") != "ok",
    }


async def _status(url: str, method: str, path: str, value: object = None) -> int | None:
    """Return the status of an answer; None where there is none in half a minute."""
    with suppress(OSError, EOFError):
        async with asyncio.timeout(PATIENCE):
            return (await Connection(url).ask(method, path, value))[0]
    return None


async def _checked(folder: Path) -> Row:
    """Let `kickserve model check` try a model that ends for no kick."""
    file = folder / "never.onnx"
    onnx.save(endless(around=1_000), file)
    began = time.perf_counter()
    command = [sys.executable, "-m", "kickserve", "model", "check", str(file)]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            printed = (await process.communicate())[1].decode()
    except TimeoutError:
        process.kill()
        printed = "it had to be killed"
    took = round(time.perf_counter() - began, 1)
    code = await process.wait()
    passed = code > 0 and "Traceback" not in printed
    figures = {"exit_code": code, "seconds": took, "printed": printed.strip()[-300:]}
    return {"drill": "model check", **figures, "passed": passed}


async def visitors(number: int = 10_000) -> Row:
    """Ask for the page by clients that never open its connection, beside predictions.

    Fails where the service takes more than 200 MB, or a prediction is not answered.

    Args:
        number: of pages that are asked for.
    """
    with tempfile.TemporaryDirectory(prefix="kickserve-drill-") as folder:
        server = await asyncio.to_thread(Server, Path(folder))
        process = psutil.Process(server.process.pid)
        page = Connection(server.url.removesuffix("/api/v1"))
        statuses: Counter[int] = Counter()
        load = Clients(server.url, connections=4, rate=100)
        await asyncio.sleep(WARM)
        before, began, most = load.p99(), time.perf_counter(), process.memory_info().rss
        first = most
        for at in range(number):
            statuses[(await page.send(page.request("GET", "/ui/")))[0]] += 1
            most = max(most, process.memory_info().rss)
            if not at % (number // 10):
                progress.print(f"{at:,} pages, {most / 1e6:.0f} MB")
        during = load.p99(began)
        took = time.perf_counter() - began
        await load.end()
        code = await ended(server)
    return {
        "drill": "visitors",
        "statuses": dict(statuses),
        "seconds": round(took, 1),
        "MB_before": round(first / 1e6),
        "MB_at_most": round(most / 1e6),
        "errors": load.failed,
        "p99_before_ms": before,
        "p99_during_ms": during,
        "exit_code": code,
        "passed": most / 1e6 < RSS_MAX and not (load.failed or code),
    }
