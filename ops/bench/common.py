"""What benchmarks share: kicks, servers on a core of their own, loads by wrk, commands and their cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from debian import Missing
from postgres import free_port, running

from kickserve.features import named
from kickserve_data.simulate import simulate
from ops.commands import progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from ops.commands import Row

API: Final = "/api/v1"
KEY: Final = "a-key-for-the-benchmark"
OK: Final = 200
HOST: Final = "127.0.0.1"
SERVE: Final = (sys.executable, "-m", "kickserve", "serve", "--port", "{port}")
LUA: Final = Path(__file__).with_name("load.lua")
PATIENCE: Final = 120.0  # seconds for a start, an answer, an end
QUIET_SPAN: Final = 0.1
QUIET_SHARE: Final = 0.15  # of a core; the kernel counts in steps of 10 ms


def kicks(count: int, seed: int = 5) -> list[dict[str, float | bool]]:
    """Return simulated kicks: the value of each feature by its name."""
    return [named(row) for row in simulate(count, seed).matrix.tolist()]


def named_kicks(some: Sequence[Mapping[str, object]], kickers: int = 100) -> list[dict[str, object]]:
    """Return kicks with the label of a kicker each."""
    return [{**kick, "kicker": f"kicker {at % kickers}"} for at, kick in enumerate(some)]


def write_bodies(folder: Path, some: Sequence[Mapping[str, object]] | None = None) -> Path:
    """Write the bodies of some requests into a file, one a line: always the same one would be drift."""
    file = folder / "bodies.ndjson"
    file.write_text("".join(f"{json.dumps(kick)}\n" for kick in some or kicks(500)))
    return file


def command(folder: Path, *arguments: str, database: str = "") -> dict[str, float]:
    """Run a command of kickserve; return seconds, CPU seconds and peak memory in MB (10⁶ bytes)."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "kickserve", *arguments],
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env=environment(DATABASE_URL=database),
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"kickserve {' '.join(arguments)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * unit / 1e6,
    }


async def with_each_store(measure: Callable[[dict[str, str]], Awaitable[Row]]) -> list[Row]:
    """Measure with SQLite, and with a Postgres of its own where there is one; return a row for each.

    Args:
        measure: takes the settings that lead to a store.
    """
    rows = [{"store": "SQLite", **await measure({})}]
    try:
        with running() as cluster:
            rows.append({"store": "Postgres", **await measure({"DATABASE_URL": cluster.url})})
    except Missing as reason:
        progress.print(reason)
    return rows


@dataclass(frozen=True)
class Cores:
    """A core for the server and one for the load; None where the system can't pin processes."""

    server: int | None
    load: int | None


