"""Which kept predictions are evaluated where nobody says which: those that are new, or the newest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from kickserve.schemas import UNDECODABLE, Record
from kickserve_drift.drift import LEAST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NEWEST: Final = 1_000
"""Kept predictions that are looked at, at most, where nobody says which."""


class Seen(msgspec.Struct, frozen=True):
    """The kicks of a report.

    Attributes:
        place: where they were kept.
        first: when the oldest was predicted, UTC.
        last: when the newest was.
    """

    place: str = ""
    first: datetime | None = None
    last: datetime | None = None


class _Details(msgspec.Struct):
    current: Seen = Seen()


class _Report(msgspec.Struct):
    details: _Details = msgspec.field(default_factory=_Details)


class Choice(NamedTuple):
    """Some of the newest predictions, and why just these."""

    records: list[Record]
    rule: str


def newest_report(folder: Path, place: str) -> Seen | None:
    """Return what the newest report saw of the predictions that are kept in a place; None without one."""
    for path in sorted(folder.glob("drift-*.json"), reverse=True):
        try:
            seen = msgspec.json.decode(path.read_bytes(), type=_Report).details.current
        except (OSError, *UNDECODABLE):
            continue  # of somebody else, or of another version: it says nothing about these kicks
        if seen.place == place and seen.first and seen.last:
            return seen
    return None


def chosen(records: Sequence[Record], seen: Seen | None) -> Choice:
    """Choose among the newest predictions.

    What has come since the newest report is what a new one is about: far kicks must not hide among those that
    were looked at before. Where hardly anything has come, the same kicks are looked at again with what has.

    Args:
        records: the newest predictions, `NEWEST` at most.
        seen: what the newest report saw of them.
    """
    if seen is None or seen.first is None or seen.last is None:
        return Choice([*records], f"the newest, {NEWEST:,} at most")
    fresh = [each for each in records if each.created_at > seen.last]
    if len(fresh) >= LEAST:
        return Choice(fresh, f"new since the last report, {NEWEST:,} at most")
    again = [each for each in records if each.created_at >= seen.first]
    if len(again) >= LEAST:
        return Choice(again, f"those of the last report, as only {len(fresh)} are new")
    return Choice([*records], f"the newest, {NEWEST:,} at most")
