"""Measures and drills `kickserve batch` on a Dask cluster of this machine, beside one process.

Run it as  python -m ops.bench cluster [--kicks N] [--workers W] [--drills] [--folder PATH] [--json].
Simulated kicks are written as Parquet; each run is the whole command, and of its processes the CPU time and
the peak of the memory are taken. Then all answers are read: that each kick has one, in order, and a hash over
all of them, which must be the same whatever did the work. With --drills a worker is killed on the way, and in
another run everything, which is then taken up again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ops.bench.commands import write_kicks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BILLION: Final = 1_000_000_000
IN_A_FILE: Final = 10_000_000
POLL: Final = 0.2
GONE: Final = 30.0  # seconds in which all that a killed run had started must be gone


def make(path: Path, kicks: int, seed: int) -> None:
    """Write simulated kicks and what came of them; the file is there when it is whole."""
    part = path.with_suffix(".part.parquet")
    write_kicks(part, kicks, seed)
    part.replace(path)


def make_all(folder: Path, kicks: int, processes: int) -> None:
    """Write so many kicks into files of ten millions."""
    folder.mkdir()
    sizes = [min(IN_A_FILE, kicks - start) for start in range(0, kicks, IN_A_FILE)]
    with ProcessPoolExecutor(processes) as pool:
        jobs = [
            pool.submit(make, folder / f"kicks-{at:03d}.parquet", size, at) for at, size in enumerate(sizes)
        ]
        for job in jobs:
            job.result()


class Watch(threading.Thread):
    """Looks at a process and its descendants while they live.

    Attributes:
        client: peak resident memory of the process itself, MB (10⁶ bytes).
        workers: of the largest of its descendants.
        together: of all of them, at one time.
    """

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process)
        self.client = self.workers = self.together = 0.0

    def run(self) -> None:
        """Look until the process is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            while self._process.status() != psutil.STATUS_ZOMBIE:
                own = self._process.memory_info().rss / 1e6
                others = [*map(_memory, self._process.children(recursive=True))]
                self.client = max(self.client, own)
                self.workers = max(self.workers, *others, 0.0)
                self.together = max(self.together, own + sum(others))
                time.sleep(POLL)


def _memory(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(process.memory_info().rss / 1e6)
    return 0.0


def start(source: Path, output: Path, engine: list[str]) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own."""
    command = [sys.executable, "-m", "kickserve", "batch", str(source), "--output", str(output), "--json"]
    return subprocess.Popen([*command, *engine], stdout=subprocess.PIPE, start_new_session=True)


def measure(
    source: Path, output: Path, engine: list[str], meanwhile: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Run the command to its end; return what it says, and what it took."""
    began = time.perf_counter()
    process = start(source, output, engine)
    watch = Watch(process.pid)
    watch.start()
    assert process.stdout is not None
    try:
        if meanwhile is not None:
            meanwhile(process.pid)
        summary = json.loads(process.stdout.read() or "{}")
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}: {summary.get('failed')}")
    watch.join()
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,  # with its children's
        "client_mb": watch.client,
        "worker_mb": watch.workers,
        "together_mb": watch.together,
        "taken_up": summary["taken_up"],
        "partitions": summary["partitions"],
        "kicks": summary["sent"],
        "quality": summary["quality"],
    }


