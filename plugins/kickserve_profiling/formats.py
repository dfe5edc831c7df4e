"""Writes profiles in the formats of other people's tools: pstat, callgrind, speedscope, and SVG."""

from __future__ import annotations

import marshal
import pstats
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from kickserve_profiling import flame
from kickserve_profiling.calls import calls_of, named, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_profiling.calls import Calls, Function, Node, Times

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"  # a name: nothing is fetched from there


class Format(NamedTuple):
    """A way to write a profile.

    Attributes:
        suffix: what files end with.
        media_type: over HTTP.
        write: makes the file's content of a profile and its title.
    """

    suffix: str
    media_type: str
    write: Callable[[pstats.Stats, str], bytes]


def pstat(profile: pstats.Stats, _title: str) -> bytes:
    """Write for `pstats` and snakeviz."""
    return marshal.dumps(calls_of(profile))


class _Names:
    """Names as callgrind has them: written out where they come first, a number ever after."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def of(self, key: Any, text: str) -> str:
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
    called: dict[Function, list[tuple[Function, Times]]] = {function: [] for function in calls}
    for function, (*_, callers) in calls.items():
        for caller, times in callers.items():
            called[caller].append((function, times))
    files, functions = _Names(), _Names()
    for function, (_, _, own, _, _) in calls.items():
        file, line, name = function
        yield f"\nfl={files.of(file, file)}\nfn={functions.of(function, name)}"
        yield f"{line} {_nanoseconds(own)}"
        for callee, (count, _, _, total) in called[function]:
            yield f"cfi={files.of(callee[0], callee[0])}\ncfn={functions.of(callee, callee[2])}"
            yield f"calls={max(1, count)} {callee[1]}\n{line} {_nanoseconds(total)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "?"


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def speedscope(profile: pstats.Stats, title: str) -> bytes:
    """Write for speedscope: a stack for each function that took time of its own, with its weight."""
    frames: dict[Function, int] = {}
    samples: list[list[int]] = []
    weights: list[float] = []
    for stack, seconds in _stacks(tree(profile), ()):
        samples.append([frames.setdefault(each, len(frames)) for each in stack])
        weights.append(seconds)
    document = {
        "$schema": _SCHEMA,
        "exporter": "kickserve",
        "name": title,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(each) for each in frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": title,
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }
    return msgspec.json.encode(document)


def _stacks(nodes: list[Node], above: tuple[Function, ...]) -> Iterator[tuple[tuple[Function, ...], float]]:
    for node in nodes:
        stack = (*above, node.function)
        if node.own > 0:
            yield stack, node.own
        yield from _stacks(node.children, stack)


def _frame(function: Function) -> dict[str, Any]:
    file, line, _ = function
    return {"name": named(function), "file": file, **({"line": line} if line else {})}


def svg(profile: pstats.Stats, title: str) -> bytes:
    """Write a flame graph that any browser shows, without a network."""
    return flame.draw(tree(profile), title).encode()


FORMATS: Final = {
    "pstat": Format(".pstat", "application/octet-stream", pstat),
    "callgrind": Format(".callgrind", "text/plain", callgrind),
    "speedscope": Format(".speedscope.json", "application/json", speedscope),
    "svg": Format(".svg", "image/svg+xml", svg),
}
