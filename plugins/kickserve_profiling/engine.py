"""The profiler of this process, yappi, of which there is one: lent to requests, or for a look at everything.

Each request has a tag in a context variable, which its tasks and the threads that it asks inherit, and yappi
keeps its figures by tag. It can't forget those of one tag alone: they are cleared whenever no request is
being profiled, and where requests overlap without end, no new one begins until that is so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import CO_ASYNC_GENERATOR
from itertools import count
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal

import yappi

from kickserve_profiling.errors import Busy
from kickserve_profiling.waits import Place, Waits

if TYPE_CHECKING:
    import pstats
    from collections.abc import Callable

    Clock = Literal["cpu", "wall"]

TAG: Final = ContextVar("kickserve_profiled_request", default=0)
MOST: Final = 100  # requests whose figures are held before they are cleared: about 60 kB each
# yappi 1.7.6 never lets go of the names of functions that it has cleared, 30 kB a request: after so many,
# which is 150 MB, this process profiles no more.
ENOUGH: Final = 5_000
LONGEST: Final = 30.0  # seconds from which a request no longer keeps others from being profiled
_LOOK_UP: Final = 0.1  # seconds between looks whether a profile is to end early

_log = logging.getLogger(__name__)


@dataclass
class Profiled:
    """A request that is being profiled.

    Attributes:
        tag: its own, from 1.
        waits: where it waited by now.
        since: when it began, by `time.monotonic`.
    """

    tag: int
    waits: Waits = field(default_factory=Waits)
    since: float = field(default_factory=time.monotonic)


class Engine:
    """Begins and ends profiles. All methods are for the thread of the event loop."""

    def __init__(self) -> None:
        self._tags = count(1)
        self._open: dict[int, Profiled] = {}
        self._begun = 0  # requests since the figures were cleared
        self._ever = 0  # requests since the process began
        self._look_ends = 0.0  # when the look at everything ends, by `time.monotonic`; 0 where there is none

    def begin(self) -> Profiled | None:
        """Profile what runs under a new tag from now on.

        Returns:
            The tag to run under; None where the profiler is not to be had just now.
        """
        if self._look_ends or self._had_enough() or not self._make_room():
            return None
        if not self._open:
            _start("wall", TAG.get)
        profiled = Profiled(next(self._tags))
        self._open[profiled.tag] = profiled
        self._begun += 1
        self._ever += 1
        return profiled

    def end(self, profiled: Profiled) -> yappi.YFuncStats | None:
        """Profile it no longer.

        Returns:
            The figures of its tag; None where they have been given up meanwhile.
        """
        if self._open.pop(profiled.tag, None) is None:
            return None
        figures = yappi.get_func_stats(tag=profiled.tag)
        if not self._open:
            self._clear()
        return figures

    def of_this_context(self, tag: int) -> Profiled | None:
        """Return the request of a tag, while it is being profiled."""
        return self._open.get(tag)

    async def look(self, seconds: float, clock: Clock, ended: Callable[[], bool]) -> pstats.Stats:
        """Profile all that the process does. Requests that are being profiled are given up.

        Args:
            seconds: for how long.
            clock: `cpu` counts the time on a processor, `wall` also that in which a thread waits.
            ended: asked now and then whether to end before the time is over.

        Raises:
            Busy: it is being done already.
        """
        if self._look_ends:
            raise Busy(self._look_ends - time.monotonic())
        self._clear()
        self._look_ends = time.monotonic() + seconds
        try:
            _start(clock, None)
            while time.monotonic() < self._look_ends and not ended():  # noqa: ASYNC110  ended() is no event
                await asyncio.sleep(min(_LOOK_UP, max(0.0, self._look_ends - time.monotonic())))
            yappi.stop()
            return await asyncio.to_thread(_everything)
        finally:
            self._clear()
            self._look_ends = 0.0

    def _had_enough(self) -> bool:
        if self._ever == ENOUGH:
            self._ever += 1
            _log.warning("%d requests have been profiled: restart the service to profile more", ENOUGH)
        return self._ever > ENOUGH

    def _make_room(self) -> bool:
        """Say whether one more request may begin; where a long one has stood in the way, give it up."""
        if self._begun < MOST:
            return True
        if time.monotonic() - min(each.since for each in self._open.values()) < LONGEST:
            return False
        self._clear()
        return True

    def _clear(self) -> None:
        yappi.stop()
        yappi.clear_stats()
        yappi.set_tag_callback(None)
        self._open.clear()
        self._begun = 0


def _start(clock: Clock, tag: Callable[[], int] | None) -> None:
    """Start yappi.

    Args:
        clock: see `Engine.look`.
        tag: asked at every call, so it should be a function in C: one in Python costs ten times more.
    """
    yappi.set_clock_type(clock)
    yappi.set_tag_callback(tag)
    yappi.start(builtins=True)


def generators(figures: yappi.YFuncStats) -> set[Place]:
    """Return which of these functions are asynchronous generators."""
    # yappi keeps the code of each function, and has no public way to ask for it.
    known: dict[str, Any] = getattr(yappi, "_fn_descriptor_dict", {})
    codes = (known.get(each.full_name) for each in figures)
    return {
        Place(code.co_filename, code.co_firstlineno)
        for code in codes
        if isinstance(code, CodeType) and code.co_flags & CO_ASYNC_GENERATOR
    }


def _everything() -> Any:
    return yappi.convert2pstats(yappi.get_func_stats())


ENGINE: Final = Engine()
