"""Profiles as the standard library's `pstats` holds them: read, corrected, listed, and unfolded into stacks.

Of each function a profile has the number of calls, the seconds in the function itself and with all that the
function called, and the same by caller.
"""

from __future__ import annotations

import pstats
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from kickserve.plugins import KickserveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

Function = tuple[str, int, str]  # file, line and name; the line is 0 for a function not written in Python
Times = tuple[int, int, float, float]  # calls, calls without recursion, seconds in itself, seconds with all
Call = tuple[int, int, float, float, dict[Function, Times]]
Calls = dict[Function, Call]
Stack = tuple[Function, ...]
Location = tuple[str, int]  # file and first line of a function
Waits = dict[Location, tuple[int, float]]  # how often each function waited, and for how many seconds

WAITING: Final[Function] = ("~", 0, "<waiting>")
_RESUMING: Final = ("<method 'send' of 'coroutine' objects>", "<method 'throw' of 'coroutine' objects>")
_SMALLEST: Final = 0.0005  # share of the whole below which a branch of the calls is left out of stacks
_DEEPEST: Final = 120


class ProfileError(KickserveError):
    """A file of a profile can't be read or written."""

    title = "Unusable file"
    exit_code = 2


class UnreadableProfile(ProfileError):
    """A file is no profile that can be read."""

    title = "Unreadable profile"


class Row(NamedTuple):
    """A function of a profile, for a table.

    Attributes:
        name: with the module and the line.
        calls: number of calls.
        own: seconds in the function itself.
        total: seconds with all that the function called.
    """

    name: str
    calls: int
    own: float
    total: float


def calls_of(profile: pstats.Stats) -> Calls:
    """Return the functions of a profile."""
    return cast("Calls", cast("Any", profile).stats)


def read(file: Path) -> pstats.Stats:
    """Read a profile in the format of `pstats`. Only from people you trust: a forged file can do harm.

    Raises:
        UnreadableProfile: the file can't be read, or holds something else.
    """
    try:
        profile = pstats.Stats(str(file))
        rows(profile)
    except OSError as error:
        raise UnreadableProfile(f"{file} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise UnreadableProfile(
            f"{file} is no profile: give one of the files that end with .pstat"
        ) from error
    return profile


def correct(
    profile: pstats.Stats,
    waits: Waits,
    generators: AbstractSet[Location],
    hidden: AbstractSet[str],
) -> pstats.Stats:
    """Separate waiting from working, and leave out the profiler's own functions.

    The seconds that a coroutine waited are moved from its own seconds to `<waiting>`, as if the coroutine had
    called that. Its seconds with all calls stay.

    An asynchronous generator is measured from its first value to its end, with all that ran between two of
    its values. Its own share of that is unknown: it gets no own seconds, and in all those of its calls.

    Args:
        profile: is changed.
        waits: where the request waited.
        generators: which functions are asynchronous generators.
        hidden: files whose functions are left out.
    """
    calls = calls_of(profile)
    left_out = {function for function in calls if function[0] in hidden}
    # And functions that only hidden ones called, such as the `send` that resumes a coroutine.
    left_out |= {
        each
        for each, (*_, callers) in calls.items()
        if (callers or each[2] in _RESUMING) and not each[1] and all(caller in left_out for caller in callers)
    }
    for function in left_out:
        del calls[function]
    for *_, callers in calls.values():
        for function in left_out & callers.keys():
            del callers[function]
    _separate_waits(calls, waits)
    _correct_generators(calls, generators)
    return profile


def _separate_waits(calls: Calls, waits: Waits) -> None:
    callers: dict[Function, Times] = {}
    for function, (count, whole, own, total, above) in calls.items():
        times, seconds = waits.get(function[:2], (0, 0.0))
        if not times or own <= 0:
            continue
        waited = min(seconds, own)
        callers[function] = (times, times, waited, waited)
        calls[function] = (count, whole, own - waited, total, _scaled(above, (own - waited) / own, 1.0))
    if callers:
        times = sum(each[0] for each in callers.values())
        seconds = sum(each[2] for each in callers.values())
        calls[WAITING] = (times, times, seconds, seconds, callers)


def _correct_generators(calls: Calls, generators: AbstractSet[Location]) -> None:
    for function in [each for each in calls if each[:2] in generators]:
        below = [callers[function][3] for *_, callers in calls.values() if function in callers]
        count, whole, _, total, above = calls[function]
        left = min(total, sum(below))
        calls[function] = (count, whole, 0.0, left, _scaled(above, 0.0, left / total if total else 0.0))


def _scaled(callers: Mapping[Function, Times], own: float, total: float) -> dict[Function, Times]:
    return {each: (n, m, mine * own, all_ * total) for each, (n, m, mine, all_) in callers.items()}


def rows(profile: pstats.Stats) -> list[Row]:
    """Return the functions, the longest in themselves first."""
    found = [
        Row(label(function), count, own, total)
        for function, (_, count, own, total, _callers) in calls_of(profile).items()
    ]
    return sorted(found, key=lambda row: (-row.own, -row.total, row.name))


def label(function: Function) -> str:
    """Name a function for people: `kickserve/model.py:118 Model.predict`."""
    file, line, name = function
    if function == WAITING:
        return name
    where = "/".join(file.replace("\\", "/").split("/")[-2:])
    return f"{where}:{line} {name}" if line else f"{name} ({where})"


def stacks(profile: pstats.Stats) -> Iterator[tuple[Stack, float]]:
    """Yield stacks of calls, outermost function first, with the seconds of the innermost function itself.

    A profile knows callers, and no whole stacks. The calls of a function with several callers are divided
    among those by their seconds; a recursive call is left out.
    """
    calls = calls_of(profile)
    callees: defaultdict[Function, list[tuple[Function, float]]] = defaultdict(list)
    for function, (*_, callers) in calls.items():
        for caller, times in callers.items():
            callees[caller].append((function, times[3]))
    roots = [function for function, (*_, callers) in calls.items() if not callers.keys() - {function}]
    roots = roots or [max(calls, key=lambda each: calls[each][3])] if calls else []
    smallest = _SMALLEST * sum(calls[each][3] for each in roots)

    def unfold(function: Function, seconds: float, above: Stack) -> Iterator[tuple[Stack, float]]:
        stack = (*above, function)
        share = seconds / calls[function][3] if calls[function][3] else 0.0
        called = [(each, took * share) for each, took in callees[function] if each not in stack]
        # Tasks that run at the same time may take longer together than the function that awaits them.
        fit = min(1.0, seconds / (sum(took for _, took in called) or 1.0))
        shown = [
            (each, took * fit) for each, took in called if took * fit > smallest and len(stack) < _DEEPEST
        ]
        own = seconds - sum(took for _, took in shown)
        if own > 0:
            yield stack, own
        for each, took in sorted(shown, key=lambda pair: -pair[1]):
            yield from unfold(each, took, stack)

    for root in sorted(roots, key=lambda each: -calls[each][3]):
        yield from unfold(root, calls[root][3], ())
