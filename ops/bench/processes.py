"""Starts servers on a core of their own, and tells what they use: CPU time, memory, time to start."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HOST: Final = "127.0.0.1"
OK: Final = 200
ASK_PATIENCE: Final = 60.0
START_POLL: Final = 0.005
START_PATIENCE: Final = 120.0
END_PATIENCE: Final = 60.0
QUIET_SPAN: Final = 0.1
QUIET_SHARE: Final = 0.15  # of a core; the kernel counts in steps of 10 ms
QUIET_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Cores:
    """Which core is whose; None where they can't be told apart."""

    server: int | None
    load: int | None

    @property
    def note(self) -> str:
        """Say it in words."""
        if self.server is None:
            return "server and load generator share the machine as the system has it: nothing is pinned"
        return "one core for the server, another for the load generator"


def cores() -> Cores:
    """Choose a core for the servers and another for the load."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    allowed = sorted(os.sched_getaffinity(0))
    # The first core gets more of the system's interrupts than others: the load may have it.
    return Cores(allowed[-1], allowed[0]) if len(allowed) > 1 else Cores(None, None)


def pin(core: int | None) -> None:
    """Keep this thread, and the processes that it starts from now on, on a core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Do so until the block ends."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def unpinned() -> Iterator[None]:
    """Let this thread, and what it starts, run on every core until the block ends."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the kernel takes those that there are for us
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    """Return our environment without what would change how a server runs, and with these settings."""
    ours = ("KICKSERVE_", "HF_")
    # Without bytecode kept, each start compiles anew: no service is deployed like that.
    unwanted = {"API_KEY", "DATABASE_URL", "DEBUG", "PYTHONDONTWRITEBYTECODE"}
    kept = {name for name in os.environ if not name.startswith(ours)} - unwanted
    return {**{name: os.environ[name] for name in kept}, **settings}


class Start(NamedTuple):
    """How a server is started.

    Attributes:
        ready: the path that answers 200 as soon as it is up.
        core: the core that it is kept on.
    """

    ready: str
    core: int | None


class Server:
    """A server and its children.

    Args:
        command: how it is started.
        port: where it listens.
        folder: where it runs, and leaves its log and its files.
        settings: what it is told by its environment.
        start: where it is kept, and how one sees that it is up.

    Attributes:
        url: where it listens.
        start_seconds: how long it took from its start until it was ready.
    """

    def __init__(
        self, command: Sequence[str], port: int, folder: Path, settings: dict[str, str], start: Start
    ) -> None:
        self.port = port
        self.folder = folder
        self.url = f"http://{HOST}:{port}"
        self._log = folder / "server.log"
        with self._log.open("wb") as log, pinned(start.core):
            began = time.perf_counter()
            # In a session of its own: Ctrl-C reaches the benchmark alone, which then ends it.
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(start.ready)
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.perf_counter() - began
        self._root = psutil.Process(self._process.pid)

    def _wait(self, ready: str) -> None:
        ends = time.monotonic() + START_PATIENCE
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", ready)[0] == OK:
                    return
            time.sleep(START_POLL)
        raise SystemExit(f"a server does not start:\n{self.log()}")

    def log(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-3_000:]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Ask it something; return status and body."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ASK_PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def tree(self) -> list[psutil.Process]:
        """Return the process and its children."""
        return [self._root, *self._root.children(recursive=True)]

    def cpu(self) -> float:
        """Return the seconds of CPU time that all of them have used."""
        total = 0.0
        for each in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> tuple[float, float]:
        """Return the memory of all of them in MB (10⁶ bytes): resident, and theirs alone."""
        full = [each.memory_full_info() for each in self.tree()]
        return sum(each.rss for each in full) / 1e6, sum(each.uss for each in full) / 1e6

    def suspend(self) -> None:
        """Stop all of them where they are, so that they use nothing while others are measured."""
        for each in self.tree():
            each.suspend()

    def resume(self) -> None:
        """Let them go on."""
        for each in reversed(self.tree()):
            each.resume()

    def rest(self) -> None:
        """Wait until they hardly use the CPU."""
        ends = time.monotonic() + QUIET_PATIENCE
        while time.monotonic() < ends:
            before = self.cpu()
            time.sleep(QUIET_SPAN)
            if self.cpu() - before < QUIET_SHARE * QUIET_SPAN:
                return

    def end(self) -> int:
        """Ask it to end, make sure that nothing is left of it, and return its exit code."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            children = root.children(recursive=True)
            self._process.send_signal(signal.SIGTERM)
            for each in [*children, root]:  # one that is suspended could not end
                each.resume()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_PATIENCE)
            for each in [*children, root]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        return self._process.wait()
