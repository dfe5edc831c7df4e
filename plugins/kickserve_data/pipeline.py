"""Stages of a stream of blocks that work at the same time, in threads.

The threads gain something where a stage leaves Python: numpy, pyarrow and files let other threads run.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")

_DEPTH: Final = 2  # items that wait
_END: Final = object()


def prefetch(items: Iterable[T]) -> Generator[T]:
    """Take items in a thread of its own, while their user is busy with those before.

    An error in making an item is raised in its place. The thread ends with the generator.

    Yields:
        The items, in their order; few wait at a time, so the memory stays bounded.
    """
    iterator = iter(items)
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(_DEPTH))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(thread.submit(next, iterator, _END))
            yield cast("T", item)
    finally:
        _end(thread)


@contextmanager
def write_behind(write: Callable[[T], None]) -> Generator[Callable[[T], None]]:
    """Write in a thread of its own, item after item, while their maker goes on.

    Leaving the context waits for all of it; an error drops the items that have not begun.

    Args:
        write: called by that thread alone; its errors are raised by a later call, or at the end.

    Yields:
        A function that takes the next item; it waits where too many wait, so the memory stays bounded.
    """
    waiting: deque[Future[None]] = deque()
    thread = ThreadPoolExecutor(1, "write-behind")

    def put(item: T) -> None:
        waiting.append(thread.submit(write, item))
        if len(waiting) > _DEPTH:
            waiting.popleft().result()

    try:
        yield put
        while waiting:
            waiting.popleft().result()
    finally:
        _end(thread)


def _end(thread: ThreadPoolExecutor) -> None:
    """Drop the items that have not begun, and wait for the one under way.

    A second Ctrl-C must not leave it running on a file that is closed meanwhile.
    """
    while True:
        try:
            thread.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            continue
        return
