"""Runs commands of kickserve in processes of their own, and makes the files of kicks that they read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from kickserve.features import NAMES
from kickserve_data.simulate import blocks
from kickserve_data.writer import open_writer

if TYPE_CHECKING:
    from pathlib import Path


def write_kicks(path: Path, kicks: int, seed: int) -> None:
    """Write simulated kicks and what came of them."""
    with open_writer(path, [*NAMES, "success"]) as writer:
        for block in blocks(kicks, seed):
            columns = dict(zip(NAMES, block.matrix.T, strict=True))
            writer.write({**columns, "success": block.success.astype(np.float64)})


def run(folder: Path, *arguments: str) -> dict[str, float]:
    """Run a command to its end; return seconds, CPU seconds and peak memory in MB (10⁶ bytes)."""
    command = [sys.executable, "-m", "kickserve", *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"kickserve {' '.join(arguments)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "user_seconds": used.ru_utime,
        "system_seconds": used.ru_stime,
        "peak_mb": used.ru_maxrss * unit / 1e6,
    }
