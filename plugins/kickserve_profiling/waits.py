"""Tells waiting from working: drives a coroutine step by step, and notes where it stood still.

By the wall clock, a profiler counts the time that a coroutine waits as its own. Whoever drives it sees both.
"""

from __future__ import annotations

import gc
import time
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

# What the interpreter puts between a coroutine and another one that it waits for.
_BETWEEN: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper"})
_STEPS: Final = (CoroutineType, AsyncGeneratorType, GeneratorType)


class Place(NamedTuple):
    """A function, by where it is defined."""

    file: str
    line: int


class Wait(NamedTuple):
    """How often a function waited, and for how many seconds altogether."""

    times: int
    seconds: float


class Waits(dict[Place, Wait]):
    """Where a request waited, all its tasks together."""

    def add(self, code: CodeType, seconds: float) -> None:
        """Note that this function stood still for so long."""
        place = Place(code.co_filename, code.co_firstlineno)
        count, before = self.get(place, (0, 0.0))
        self[place] = Wait(count + 1, before + seconds)


async def drive(coroutine: Coroutine[Any, Any, Any], waits: Waits) -> Any:
    """Await a coroutine, and note where it waits."""
    return await _Drive(coroutine, waits)


class _Drive:
    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits: Waits) -> None:
        self._coroutine = coroutine
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step: Callable[[Any], Any] = coroutine.send
        given: Any = None
        while True:
            try:
                awaited = step(given)
            except StopIteration as end:
                return end.value
            code, since = _where(coroutine), time.perf_counter()
            try:
                step, given = coroutine.send, (yield awaited)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001  a cancellation is thrown in, and passed on
                step, given = coroutine.throw, error
            self._waits.add(code, time.perf_counter() - since)


def _where(coroutine: Any) -> CodeType:
    """Return the innermost function that has been written in Python and stands still."""
    at: Any = coroutine
    code: CodeType = coroutine.cr_code
    while at is not None:
        if isinstance(at, CoroutineType):
            code, at = at.cr_code, at.cr_await
        elif isinstance(at, AsyncGeneratorType):
            code, at = at.ag_code, at.ag_await
        elif isinstance(at, GeneratorType):
            code, at = at.gi_code, at.gi_yieldfrom
        elif type(at).__name__ in _BETWEEN:
            at = next((each for each in gc.get_referents(at) if isinstance(each, _STEPS)), None)
        else:
            at = None
    return code
