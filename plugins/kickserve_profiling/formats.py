"""Writes profiles for other tools: pstat, callgrind, and the JSON of speedscope."""

from __future__ import annotations

import marshal
import pstats
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from kickserve_profiling.profile import calls_of, label, stacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_profiling.profile import Calls, Function, Times

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"  # a name: nothing is fetched from there


class Format(NamedTuple):
    """A way to write a profile.

    Attributes:
        suffix: of files.
        media_type: over HTTP.
        opened_by: the tools that read it.
        write: takes a profile and its title, returns the file's content.
    """

    suffix: str
    media_type: str
    opened_by: str
    write: Callable[[pstats.Stats, str], bytes]


def pstat(profile: pstats.Stats, _title: str) -> bytes:
    """Write for `pstats` and snakeviz."""
    return marshal.dumps(calls_of(profile))


class _Names:
    """Names in callgrind's way: written out the first time, and by number from then on."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def write(self, key: Any, text: str) -> str:
        if key in self._numbers:
            return f"({self._numbers[key]})"
        self._numbers[key] = len(self._numbers) + 1
        return f"({self._numbers[key]}) {_one_line(text)}"


def callgrind(profile: pstats.Stats, title: str) -> bytes:
    """Write for kcachegrind and speedscope; the costs are nanoseconds."""
    calls = calls_of(profile)
    whole = sum(_nanoseconds(own) for _, _, own, _, _ in calls.values())
    head = ["# callgrind format", "version: 1", "creator: kickserve", f"cmd: {_one_line(title)}"]
    head += ["positions: line", "events: Nanoseconds", f"summary: {whole}"]
    return ("\n".join([*head, *_costs(calls)]) + "\n").encode()


def _costs(calls: Calls) -> Iterator[str]:
    callees: defaultdict[Function, list[tuple[Function, Times]]] = defaultdict(list)
    for function, (*_, callers) in calls.items():
        for caller, times in callers.items():
            callees[caller].append((function, times))
    files, functions = _Names(), _Names()
    for function, (_, _, own, _, _) in calls.items():
        file, line, name = function
        yield f"\nfl={files.write(file, file)}\nfn={functions.write(function, name)}"
        yield f"{line} {_nanoseconds(own)}"
        for callee, (count, _, _, total) in callees[function]:
            yield f"cfi={files.write(callee[0], callee[0])}\ncfn={functions.write(callee, callee[2])}"
            yield f"calls={max(1, count)} {callee[1]}\n{line} {_nanoseconds(total)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "?"


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def speedscope(profile: pstats.Stats, title: str) -> bytes:
    """Write for speedscope, which draws a flame graph of stacks and the seconds of each."""
    frames: dict[Function, int] = {}
    samples: list[list[int]] = []
    weights: list[float] = []
    for stack, seconds in stacks(profile):
        samples.append([frames.setdefault(each, len(frames)) for each in stack])
        weights.append(seconds)
    sampled = {
        "type": "sampled",
        "name": title,
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    document = {
        "$schema": _SCHEMA,
        "exporter": "kickserve",
        "name": title,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(each) for each in frames]},
        "profiles": [sampled],
    }
    return msgspec.json.encode(document)


def _frame(function: Function) -> dict[str, Any]:
    file, line, _ = function
    return {"name": label(function), "file": file, **({"line": line} if line else {})}


FORMATS: Final = {
    "pstat": Format(
        ".pstat", "application/octet-stream", "`kickserve profile show` and snakeviz open it", pstat
    ),
    "callgrind": Format(".callgrind", "text/plain", "kcachegrind and speedscope open it", callgrind),
    "speedscope": Format(
        ".speedscope.json", "application/json", "speedscope draws its flame graph", speedscope
    ),
}
