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

import psutil
from kinds import hanging_onnx
from serving import BARE, Server, eventually

from kickserve.openapi import EXAMPLE
from ops.chaos.common import SQLITE, WARM, ended, health, stored_in, terminated
from ops.clients import OK, Clients, Connection, counted
from ops.commands import progress

if TYPE_CHECKING:
    from ops.commands import Row

ENDLESS_KICK: Final = {**EXAMPLE, "distance": 95}
TIMEOUT: Final = 5.0  # seconds: KICKSERVE_SHUTDOWN_TIMEOUT of the services
SLACK: Final = 2.0  # seconds beyond it, on a busy machine
PATIENCE: Final = 30  # seconds for an answer
UNAVAILABLE: Final = 503
RSS_MAX: Final = 200.0  # MB


async def hang() -> list[Row]:
    """Serve an ONNX model that loops 10¹² times for some kicks, as shadow and as model, and check a file.

    As shadow: predictions are answered and stored without it, and `/health` says so. As model: who waits gets
    503, `/health/live` answers, `/health` says so. In both SIGTERM ends the service in the middle of such a
    call in KICKSERVE_SHUTDOWN_TIMEOUT, and the next start works. `kickserve model check` ends by itself.
    """
    with tempfile.TemporaryDirectory(prefix="kickserve-drill-") as name:
        rows = []
        for role in ("shadow", "model"):
            folder = Path(name, role)
            folder.mkdir()
            rows.append({"drill": f"endless {role}", **await _hanging(folder, role)})
        return [*rows, {"drill": "model check", **await _checked(Path(name))}]


async def _hanging(folder: Path, role: str) -> Row:
    (folder / "hang.onnx").write_bytes(hanging_onnx())
    settings = {
        **BARE,
        "DATABASE_URL": SQLITE,
        "KICKSERVE_MODEL_TIMEOUT": "2",
        "KICKSERVE_SHUTDOWN_TIMEOUT": str(TIMEOUT),
        f"KICKSERVE_{role.upper()}": "hang.onnx",
    }
    server = await asyncio.to_thread(Server, folder, **settings)
    load = Clients(server.url, connections=4, rate=40)
    await asyncio.sleep(WARM)
    asking = asyncio.create_task(_status(server.url, "POST", "/predict", ENDLESS_KICK))
    live = await _status(server.url, "GET", "/health/live")
    states: dict[str, str] = {}

    async def noticed() -> bool:
        states.update((await health(server.url))[1])
        return states.get(role, "ok") != "ok"

    with suppress(TimeoutError):
        await eventually(noticed)
    status = await asking
    asking = asyncio.create_task(_status(server.url, "POST", "/predict", ENDLESS_KICK))
    await asyncio.sleep(0.5)
    took, code = await terminated(server, 4 * TIMEOUT)
    await asyncio.gather(asking, load.end())
    again = await asyncio.to_thread(Server, folder, **settings)
    restarted = await _status(again.url, "POST", "/predict", EXAMPLE)
    listed = await _status(again.url, "GET", "/predictions?limit=1")
    took_again, code_again = await terminated(again, 4 * TIMEOUT)
    result = counted(load.ids, await stored_in(SQLITE, folder))
    wanted = OK if role == "shadow" else UNAVAILABLE
    right = (status, live, restarted, listed, code, code_again) == (wanted, OK, OK, OK, 0, 0)
    kept = not (result["lost"] or result["twice"]) and states.get(role, "ok") != "ok"
    return {
        **result,
        "statuses": dict(load.statuses),
        "status": status,
        "live": live,
        role: states.get(role, "ok"),
        "ended_in_s": took,
        "exit_code": code,
        "restarted": restarted,
        "listed": listed,
        "ended_again_in_s": took_again,
        "passed": right and kept and max(took, took_again) <= TIMEOUT + SLACK,
    }


async def _status(url: str, method: str, path: str, value: object = None) -> int | None:
    """Return the status of an answer; None where there is none in half a minute."""
    with suppress(OSError, EOFError):
        async with asyncio.timeout(PATIENCE):
            return (await Connection(url).ask(method, path, value))[0]
    return None


async def _checked(folder: Path) -> Row:
    """Let `kickserve model check` try a model that does not end for a usual kick."""
    file = folder / "never.onnx"
    file.write_bytes(hanging_onnx(near=0))
    began = time.perf_counter()
    command = [sys.executable, "-m", "kickserve", "model", "check", str(file)]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            printed = (await process.communicate())[1].decode()
    except TimeoutError:
        process.kill()
        printed = "it had to be killed"
    took, code = round(time.perf_counter() - began, 1), await process.wait()
    passed = code > 0 and "Traceback" not in printed
    return {"exit_code": code, "seconds": took, "printed": printed.strip()[-300:], "passed": passed}


async def visitors(number: int = 10_000) -> Row:
    """Ask for the page by clients that never open its connection, beside predictions.

    Fails where the service takes more than 200 MB, a prediction is not answered, or the page is not shown
    afterwards.

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
            statuses[(await page.send(page.request("GET", "/ui/history")))[0]] += 1
            most = max(most, process.memory_info().rss)
            if not at % (number // 10):
                progress.print(f"{at:,} pages, {most / 1e6:.0f} MB")
        during = load.p99(began)
        took = time.perf_counter() - began

        async def shown() -> bool:
            return (await page.send(page.request("GET", "/ui/history")))[0] == OK

        await eventually(shown)  # pages that were never opened have been dropped
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
