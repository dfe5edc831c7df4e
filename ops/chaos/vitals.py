"""Watches a server from outside over a long time, and says whether anything in it grows."""

from __future__ import annotations

import contextlib
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BARS = "▁▂▃▄▅▆▇█"
MB = 1e6


class Sample(NamedTuple):
    """What was found at an instant.

    Attributes:
        seconds: since the beginning.
        pss_mb: memory of the server's lasting processes, 10⁶ bytes; what they share is counted once.
        rss_mb: the same with what they share counted in each.
        children: processes that come and go: a report of drift, say.
        handles: open files and sockets.
        threads: of the lasting processes.
        journal_bytes: what waits for the store.
        rate: answers a second since the last sample.
        p50_ms: median time of an answer in the last minute.
        p99_ms: 99th percentile of these.
        troubled: whether the store was away since the last sample.
    """

    seconds: float
    pss_mb: float
    rss_mb: float
    children: int
    handles: int
    threads: int
    journal_bytes: int
    rate: float
    p50_ms: float
    p99_ms: float
    troubled: bool


class Watched:
    """A server's processes: the one that was started, and those below it that were there at first."""

    def __init__(self, pid: int, journals: Path) -> None:
        root = psutil.Process(pid)
        self._lasting = [root, *root.children(recursive=True)]
        self._journals = journals

    def look(self) -> dict[str, Any]:
        """Return what can be seen from outside."""
        full = [each.memory_full_info() for each in self._lasting]
        return {
            "pss_mb": sum(each.pss for each in full) / MB,
            "rss_mb": sum(each.rss for each in full) / MB,
            "children": len(self._lasting[0].children(recursive=True)) + 1 - len(self._lasting),
            "handles": sum(each.num_fds() for each in self._lasting),
            "threads": sum(each.num_threads() for each in self._lasting),
            "journal_bytes": sum(map(_size, self._journals.rglob("*.log"))),
        }


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):  # drained and gone meanwhile
        return file.stat().st_size
    return 0


class Verdict(NamedTuple):
    """What became of something over the time.

    Attributes:
        what: its name.
        early: what it was after the warm-up.
        late: what it was at the end.
        allowed: what it may be at the end.
        passed: whether it is.
    """

    what: str
    early: float
    late: float
    allowed: float
    passed: bool


# What may be at the end, from what was after the warm-up.
LIMITS: dict[str, Callable[[float], float]] = {
    "pss_mb": lambda early: 1.05 * early,
    "handles": lambda early: early + 2,  # a client more that reads just then
    "threads": lambda early: early + 1,
    "p99_ms": lambda early: 1.25 * early + 1,  # others use the machine too
    "journal_bytes": lambda early: max(2 * early, 5e6),  # half a second of what comes in
}


def verdicts(samples: Sequence[Sample], warm: float) -> list[Verdict]:
    """Compare the first third of the time after a warm-up with the last: medians, without the outages.

    Args:
        samples: in order.
        warm: seconds that the warm-up took.
    """
    settled = [each for each in samples if each.seconds > warm]
    third = max(len(settled) // 3, 1)

    def typical(part: Sequence[Sample], name: str) -> float:
        calm = [each for each in part if not each.troubled] or part
        return float(median(getattr(each, name) for each in calm))

    found = []
    for name, limit in LIMITS.items():
        early, late = typical(settled[:third], name), typical(settled[-third:], name)
        found.append(Verdict(name, early, late, limit(early), late <= limit(early)))
    return found


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw numbers as a line of bars, from 0 to the largest."""
    top = max(values, default=0) or 1
    groups = min(width, len(values))
    means = [values[at * len(values) // groups : (at + 1) * len(values) // groups] for at in range(groups)]
    return "".join(BARS[round(median(part) / top * (len(BARS) - 1))] for part in means)
