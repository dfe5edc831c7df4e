"""A real server for end-to-end tests: `kickserve serve` in a process of its own, on a free port."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil

# For tests of the server itself: without the pages and reports it is there in half the time.
BARE = {"KICKSERVE_PLUGINS": "storage"}
WELCOME = re.compile(r"\bAPI\W+(http://[^\s\"]+)")  # of the table, and of the JSON document
PATIENCE = 180  # seconds; what takes longer has failed, however busy the machine is


@contextmanager
def in_thread(server):
    """Run an HTTP server of the test's own in a thread, and give it its `url`."""
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(condition):
    """Wait in a thread until a condition holds, and return its value."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come to hold"
        time.sleep(0.02)
    return found


async def eventually(condition):
    """Wait in an event loop until a condition, awaited or not, holds, and return its value."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


class NotStarted(RuntimeError):
    """A server has ended before it took requests; its text is the log.

    Attributes:
        code: its exit code.
    """

    def __init__(self, log, code):
        super().__init__(log)
        self.code = code


class Server:
    """A running `kickserve serve`.

    Attributes:
        url: base URL of its API.
        process: the process.
    """

    def __init__(self, folder, *, python=sys.executable, **environment):
        port = [] if "KICKSERVE_PORT" in environment else ["--port", "0"]
        self.process = subprocess.Popen(
            [python, "-m", "kickserve", "serve", *port],
            cwd=folder,
            env={**os.environ, "COLUMNS": "300", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self.url = self._wait()

    def _wait(self):
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                if found := WELCOME.search(line):
                    return found[1]
        finally:
            watchdog.cancel()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.close()
        raise NotStarted("".join(self.log), self.process.returncode)

    def end(self, number=signal.SIGTERM):
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.close()

    def close(self):
        """Make sure that nothing is left of it."""
        if self.process.poll() is None:
            for worker in psutil.Process(self.process.pid).children():
                with suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
                    worker.kill()  # one that is suspended would outlive its supervisor
            self.process.kill()
            self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


@contextmanager
def serving(folder, **environment):
    """Run a server in a folder until the block ends."""
    server = Server(folder, **environment)
    try:
        yield server
    finally:
        server.close()
