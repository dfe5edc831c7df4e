"""Watches a server from outside over a long time, and says whether anything in it grows."""

from __future__ import annotations

from contextlib import suppress
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BARS = "▁▂▃▄▅▆▇█"


class Sample(NamedTuple):
    """The figures of an instant.

    Attributes:
        seconds: since the beginning.
        pss_mb: memory of the server's lasting processes, 10⁶ bytes; what they share is counted once.
        handles: open files and sockets.
        threads: of the lasting processes.
        journal_bytes: what waits for the store.
        rate: answers a second since the last sample.
        p50_ms: median time of an answer in the last minute.
        p99_ms: 99th percentile of these.
        bare_p99_ms: the same of the bare app beside.
        troubled: whether the store was away in the last minute.
    """

    seconds: float
    pss_mb: float
    handles: int
    threads: int
    journal_bytes: int
    rate: float
    p50_ms: float
    p99_ms: float
    bare_p99_ms: float
    troubled: bool


class Watched:
    """A server's processes: the one that was started, and those below it that were there at first.

    Args:
        pid: of the server.
        journals: the folder where they are.
    """

    def __init__(self, pid: int, journals: Path) -> None:
        root = psutil.Process(pid)
        self._lasting = [root, *root.children(recursive=True)]
        self._journals = journals

    def look(self) -> dict[str, Any]:
        """Return the figures that can be seen from outside."""
        return {
            "pss_mb": sum(each.memory_full_info().pss for each in self._lasting) / 1e6,
            "handles": sum(each.num_fds() for each in self._lasting),
            "threads": sum(each.num_threads() for each in self._lasting),
            "journal_bytes": sum(map(_size, self._journals.rglob("*.log"))),
        }


def _size(file: Path) -> int:
    with suppress(OSError):  # drained and gone meanwhile
        return file.stat().st_size
    return 0


class Verdict(NamedTuple):
    """The change of a figure over the time.

    Attributes:
        what: its name in a sample.
        early: its value after the warm-up.
        late: its value at the end.
        allowed: the limit of its value at the end.
        passed: whether it keeps to the limit.
    """

    what: str
    early: float
    late: float
    allowed: float
    passed: bool


def least(values: list[float]) -> float:
    """Return the tenth percentile: the level that stays when clients have closed their connections.

    A browser that opens a page has six of them for half a minute, and how many pages overlap when one looks
    is chance; a handle that is never closed lies under all of that.
    """
    return quantiles(values, n=10, method="inclusive")[0] if len(values) > 1 else values[0]


# How a figure is compared, and how far it may grow.
LIMITS: dict[str, tuple[Callable[[list[float]], float], Callable[[float], float]]] = {
    "pss_mb": (median, lambda early: 1.05 * early),
    "handles": (least, lambda early: early + 2),  # a client more that reads just then
    "threads": (least, lambda early: early + 1),
    "journal_bytes": (median, lambda early: max(2 * early, 5e6)),  # half a second of what comes in
}
TIMES_GROW = 1.25  # by which the percentile of times may grow, beyond that of the bare app


def thirds(samples: Sequence[Sample], warm: float) -> tuple[list[Sample], list[Sample]]:
    """Return the samples of the first third of the time after a warm-up, and of the last, without outages.

    Args:
        samples: in order.
        warm: seconds that the warm-up took.
    """
    settled = [each for each in samples if each.seconds > warm]
    third = max(len(settled) // 3, 1)
    early, late = (
        [each for each in part if not each.troubled] for part in (settled[:third], settled[-third:])
    )
    return early, late


def verdicts(early: Sequence[Sample], late: Sequence[Sample]) -> list[Verdict]:
    """Compare two thirds of the time.

    Times are compared beside those of the bare app: where the machine, or the clients, become slower, these
    grow too, and so may the service's.
    """
    found = []
    for name, (level, allowed) in LIMITS.items():
        first, last = (float(level([getattr(each, name) for each in part])) for part in (early, late))
        found.append(Verdict(name, first, last, allowed(first), last <= allowed(first)))
    first, last = typical(early, "p99_ms"), typical(late, "p99_ms")
    slower = max(typical(late, "bare_p99_ms") / typical(early, "bare_p99_ms"), 1)
    most = TIMES_GROW * slower * first
    return [*found, Verdict("p99_ms", first, last, most, last <= most)]


def typical(samples: Sequence[Sample], name: str) -> float:
    """Return the median of a figure."""
    return float(median(getattr(each, name) for each in samples))


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw numbers as a line of bars, from 0 to the largest."""
    top = max(values, default=0) or 1
    groups = min(width, len(values))
    parts = [values[at * len(values) // groups : (at + 1) * len(values) // groups] for at in range(groups)]
    return "".join(BARS[round(median(part) / top * (len(BARS) - 1))] for part in parts)
