"""Reads callgrind's format strictly: what kcachegrind's manual allows of it, and nothing else."""

from __future__ import annotations

import re

NAME = re.compile(r"\((\d+)\)(?: (.+))?")
HEADERS = ("version", "creator", "cmd", "positions", "events", "summary")


def read_callgrind(text):
    """Return the own cost of each function by its number; raises AssertionError at the first flaw."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.splitlines()
    assert first == "# callgrind format"
    headers = dict(line.split(": ", 1) for line in lines)
    assert tuple(headers) == HEADERS
    assert (headers["version"], headers["positions"]) == ("1", "line")
    names: dict[str, dict[str, str]] = {"file": {}, "function": {}}
    costs: dict[str, int] = {}
    reader = _Reader(names, costs)
    for line in body.splitlines():
        reader.take(line)
    assert not reader.after_calls
    assert sum(costs.values()) == int(headers["summary"])
    assert set(costs) == set(names["function"]), "each function that is called has costs of its own"
    return costs


class _Reader:
    def __init__(self, names, costs):
        self.names, self.costs = names, costs
        self.function = None
        self.called = False
        self.after_calls = False

    def take(self, line):
        kind, _, rest = line.partition("=")
        if not line:
            self.function = None
        elif kind in {"fl", "cfi"}:
            self.name("file", rest)
        elif kind == "fn":
            self.function = self.name("function", rest)
            assert self.function not in self.costs
        elif kind == "cfn":
            self.name("function", rest)
            self.called = True
        elif kind == "calls":
            assert self.called
            assert re.fullmatch(r"[1-9]\d* \d+", rest)
            self.called, self.after_calls = False, True
        else:
            self.cost(line)

    def name(self, kind, text):
        number, name = NAME.fullmatch(text).groups()
        assert (name is None) == (number in self.names[kind]), (
            f"named where it comes first, and only there: {text}"
        )
        self.names[kind].setdefault(number, name)
        return number

    def cost(self, line):
        _line, cost = map(int, line.split(" "))
        assert self.function is not None
        if not self.after_calls:
            assert self.function not in self.costs
            self.costs[self.function] = cost
        self.after_calls = False
