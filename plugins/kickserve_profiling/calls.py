"""What is made of a profile: waiting told from working, and the tree of calls that a flame graph shows.

A profile is what the standard library's `pstats` has: of each function how often it was called, the seconds
in itself and with all that it called, and the same by caller.
"""

from __future__ import annotations

import pstats
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from kickserve_profiling.errors import NoProfile
from kickserve_profiling.waits import Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from kickserve_profiling.waits import Wait

Function = tuple[str, int, str]  # file, line and name; what is not written in Python has the line 0
Times = tuple[int, int, float, float]  # calls, those without recursion, seconds in itself, seconds with all
Call = tuple[int, int, float, float, dict[Function, Times]]
Calls = dict[Function, Call]

WAITING: Final[Function] = ("~", 0, "<waiting>")
_DRIVING: Final = ("<method 'send' of 'coroutine' objects>", "<method 'throw' of 'coroutine' objects>")
_FINEST: Final = 0.0005  # share of the whole below which a branch of the tree is left out
_DEEPEST: Final = 120


class Row(NamedTuple):
    """A function of a profile, for a table.

    Attributes:
        name: with the module and the line.
        calls: how often it was called.
        own: seconds in itself.
        total: seconds with all that it called.
    """

    name: str
    calls: int
    own: float
    total: float


@dataclass(slots=True)
class Node:
    """A function in the tree of calls.

    Attributes:
        function: which.
        total: seconds with all below it.
        children: what it called, the longest first.
    """

    function: Function
    total: float
    children: list[Node] = field(default_factory=list)

    @property
    def own(self) -> float:
        """Seconds in itself."""
        return max(0.0, self.total - sum(each.total for each in self.children))


def calls_of(profile: pstats.Stats) -> Calls:
    """Return what a profile holds."""
    return cast("Calls", cast("Any", profile).stats)


def read(file: Path) -> pstats.Stats:
    """Read a profile in the format of `pstats`. Only from those whom one trusts: a made-up one can do harm.

    Raises:
        NoProfile: it is none, or can't be read.
    """
    try:
        profile = pstats.Stats(str(file))
        _check(calls_of(profile))
    except OSError as error:
        raise NoProfile(f"{file} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise NoProfile(f"{file} is no profile: give one of the files that end with .pstat") from error
    return profile


def _check(calls: Calls) -> None:
    for (file, line, name), (count, whole, own, total, callers) in calls.items():
        if not (type(file) is type(name) is str and type(line) is int and type(callers) is dict):
            raise TypeError
        _ = count + whole + own + total


def part(
    profile: pstats.Stats,
    waits: Mapping[Place, Wait],
    generators: AbstractSet[Place],
    hidden: AbstractSet[str],
) -> pstats.Stats:
    """Tell waiting from working, and leave out what the profiler itself put in between.

    The time that a coroutine waited is taken from its own, and stands under `<waiting>`, as if it had called
    that. Its seconds with all that it called stay.

    An asynchronous generator counts from its beginning to its end, with all that others did between two of
    its values. How much of that it worked itself nobody knows: it is given none, and what it called.

    Args:
        profile: is changed.
        waits: where the request waited.
        generators: which functions are asynchronous generators.
        hidden: files whose functions are left out.
    """
    calls = calls_of(profile)
    left_out = {function for function in calls if function[0] in hidden}
    # And what it alone called, such as the `send` that drives a coroutine.
    left_out |= {
        each
        for each, (*_, callers) in calls.items()
        if (callers or each[2] in _DRIVING) and not each[1] and all(caller in left_out for caller in callers)
    }
    for function in left_out:
        del calls[function]
    for *_, callers in calls.values():
        for function in left_out & callers.keys():
            del callers[function]
    _tell_waiting(calls, waits)
    _correct_generators(calls, generators)
    return profile


def _tell_waiting(calls: Calls, waits: Mapping[Place, Wait]) -> None:
    callers: dict[Function, Times] = {}
    for function, (count, whole, own, total, above) in calls.items():
        wait = waits.get(Place(function[0], function[1]))
        if wait is None or own <= 0:
            continue
        waited = min(wait.seconds, own)
        callers[function] = (wait.times, wait.times, waited, waited)
        calls[function] = (count, whole, own - waited, total, _scaled(above, (own - waited) / own, 1.0))
    if callers:
        number = sum(times[0] for times in callers.values())
        seconds = sum(times[2] for times in callers.values())
        calls[WAITING] = (number, number, seconds, seconds, callers)


def _correct_generators(calls: Calls, generators: AbstractSet[Place]) -> None:
    found = [function for function in calls if Place(function[0], function[1]) in generators]
    for function in found:
        below = [callers[function][3] for *_, callers in calls.values() if function in callers]
        count, whole, _, total, above = calls[function]
        left = min(total, sum(below))
        calls[function] = (count, whole, 0.0, left, _scaled(above, 0.0, left / total if total else 0.0))


def _scaled(callers: Mapping[Function, Times], own: float, total: float) -> dict[Function, Times]:
    return {each: (n, m, mine * own, all_ * total) for each, (n, m, mine, all_) in callers.items()}


def rows(profile: pstats.Stats) -> list[Row]:
    """Return the functions, those with the most seconds in themselves first."""
    found = [
        Row(named(function), count, own, total)
        for function, (_, count, own, total, _callers) in calls_of(profile).items()
    ]
    return sorted(found, key=lambda row: (-row.own, -row.total, row.name))


def named(function: Function) -> str:
    """Name a function for people: `kickserve/scorer.py:118 Scorer.ask`."""
    file, line, name = function
    if function == WAITING:
        return name
    where = "/".join(file.replace("\\", "/").split("/")[-2:])
    return f"{where}:{line} {name}" if line else f"{name} ({where})"


def tree(profile: pstats.Stats) -> list[Node]:
    """Unfold who called whom into trees, one for each function that nothing in the profile called.

    A profile knows callers and not whole stacks. Where a function has several callers, what it called in turn
    is shared out among them by their seconds; a function that is already above itself is left out.
    """
    calls = calls_of(profile)
    below: dict[Function, list[tuple[Function, float]]] = defaultdict(list)
    for function, (*_, callers) in calls.items():
        for caller, times in callers.items():
            below[caller].append((function, times[3]))
    roots = [function for function, (*_, callers) in calls.items() if not callers.keys() - {function}]
    roots = roots or [max(calls, key=lambda each: calls[each][3])] if calls else []
    least = _FINEST * sum(calls[each][3] for each in roots)
    trees = [_unfold(each, calls[each][3], (calls, below, least), frozenset()) for each in roots]
    return sorted(trees, key=lambda node: -node.total)


_Known = tuple[Calls, dict[Function, list[tuple[Function, float]]], float]


def _unfold(function: Function, total: float, known: _Known, above: frozenset[Function]) -> Node:
    calls, below, least = known
    node = Node(function, total)
    above |= {function}
    share = total / calls[function][3] if calls[function][3] else 0.0
    parts = [(each, seconds * share) for each, seconds in below[function] if each not in above]
    # Tasks that run at the same time may take more seconds together than whoever waits for them.
    fit = min(1.0, total / (sum(seconds for _, seconds in parts) or 1.0))
    for each, seconds in sorted(parts, key=lambda pair: -pair[1]):
        if seconds * fit > least and len(above) < _DEEPEST:
            node.children.append(_unfold(each, seconds * fit, known, above))
    return node
