"""What is made of measurements: medians, ratios beside their goals, and whether the counts agree."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MANY: Final = 32  # connections at which servers are compared under load
TOO_BUSY: Final = 0.85  # share of its core from which on a load generator may be what is measured
CROWDED: Final = 0.9  # share of its core below which a server under load did not have it for itself

Place = tuple[str, int]
"""A server, and the number of connections that it was measured with."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A server's turn in a round.

    Attributes:
        server: its name.
        connections: how many clients asked at once.
        round: 1 for the first.
        requests: answers that clients received.
        errors: refusals, broken connections and timeouts.
        throughput: answers a second.
        p50_ms: time that half of the requests took at most; so `p90_ms` and `p99_ms`.
        max_ms: the longest time.
        cpu_us_load: CPU time of the server under load, in microseconds a request.
        cpu_us_total: the same with what it did afterwards, such as bringing answers to its database.
        drain_seconds: how long that took.
        rss_mb: resident memory afterwards, in MB (10⁶ bytes).
        uss_mb: the part of it that is shared with nobody.
        server_share: share of a core that the server had.
        load_share: share of a core that the load generator had.
    """

    server: str
    connections: int
    round: int
    requests: int
    errors: int
    throughput: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_us_load: float
    cpu_us_total: float
    drain_seconds: float
    rss_mb: float
    uss_mb: float
    server_share: float
    load_share: float

    @property
    def place(self) -> Place:
        """Who, and how."""
        return self.server, self.connections


FIGURES: Final = tuple(
    each.name for each in fields(Measurement) if each.name not in {"server", "connections", "round"}
)


def medians(measurements: Iterable[Measurement]) -> dict[Place, dict[str, float]]:
    """Return the median of each figure over the rounds, in the order in which places first come up."""
    groups: dict[Place, list[Measurement]] = {}
    for each in measurements:
        groups.setdefault(each.place, []).append(each)
    return {
        place: {name: median(getattr(each, name) for each in group) for name in FIGURES}
        for place, group in groups.items()
    }


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A ratio of two servers that is aimed at.

    Attributes:
        text: the ratio in words.
        figure: of which figure it is.
        of: the place above the line.
        to: the place below it.
        least: what it must reach, or None.
        most: what it must not exceed, or None.
    """

    text: str
    figure: str
    of: Place
    to: Place
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    def met(self, value: float) -> bool:
        """Say whether a ratio is as it should be."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


GOALS: Final = (
    Goal(
        text="kickserve / bare, throughput",
        figure="throughput",
        of=("kickserve", MANY),
        to=("bare", MANY),
        least=0.5,
    ),
    Goal(text="kickserve / bare, p99", figure="p99_ms", of=("kickserve", MANY), to=("bare", MANY), most=3),
    Goal(
        text="kickserve / bare, p50 of a lone connection",
        figure="p50_ms",
        of=("kickserve", 1),
        to=("bare", 1),
        most=1.6,
    ),
    Goal(
        text="kickserve / fastapi, throughput",
        figure="throughput",
        of=("kickserve", MANY),
        to=("fastapi", MANY),
        least=50,
    ),
    Goal(
        text="kickserve / litserve, throughput",
        figure="throughput",
        of=("kickserve", MANY),
        to=("litserve", MANY),
        least=20,
    ),
    Goal(
        text="forest, throughput of many / of one at a time",
        figure="throughput",
        of=("forest", MANY),
        to=("forest", 1),
        least=10,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A goal, and what came of it.

    Attributes:
        goal: which.
        value: the median of the rounds' ratios.
        lowest: the lowest of them.
        highest: the highest.
    """

    goal: Goal
    value: float
    lowest: float
    highest: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.goal.met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """Lay it out for a file."""
        of, to = (f"{server} at {connections}" for server, connections in (self.goal.of, self.goal.to))
        numbers = {"value": self.value, "lowest": self.lowest, "highest": self.highest}
        return {
            "ratio": self.goal.text,
            "of": of,
            "to": to,
            **numbers,
            "goal": self.goal.wanted,
            "met": self.met,
        }


def ratios(measurements: Sequence[Measurement]) -> list[Ratio]:
    """Return those ratios whose both sides were measured.

    Each is taken within a round, where both sides had the machine in much the same state, and only then the
    median: what slows down a whole round drops out.
    """
    by_round: dict[int, dict[Place, Measurement]] = {}
    for each in measurements:
        by_round.setdefault(each.round, {})[each.place] = each
    made = []
    for goal in GOALS:
        values = [value for turns in by_round.values() if (value := _ratio(goal, turns)) is not None]
        if values:
            made.append(Ratio(goal=goal, value=median(values), lowest=min(values), highest=max(values)))
    return made


def _ratio(goal: Goal, turns: Mapping[Place, Measurement]) -> float | None:
    if goal.of not in turns or goal.to not in turns:
        return None
    below = getattr(turns[goal.to], goal.figure)
    return getattr(turns[goal.of], goal.figure) / below if below else None


@dataclass
class Tally:
    """What a server answered, and what it stored.

    Attributes:
        server: its name.
        answered: answers that clients received.
        cut: answers that may have been on their way when the load ended: one a connection, each time.
        stored: rows in its database; None where it keeps nothing.
        errors: refusals, broken connections and timeouts.
        wrong: of tallies added up, how many did not agree: one's loss must not vanish in another's surplus.
    """

    server: str
    answered: int = 0
    cut: int = 0
    stored: int | None = None
    errors: int = 0
    wrong: int = 0

    def add(self, answered: int, *, cut: int = 0, errors: int = 0) -> None:
        """Count what was answered."""
        self.answered += answered
        self.cut += cut
        self.errors += errors

    @property
    def agrees(self) -> bool:
        """Whether all that was answered is stored, and nothing else but what was cut off."""
        return not self.wrong and (self.stored is None or 0 <= self.stored - self.answered <= self.cut)

    @property
    def passed(self) -> bool:
        """Whether it is as it should be."""
        return self.agrees and not self.errors


def merge(tallies: Iterable[Tally]) -> list[Tally]:
    """Add up the tallies of each server."""
    sums: dict[str, Tally] = {}
    for each in tallies:
        total = sums.setdefault(each.server, Tally(each.server))
        total.add(each.answered, cut=each.cut, errors=each.errors)
        total.wrong += not each.agrees
        if each.stored is not None:
            total.stored = (total.stored or 0) + each.stored
    return list(sums.values())