def check(source: Path, output: Path) -> str:
    """Make sure that each kick is answered once, in order; return a hash over all answers, so sorted."""
    hashes: dict[str, Any] = {}
    parts = sorted(output.glob("*.parquet"))
    for part, (name, first, rows) in zip(parts, groups(source), strict=True):
        table = pq.read_table(part, read_dictionary=["file", "model", "revision"])
        lines = table["line"].to_numpy()
        assert np.array_equal(lines, np.arange(first, first + rows)), f"lines of {part} are wrong"
        assert table["file"].unique().to_pylist() == [name], f"{part} is of another file"
        for column in table.schema.names:
            hashes.setdefault(column, hashlib.sha256()).update(content(table[column]))
    whole = "".join(f"{column} {each.hexdigest()}\n" for column, each in sorted(hashes.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


def groups(source: Path) -> Iterator[tuple[str, int, int]]:
    """Yield of each row group the name of the file, the number of its first line, and how many it has."""
    for file in sorted(source.glob("*.parquet")):
        first, metadata = 1, pq.read_metadata(file)
        for at in range(metadata.num_row_groups):
            rows = metadata.row_group(at).num_rows
            yield file.name, first, rows
            first += rows


def content(column: Any) -> bytes:
    """Return all values of a column as bytes that are the same for the same values."""
    values = column.unify_dictionaries().combine_chunks()
    if hasattr(values, "dictionary"):
        texts = values.dictionary.to_pylist()
        if len(texts) == 1 and not values.null_count:  # as good as always
            return f"{len(values)} times {texts[0]}\n".encode()
        return "\n".join(values.to_pylist()).encode()
    array: bytes = values.to_numpy(zero_copy_only=False).tobytes()
    return array


def parts_of(output: Path) -> int:
    """Say how many partitions are done."""
    return len(list((output / "_kickserve" / "done").glob("*.json")))


def wait_for(output: Path, parts: int, process: int) -> None:
    """Wait until so many are."""
    while parts_of(output) < parts:
        assert psutil.pid_exists(process), "the run ended too early"
        time.sleep(0.05)


def kill_a_worker(output: Path, parts: int, killed: list[int]) -> Callable[[int], None]:
    """Return what kills a worker of a run, as soon as some of its partitions are done."""

    def kill(process: int) -> None:
        wait_for(output, parts, process)
        # Those that answer have worked most; besides them there is multiprocessing's own helper.
        children = psutil.Process(process).children(recursive=True)
        worker = max(children, key=lambda each: each.cpu_times().user)
        worker.kill()
        killed.append(parts_of(output))

    return kill


def kill_everything(source: Path, output: Path, engine: list[str], parts: int) -> int:
    """Start a run, kill all its processes at once, and return how many partitions were done."""
    process = start(source, output, engine)
    try:
        wait_for(output, parts, process.pid)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(family, GONE)
    assert not alive, f"{len(alive)} of {len(gone) + len(alive)} processes outlived the run"
    return parts_of(output)


def drills(source: Path, folder: Path, engine: list[str], expected: str) -> list[tuple[str, dict[str, Any]]]:
    """Kill on the way, and make sure that all comes out as it did without."""
    third = sum(1 for _ in groups(source)) // 3
    output, killed = folder / "worker-killed", list[int]()
    survived = measure(source, output, engine, kill_a_worker(output, third, killed))
    assert check(source, output) == expected, "after the death of a worker the answers are others"
    shutil.rmtree(output)
    output = folder / "all-killed"
    left = kill_everything(source, output, engine, third)
    again = measure(source, output, engine)
    assert again["taken_up"] >= left, f"{left} partitions were done, and {again['taken_up']} are known"
    assert check(source, output) == expected, "after the death of all the answers are others"
    shutil.rmtree(output)
    return [
        (f"a worker killed after {killed[0]} partitions", survived),
        (f"all killed after {left} partitions, taken up", again),
    ]


def table(result: dict[str, Any]) -> Table:
    """Lay the results out for a person."""
    title = f"kickserve batch, {result['kicks']:,} kicks in {result['partitions']:,} partitions"
    made = Table(title=title, box=None, padding=(0, 2, 0, 0))
    for name in ("what", "kicks/s", "seconds", "CPU seconds", "client", "largest worker", "together"):
        made.add_column(name, justify="left" if name == "what" else "right", no_wrap=True)
    for name, run in result["runs"].items():
        part = 1 - run["taken_up"] / run["partitions"]
        made.add_row(
            name,
            f"{run['kicks'] * part / run['seconds']:,.0f}",
            f"{run['seconds']:.1f}",
            f"{run['cpu_seconds']:.1f}",
            *(f"{run[memory]:.0f} MB" for memory in ("client_mb", "worker_mb", "together_mb")),
        )
    return made


def end(*_: object) -> None:
    """End as by Ctrl-C: what was started is ended, and what was made is removed."""
    raise KeyboardInterrupt


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measures kickserve batch on a Dask cluster.")
    parser.add_argument("--kicks", type=int, default=10_000_000, help="how many")
    parser.add_argument("--workers", type=int, default=2, help="processes of the cluster")
    parser.add_argument("--memory", default="2GB", help="how much each may take")
    parser.add_argument("--drills", action="store_true", help="kill a worker, and kill everything")
    parser.add_argument("--folder", type=Path, help="where files are made; 180 bytes a kick must fit")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    cluster = ["--engine", "dask", "--workers", str(asked.workers), "--memory", asked.memory]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        source = Path(folder, "kicks")
        make_all(source, asked.kicks, os.cpu_count() or 1)
        runs, hashes = {}, {}
        for name, engine in (("one process", []), (f"{asked.workers} workers", cluster)):
            output = Path(folder, "answers")
            runs[name] = measure(source, output, engine)
            hashes[name] = check(source, output)
            shutil.rmtree(output)
        expected = hashes["one process"]
        assert set(hashes.values()) == {expected}, f"the answers differ: {hashes}"
        qualities = [run.pop("quality") for run in runs.values()]
        assert qualities[0] == qualities[1], "the quality differs"
        if asked.drills:
            runs |= dict(drills(source, Path(folder), cluster, expected))
    fast = runs[f"{asked.workers} workers"]
    result = {
        "kicks": asked.kicks,
        "partitions": fast["partitions"],
        "cores": os.cpu_count(),
        "hash": expected,
        "runs": runs,
        "billion_calculated_seconds": fast["seconds"] * BILLION / asked.kicks,
    }
    if asked.json:
        json.dump(result, sys.stdout, indent=2)
        return
    Console(width=120).print(table(result))
    print(f"hash over all answers, sorted, the same of each run: {expected}")
    minutes = result["billion_calculated_seconds"] / 60
    print(f"10⁹ kicks on these {asked.workers} workers: {minutes:.0f} minutes, calculated and not run")
