"""The drill `upgrade`: to this version and back, after the older one was killed under load.

The older one is installed in an environment of its own: from a commit of this clone, or from a package index.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import tarfile
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from postgres import running
from serving import NotStarted, Server

from ops.chaos.common import SQLITE, WARM, drained, ended, predicted, settled
from ops.clients import OK, Clients, Connection, counted, packed
from ops.commands import progress

if TYPE_CHECKING:
    from ops.commands import Row

ROOT = Path(__file__).resolve().parents[2]
WRONGLY_SET_UP = 2  # the exit code
UNEXPLAINED = "refused without a reason"
CHANGED = 20  # predictions that get an outcome, and as many that are deleted


async def upgrade(before: str = "", warm: float = WARM) -> list[Row]:
    """Kill an older version under load, start this one on its data, then the older one again.

    Fails where a prediction that the older version answered is lost or stored twice, an outcome is gone, or
    something deleted is back; and where the older version neither goes on afterwards nor says, with exit code
    2, that the schema is newer than it knows.

    Args:
        before: the older version: a commit or tag of this clone, or a requirement as
            `kickserve[postgres]==1.0.0`; the newest tag by default.
        warm: seconds of load before it is killed.
    """
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
        python = await asyncio.to_thread(installed, before or newest_tag(), folder)
        rows = []
        for name, url in (("SQLite", SQLITE), ("Postgres", cluster.url)):
            progress.print(f"upgrade, {name} ...")
            place = folder / name
            place.mkdir()
            rows.append({"drill": f"upgrade, {name}", **await there_and_back(python, url, place, warm)})
        return rows


async def there_and_back(python: Path, url: str, folder: Path, warm: float) -> Row:
    """Go from an older version to this one, and try to go back.

    Args:
        python: of the older version's environment.
        url: of the database.
        folder: for both.
        warm: seconds of load.
    """
    old = await asyncio.to_thread(Server, folder, python=str(python), DATABASE_URL=url)
    ids = await predicted(old.url, 2 * CHANGED)
    labelled, deleted = ids[:CHANGED], ids[CHANGED:]
    await drained(old.url)
    connection = Connection(old.url)
    for each in labelled:
        await connection.ask("PUT", f"/predictions/{each}/outcome", {"success": True})
    for each in deleted:
        await connection.ask("DELETE", f"/predictions/{each}")
    connection.close()
    load = Clients(old.url)
    await asyncio.sleep(warm)
    await ended(old, signal.SIGKILL)
    await load.end()
    left = sum(file.stat().st_size for file in folder.rglob("*.log"))
    stored = await settled(url, folder)
    found = counted(load.ids + packed(labelled), stored)
    back = CHANGED - counted(packed(deleted), stored)["lost"]
    new = await asyncio.to_thread(Server, folder, DATABASE_URL=url)
    connection = Connection(new.url)
    outcomes = [(await connection.ask("GET", f"/predictions/{each}"))[1]["outcome"] for each in labelled]
    connection.close()
    assert await ended(new) == 0
    down = await _downgraded(python, url, folder)
    right = not (found["lost"] or found["twice"] or back) and outcomes == [True] * CHANGED
    return {
        **found,
        "journal_left_bytes": left,
        "outcomes": sum(each is True for each in outcomes),
        "deleted_back": back,
        "downgrade": down,
        "passed": right and down != UNEXPLAINED,
    }


async def _downgraded(python: Path, url: str, folder: Path) -> str:
    """Start the older version on the newer data; return that it goes on, or why not in its own words."""
    try:
        old = await asyncio.to_thread(Server, folder, python=str(python), DATABASE_URL=url)
    except NotStarted as error:
        said = re.search(r"has schema \d+, and this kickserve knows \d+", str(error))
        return said[0] if said and error.code == WRONGLY_SET_UP else UNEXPLAINED
    connection = Connection(old.url)
    status, _ = await connection.ask("GET", "/predictions?limit=1")
    connection.close()
    await ended(old)
    return "goes on" if status == OK else UNEXPLAINED


def newest_tag() -> str:
    """Return the newest tag of this clone.

    Raises:
        SystemExit: there is none.
    """
    done = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit("this clone has no tag: name the version to come from, as `--before COMMIT`")
    return done.stdout.strip()


def installed(version: str, folder: Path) -> Path:
    """Install a version into an environment of its own; return its Python.

    Args:
        version: a commit or tag of this clone, or a requirement.
        folder: for the environment.
    """
    python, wanted = folder / "before" / "bin" / "python", version
    archive = subprocess.run(["git", "archive", version], cwd=ROOT, capture_output=True, check=False)
    if not archive.returncode:
        source = folder / "source"
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(source, filter="data")
        wanted = f"{source}[postgres]"
    progress.print(f"installing {version} ...")
    subprocess.run(["uv", "venv", "--quiet", str(folder / "before")], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), wanted], check=True)
    return python
