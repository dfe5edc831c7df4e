"""Sends a million requests that are nearly right down all three ways to a prediction, and compares answers.

`just fuzz lane` (half an hour); `just fuzz lane --inputs 20000 --seed 7` some; `--sockets` over real sockets.
The fast lane, on uvicorn's connections and in the application, must answer to the byte what the router does,
but for ids and dates; count the same; and keep as many predictions. No answer may be a 5xx, and no request
may hang. Ends with 1 where one is otherwise, and prints the bytes that were sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import uvloop
from rich.console import Console
from rich.progress import Progress

from ops.fuzz.grammar import Grammar
from ops.fuzz.ways import WAYS, alike, running
from ops.fuzz.words import KEY, ORIGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.fuzz.ways import Way

TOGETHER: Final = 50  # conversations at a time
ROUND: Final = 25_000  # conversations before the stores begin anew
SHOWN: Final = 20
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Tally:
    """What was found."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.inputs = self.requests = self.kept = self.excused = 0
        self.statuses: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.started = time.perf_counter()

    def compare(self, sent: Sequence[bytes], answers: Sequence[bytes]) -> bool:
        """Take note of what the three ways answered; say whether that is as it should be."""
        found = [alike(each) for each in answers]
        statuses = [each.decode() for each in _STATUS.findall(answers[0])]
        self.inputs += 1
        self.requests += sum(status != "100" for status in statuses)
        self.statuses.update(statuses)
        wrong = found[0] != found[1] or found[0] != found[2] or b"HUNG" in found[0]
        if wrong or any(status >= "500" for status in statuses):
            self.find({"sent": [repr(each) for each in sent], "answers": [repr(each) for each in found]})
        return not wrong

    def excuse(self, answers: Sequence[bytes], patient: Sequence[bytes]) -> None:
        """Take back the last finding where only the moment made the difference.

        A request that breaks in its body may have been answered before (there is no such path) or not yet.
        All ways must answer as often, and alike when each segment waits for the answers before it.
        """
        if len({each.count(b"HTTP/1.1 ") for each in answers}) == len({alike(each) for each in patient}) == 1:
            self.findings.pop()
            self.excused += 1

    def find(self, finding: dict[str, Any]) -> None:
        """Take note of what must not be."""
        self.findings.append(finding)

    def summary(self) -> dict[str, Any]:
        """Return what it came to."""
        seconds = time.perf_counter() - self.started
        return {
            "seed": self.seed,
            "inputs": self.inputs,
            "answers": self.requests,
            "kept": self.kept,
            "statuses": dict(sorted(self.statuses.items())),
            "by_moment": self.excused,
            "found": len(self.findings),
            "seconds": round(seconds, 1),
            "inputs_a_second": round(self.inputs / seconds),
            "findings": self.findings[:SHOWN],
            "passed": not self.findings,
        }


async def fuzz(inputs: int, seed: int, *, sockets: bool = False, progress: Progress | None = None) -> Tally:
    """Send so many conversations.

    Args:
        inputs: how many.
        seed: of the grammar.
        sockets: whether over real sockets; otherwise bytes are fed to the connections in memory.
        progress: where to show how far it has come.
    """
    tally = Tally(seed)
    task = None if progress is None else progress.add_task("requests", total=inputs)
    for number, start in enumerate(range(0, inputs, ROUND)):
        cors = (ORIGIN,) if number % 2 else None  # pages of another origin ask in every other round
        with tempfile.TemporaryDirectory() as folder:
            async with running(Path(folder), api_key=KEY, cors_origins=cors) as ways:
                for at in range(start, min(start + ROUND, inputs), TOGETHER):
                    await _batch(ways, tally, Random(f"{seed} {at}"), sockets=sockets)  # noqa: S311  no secret
                    if progress is not None and task is not None:
                        progress.update(task, completed=tally.inputs)
                await _count(ways, tally)
    return tally


async def _batch(ways: list[Way], tally: Tally, random: Random, *, sockets: bool) -> None:
    grammar = Grammar(random)
    conversations = [grammar.conversation() for _ in range(TOGETHER)]
    answers = [
        await (way.answers_over_sockets(conversations) if sockets else way.answers(conversations))
        for way in ways
    ]
    for sent, answered in zip(conversations, zip(*answers, strict=True), strict=True):
        if not tally.compare(sent, answered) and len(sent) > 1 and not sockets:
            patient = [(await way.answers([sent], patiently=True))[0] for way in ways]
            tally.excuse(answered, patient)


async def _count(ways: list[Way], tally: Tally) -> None:
    counted = [{**way.counted(), "kept": await way.kept()} for way in ways]
    tally.kept += counted[0]["kept"]
    for name, each in zip(WAYS[1:], counted[1:], strict=True):
        if each != counted[0]:
            tally.find({"counted": counted[0], name: each})
        if each["kept"] != each["predictions"]:
            tally.find({"answered": each["predictions"], "kept": each["kept"], "way": name})


def main() -> None:
    """Read the arguments, run it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, help="connections, each with 1 to 6 requests"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same")
    parser.add_argument("--sockets", action="store_true", help="over real sockets: slower")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    console = Console(stderr=True)
    with (
        Progress(console=console, disable=arguments.json) as progress,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        tally = runner.run(
            fuzz(arguments.inputs, arguments.seed, sockets=arguments.sockets, progress=progress)
        )
    summary = tally.summary()
    print(json.dumps(summary, indent=None if arguments.json else 2))
    sys.exit(not summary["passed"])
