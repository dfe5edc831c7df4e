"""Measures and drills `kickserve batch` on a Dask cluster of this machine, beside one process."""

from __future__ import annotations

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pyarrow.parquet as pq

from ops.bench import common
from ops.commands import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ops.commands import Row

BILLION: Final = 1_000_000_000
IN_A_FILE: Final = 10_000_000
POLL: Final = 0.2
GONE: Final = 30.0  # seconds in which all that a killed run had started must be gone


def make_all(folder: Path, kicks: int) -> None:
    """Write so many kicks into files of ten millions, one beside the other."""
    folder.mkdir()
    sizes = [min(IN_A_FILE, kicks - start) for start in range(0, kicks, IN_A_FILE)]

    def make(at: int) -> None:
        options = ("--size", str(sizes[at]), "--seed", str(at), "--output", f"kicks-{at:03d}.parquet")
        common.command(folder, "simulate", *options)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        [*pool.map(make, range(len(sizes)))]


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
    """Run the command to its end; return its summary, its time and its memory."""
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
    """Look that each row group of kicks is answered once, in order; return a hash over all answers."""
    found = hashlib.sha256()
    for part, (name, first, rows) in zip(sorted(output.glob("*.parquet")), groups(source), strict=True):
        table = pq.read_table(part)
        lines = table["line"].to_numpy()
        assert (lines[0], lines[-1], len(lines)) == (first, first + rows - 1, rows), (
            f"lines of {part} are wrong"
        )
        assert table["file"].unique().to_pylist() == [name], f"{part} is of another file"
        for column in ("line", "prediction", "confidence"):
            found.update(table[column].to_numpy().tobytes())
    return found.hexdigest()


def groups(source: Path) -> Iterator[tuple[str, int, int]]:
    """Yield of each row group the name of the file, the number of its first line, and how many it has."""
    for file in sorted(source.glob("*.parquet")):
        first, metadata = 1, pq.read_metadata(file)
        for at in range(metadata.num_row_groups):
            rows = metadata.row_group(at).num_rows
            yield file.name, first, rows
            first += rows


def wait_for(output: Path, parts: int, process: int) -> int:
    """Wait until so many partitions of a run are done; return how many are."""
    while (done := len([*output.glob("*.parquet")])) < parts:
        assert psutil.pid_exists(process), "the run ended too early"
        time.sleep(0.05)
    return done


def kill_everything(source: Path, output: Path, engine: list[str], parts: int) -> int:
    """Start a run, kill all its processes at once, and return how many partitions were done."""
    process = start(source, output, engine)
    try:
        done = wait_for(output, parts, process.pid)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(family, GONE)
    assert not alive, f"{len(alive)} of {len(gone) + len(alive)} processes outlived the run"
    return done


def killed_runs(
    source: Path, folder: Path, engine: list[str], expected: str
) -> list[tuple[str, dict[str, Any]]]:
    """Kill on the way, and make sure that all comes out as it did without."""
    third = max(sum(1 for _ in groups(source)) // 3, 1)
    output, killed = folder / "worker-killed", list[int]()

    def kill_a_worker(process: int) -> None:
        killed.append(wait_for(output, third, process))
        # Workers have used most CPU; beside them there is a helper of multiprocessing.
        children = psutil.Process(process).children(recursive=True)
        max(children, key=lambda each: each.cpu_times().user).kill()

    survived = measure(source, output, engine, kill_a_worker)
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


def end(*_: object) -> None:
    """End as by Ctrl-C: what was started is ended, and what was made is removed."""
    raise KeyboardInterrupt


def cluster(
    kicks: int = 10_000_000,
    workers: int = 2,
    memory: str = "2GB",
    drills: bool = False,
    folder: str = "",
) -> dict[str, list[Row]]:
    """Measure `kickserve batch` on a Dask cluster of this machine beside one process.

    Simulated kicks are written as Parquet; each run is the whole command, and of its processes the CPU time
    and the peak of the memory are taken. Then all answers are read: that each kick has one, in order, and a
    hash over all of them, which must be the same whatever did the work.

    Args:
        kicks: how many.
        workers: processes of the cluster.
        memory: of each.
        drills: kill a worker on the way, and in another run everything, which is then taken up again.
        folder: where files are made; 180 bytes a kick must fit.
    """
    signal.signal(signal.SIGTERM, end)
    engine = ["--engine", "dask", "--workers", str(workers), "--memory", memory]
    with tempfile.TemporaryDirectory(dir=folder or None) as name:
        source = Path(name, "kicks")
        make_all(source, kicks)
        runs, hashes = {}, set()
        for run, with_engine in (("one process", []), (f"{workers} workers", engine)):
            output = Path(name, "answers")
            runs[run] = measure(source, output, with_engine)
            hashes.add(check(source, output))
            shutil.rmtree(output)
        [expected] = hashes  # the answers are the same
        # Sums depend on the order of their parts in the last digits.
        [_] = {rounded(run.pop("quality")) for run in runs.values()}
        if drills:
            for run, found in killed_runs(source, Path(name), engine, expected):
                runs[run] = {key: value for key, value in found.items() if key != "quality"}
    minutes = runs[f"{workers} workers"]["seconds"] * BILLION / kicks / 60
    progress.print(f"10⁹ kicks on these workers: {minutes:.0f} minutes, calculated and not run")
    rows = [
        {"run": run, "kicks_per_second": answered(found) / found["seconds"], **found}
        for run, found in runs.items()
    ]
    return {f"kickserve batch, {kicks:,} kicks; hash of all answers {expected[:12]}": rows}


def rounded(figures: Any) -> str:
    """Return figures as JSON whose floats have nine decimals."""
    return str(json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 9)))


def answered(run: dict[str, Any]) -> float:
    """Return the kicks that a run has answered itself, and not taken up."""
    return float(run["kicks"] * (1 - run["taken_up"] / run["partitions"]))
