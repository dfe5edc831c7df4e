"""Tells how far a report has come: a bar for a person, lines of JSON for the service that started it."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kickserve.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tell = Callable[[str, float], None]

STAGES = {"reading": (0.0, 0.6), "drawing": (0.6, 0.95), "writing": (0.95, 1.0)}
"""The stages, and which part of the whole each is."""


@contextmanager
def as_bar() -> Iterator[Tell]:
    """Show a bar on the standard error, where that is a terminal."""
    with progress(shares=True) as bar:
        task = bar.add_task("reading", total=1.0)

        def tell(stage: str, part: float) -> None:
            bar.update(task, description=stage, completed=_done(stage, part))

        yield tell


@contextmanager
def as_lines() -> Iterator[Tell]:
    """Write one JSON object a line to the standard error."""
    reached = -1.0

    def tell(stage: str, part: float) -> None:
        nonlocal reached
        done = round(_done(stage, part), 3)
        if done > reached:
            reached = done
            line(stage=stage, done=done)

    yield tell


def line(**values: object) -> None:
    """Write a line of JSON to the standard error, at once."""
    sys.stderr.write(json.dumps(values) + "\n")
    sys.stderr.flush()


def _done(stage: str, part: float) -> float:
    begins, ends = STAGES[stage]
    return begins + (ends - begins) * min(max(part, 0.0), 1.0)