@cache
def cores() -> Cores:
    """Choose a core for the servers and another for the load; once, as a pinned process sees one alone."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    # The first core gets more of the system's interrupts than others: the load may have it.
    return Cores(allowed[-1], allowed[0]) if len(allowed) > 1 else Cores(None, None)


@contextlib.contextmanager
def pinned(*wanted: int | None) -> Iterator[None]:
    """Keep this process and its new children on some cores until the block ends."""
    if None in wanted:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core for core in wanted if core is not None})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(**settings: str) -> dict[str, str]:
    """Return our environment without variables that would change a server, and with these settings."""
    # Without bytecode kept, each start compiles anew: no service is deployed like that.
    unwanted = {"API_KEY", "DATABASE_URL", "DEBUG", "PYTHONDONTWRITEBYTECODE"}
    kept = {name for name in os.environ if not name.startswith(("KICKSERVE_", "HF_"))} - unwanted
    return {**{name: os.environ[name] for name in kept}, **{k: v for k, v in settings.items() if v}}


class Server:
    """A server with its children, in a session of its own, so that Ctrl-C reaches the benchmark alone.

    Args:
        command: how it is started; with `{port}` for its port.
        folder: its working directory, for its log and files.
        settings: variables of its environment.
        ready: the path that answers 200 once it is up.
        core: the core that it is kept on.

    Attributes:
        url: its address.
        start_seconds: from its start until it was ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        settings: Mapping[str, str],
        *,
        ready: str = f"{API}/health/ready",
        core: int | None = None,
    ) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"http://{HOST}:{self.port}"
        self._log = folder / "server.log"
        with self._log.open("wb") as log, pinned(core):
            began = time.perf_counter()
            self._process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                cwd=folder,
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(ready)
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.perf_counter() - began

    def _wait(self, ready: str) -> None:
        ends = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", ready)[0] == OK:
                    return
            time.sleep(0.005)
        raise SystemExit(f"a server does not start:\n{self.log()}")

    def log(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-3_000:]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send a request; return status and body of the answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            usual = {"Content-Type": "application/json", "X-API-Key": KEY}
            connection.request(method, path, body, {**usual, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def drain(self) -> float:
        """Wait until every answered prediction is stored; return the seconds that it took."""
        began = time.perf_counter()
        # The list waits for the predictions answered before it, and is 503 where that takes long.
        while self.ask("GET", f"{API}/predictions?limit=1")[0] != OK:
            if time.perf_counter() - began > PATIENCE:
                raise SystemExit(f"predictions do not reach the store:\n{self.log()}")
        return time.perf_counter() - began

    def rest(self) -> None:
        """Wait until it hardly uses the CPU."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            before = self.cpu()
            time.sleep(QUIET_SPAN)
            if self.cpu() - before < QUIET_SHARE * QUIET_SPAN:
                return

    def tree(self) -> list[psutil.Process]:
        """Return the process and its children."""
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def cpu(self) -> float:
        """Return the seconds of CPU time that they have used."""
        total = 0.0
        for each in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:2])
        return total

    def memory(self) -> tuple[float, float]:
        """Return their memory in MB (10⁶ bytes): resident, and not shared with other processes."""
        full = [each.memory_full_info() for each in self.tree()]
        return sum(each.rss for each in full) / 1e6, sum(each.uss for each in full) / 1e6

    def suspend(self) -> None:
        """Stop them, so that they use nothing while others are measured."""
        for each in self.tree():
            each.suspend()

    def resume(self) -> None:
        """Let them go on."""
        for each in reversed(self.tree()):
            each.resume()

    def end(self) -> int:
        """End it by SIGTERM, make sure that nothing is left of it, and return its exit code."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = self.tree()
            self._process.send_signal(signal.SIGTERM)
            for each in reversed(family):  # a suspended one could not end
                each.resume()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        return self._process.wait()


def find_wrk() -> str:
    """Return the path of wrk, or end with how to install it."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit(
            "the benchmark needs wrk: `apt-get install wrk` on Debian, `brew install wrk` on macOS"
        )
    return found


def load(url: str, connections: int, seconds: float, bodies: Path) -> Row:
    """Load a server by wrk, with KEY in the header X-API-Key.

    Args:
        url: where to post.
        connections: each sends its next request when its last is answered.
        seconds: how long; wrk knows whole ones only, so they are rounded, to 1 at least.
        bodies: a file with the body of a kick a line.

    Returns:
        `requests` that were answered, `errors` (refusals, broken connections, timeouts), `throughput` a
        second, percentiles of the time to an answer `p50_ms`, `p90_ms` and `p99_ms`, the longest `max_ms`,
        and `load_share`, the share of a core that wrk took: near 1 it measures itself.
    """
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout=30s"]
    started = [find_wrk(), *options, "-s", str(LUA), url, "--", str(bodies), KEY]
    used, began = _children(), time.perf_counter()
    finished = subprocess.run(started, capture_output=True, text=True, check=False)
    share = (_children() - used) / (time.perf_counter() - began)
    if finished.returncode:
        raise SystemExit(f"wrk failed: {finished.stderr or finished.stdout}")
    figures = next(line for line in finished.stdout.splitlines() if line.startswith("{"))
    return {**json.loads(figures), "load_share": share}


def _children() -> float:
    """Return the CPU time of all children that have ended, in seconds."""
    times = os.times()
    return times.children_user + times.children_system
