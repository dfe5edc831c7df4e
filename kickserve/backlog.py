"""Says for how long predictions have waited in the journal, from looking at it once a second."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kickserve.journal import Journal, Mark

_MOST: Final = 1_000  # looks that are remembered; beyond, every other one: the age gets coarser as it grows


class Waiting(NamedTuple):
    """What waits in the journal.

    Attributes:
        size: in bytes.
        lag: seconds for which something has waited and nothing has drained.
        age: seconds for which the oldest of this process's own has waited, to about a second; no less than
            `lag`, which is all that is known of what a dead process left.
    """

    size: int
    lag: float
    age: float


class Backlog:
    """Remembers how far the journal had been written at each look.

    Args:
        journal: is looked at.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._looks: deque[tuple[float, Mark]] = deque()

    def look(self) -> Waiting:
        """Look once more."""
        now, journal, looks = time.monotonic(), self._journal, self._looks
        looks.append((now, journal.mark()))
        while looks and journal.passed(looks[0][1]):
            looks.popleft()
        if len(looks) > _MOST:
            self._looks = deque([*looks][::2])
        age = now - looks[0][0] if looks else 0.0
        # Between two looks something may have waited for longer than any look has seen.
        return Waiting(journal.size, journal.lag, max(age, journal.lag))
