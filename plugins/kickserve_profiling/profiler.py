"""The profiler of this process, yappi, of which there is one: for single requests, or for the whole process.

Each request has a tag in a context variable, inherited by its tasks and the threads it uses, and yappi keeps
figures by tag. Figures of one tag alone can't be cleared: all are, whenever no request is being profiled.
Where requests overlap without end, no new profile begins until then.

By the wall clock yappi counts the time that a coroutine waits as the coroutine's own. `record_waits` resumes
a coroutine step by step, and times both.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import CO_ASYNC_GENERATOR
from itertools import count
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType, coroutine
from typing import TYPE_CHECKING, Any, Final, Literal

import yappi

from kickserve.plugins import RequestError

if TYPE_CHECKING:
    import pstats
    from collections.abc import Callable, Coroutine, Generator

    from kickserve_profiling.profile import Location, Waits

    Clock = Literal["cpu", "wall"]

TAG: Final = ContextVar("kickserve_profiled_request", default=0)
MOST: Final = 100  # requests whose figures are held before they are cleared: about 60 kB each
# yappi 1.7.6 never frees the names of functions that it has cleared, 30 kB a request: after so many, which is
# 150 MB, this process profiles no more.
LIFETIME: Final = 5_000
LONGEST: Final = 30.0  # seconds from which a request no longer keeps others from being profiled
_POLL: Final = 0.1  # seconds between looks whether a profile is to end early
# Objects of the interpreter between a coroutine and another one that it awaits.
_BETWEEN: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})
_SUSPENDED: Final = (CoroutineType, AsyncGeneratorType, GeneratorType)

_log = logging.getLogger(__name__)


class ProfilerBusy(RequestError):
    """The process is being profiled already.

    Args:
        left: seconds until that ends.
    """

    status = 409
    title = "A profile is being taken"
    retry_after = 5

    def __init__(self, left: float) -> None:
        super().__init__(
            f"another profile of this process runs for {max(1, math.ceil(left))} s more: retry then"
        )


@dataclass
class ProfiledRequest:
    """A request that is being profiled.

    Attributes:
        tag: its own, from 1.
        waits: where it has waited so far.
        since: its beginning, by `time.monotonic`.
    """

    tag: int
    waits: Waits = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class Profiler:
    """Begins and ends profiles. All methods are for the thread of the event loop."""

    def __init__(self) -> None:
        self._tags = count(1)
        self._open: dict[int, ProfiledRequest] = {}
        self._begun = 0  # requests since the figures were cleared
        self._ever = 0  # requests since the process began
        self._process_until = 0.0  # end of the process's profile, by `time.monotonic`; 0 where there is none

    def begin(self) -> ProfiledRequest | None:
        """Profile the code that runs under a new tag from now on.

        Returns:
            The request to run under its tag; None where the profiler is not available just now.
        """
        if self._process_until or self._is_worn_out() or not self._make_room():
            return None
        if not self._open:
            _start("wall", TAG.get)
        request = ProfiledRequest(next(self._tags))
        self._open[request.tag] = request
        self._begun += 1
        self._ever += 1
        return request

    def end(self, request: ProfiledRequest) -> yappi.YFuncStats | None:
        """End the profile of a request.

        Returns:
            The figures of its tag; None where they have been dropped meanwhile.
        """
        if self._open.pop(request.tag, None) is None:
            return None
        figures = yappi.get_func_stats(tag=request.tag)
        if not self._open:
            self._clear()
        return figures

    def request_of(self, tag: int) -> ProfiledRequest | None:
        """Return the request of a tag, while it is being profiled."""
        return self._open.get(tag)

    async def profile_process(self, seconds: float, clock: Clock, ended: Callable[[], bool]) -> pstats.Stats:
        """Profile the whole process. Profiles of requests that are under way are dropped.

        Args:
            seconds: for how long.
            clock: `cpu` counts the time on a processor, `wall` also the time in which a thread waits.
            ended: polled for whether to end before the time is over.

        Raises:
            ProfilerBusy: the process is being profiled already.
        """
        if self._process_until:
            raise ProfilerBusy(self._process_until - time.monotonic())
        self._clear()
        self._process_until = time.monotonic() + seconds
        try:
            _start(clock, None)
            while (left := self._process_until - time.monotonic()) > 0 and not ended():  # noqa: ASYNC110  ended() is no event
                await asyncio.sleep(min(_POLL, left))
            yappi.stop()
            return await asyncio.to_thread(lambda: yappi.convert2pstats(yappi.get_func_stats()))
        finally:
            self._clear()
            self._process_until = 0.0

    def _is_worn_out(self) -> bool:
        if self._ever == LIFETIME:
            self._ever += 1
            _log.warning("%d requests have been profiled: restart the service to profile more", LIFETIME)
        return self._ever > LIFETIME

    def _make_room(self) -> bool:
        """Say whether one more request may begin; where a long one has blocked others, drop it."""
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
        clock: see `Profiler.profile_process`.
        tag: called at every call, so it should be a function in C: one in Python costs ten times more.
    """
    yappi.set_clock_type(clock)
    yappi.set_tag_callback(tag)
    yappi.start(builtins=True)


def generators(figures: yappi.YFuncStats) -> set[Location]:
    """Return which of these functions are asynchronous generators."""
    # yappi keeps the code of each function, and has no public way to ask for it.
    known: dict[str, Any] = getattr(yappi, "_fn_descriptor_dict", {})
    codes = (known.get(each.full_name) for each in figures)
    return {
        (code.co_filename, code.co_firstlineno)
        for code in codes
        if isinstance(code, CodeType) and code.co_flags & CO_ASYNC_GENERATOR
    }


async def record_waits(awaited: Coroutine[Any, Any, Any], waits: Waits) -> Any:
    """Await a coroutine, and note where it waits."""
    return await _resume(awaited, waits)


@coroutine
def _resume(awaited: Coroutine[Any, Any, Any], waits: Waits) -> Generator[Any, Any, Any]:
    step: Callable[[Any], Any] = awaited.send
    given: Any = None
    while True:
        try:
            waits_for = step(given)
        except StopIteration as end:
            return end.value
        code, since = _suspended_in(awaited), time.perf_counter()
        try:
            step, given = awaited.send, (yield waits_for)
        except GeneratorExit:
            awaited.close()
            raise
        except BaseException as error:  # noqa: BLE001  a cancellation is thrown in, and passed on
            step, given = awaited.throw, error
        location = (code.co_filename, code.co_firstlineno)
        times, seconds = waits.get(location, (0, 0.0))
        waits[location] = (times + 1, seconds + time.perf_counter() - since)


def _suspended_in(awaited: Any) -> CodeType:
    """Return the innermost function written in Python in which a coroutine waits."""
    at: Any = awaited
    code: CodeType = awaited.cr_code
    while at is not None:
        if isinstance(at, CoroutineType):
            code, at = at.cr_code, at.cr_await
        elif isinstance(at, AsyncGeneratorType):
            code, at = at.ag_code, at.ag_await
        elif isinstance(at, GeneratorType):
            code, at = at.gi_code, at.gi_yieldfrom
        elif type(at).__name__ in _BETWEEN:
            at = next((each for each in gc.get_referents(at) if isinstance(each, _SUSPENDED)), None)
        else:
            at = None
    return code


PROFILER: Final = Profiler()
