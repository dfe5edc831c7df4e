"""Records and batches for `contract`, and the answers that a store should give about them."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec.structs import replace

from kickserve.features import NAMES
from kickserve.ids import first_id_at, instant
from kickserve.record import NUMBER, RecordBatch, SetOutcome, ShadowAnswers, encode_learned, pack_learned
from kickserve.schemas import Learned, LearnedKicker, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from kickserve.store import KnownOutcome, LabelledPrediction, Store

START: Final = 1_790_000_000_000  # milliseconds since 1970
UNKNOWN: Final = "01900000-0000-7000-8000-000000000000"  # an id that none of these tests keeps


def record_at(millisecond: int, *, number: int = 0, **changes: Any) -> Record:
    """Make a record for tests.

    Args:
        millisecond: when the prediction was made, milliseconds since 1970.
        number: 0 to 4095; differs between records of the same millisecond.
        changes: fields that are to be otherwise.
    """
    made = instant(millisecond)
    record = Record(
        id=first_id_at(made)[:-12] + f"{number:012x}",
        created_at=made,
        time_norm=0.1 + 0.2,  # no short decimal: what comes back must be the same to the last bit
        distance=31.5,
        angle=22.25,
        wind_speed=12.0,
        precipitation_probability=1 / 3,
        is_left_footed=True,
        game_away=False,
        is_endgame=True,
        is_start=False,
        is_left_side=True,
        has_previous_attempts=False,
        prediction=0.8125,
        confidence=0.8125,
        interval=(0.7, 0.9),
        model="contract",
        revision="r1",
        latency_ms=0.042,
        cpu_percent=12.5,
        memory_mb=81.25,
    )
    return replace(record, **changes)


def batch_at(millisecond: int, number: int = 1, **changes: Any) -> RecordBatch:
    """Make predictions as the journal holds them, for tests.

    Args:
        millisecond: when they were made, milliseconds since 1970.
        number: how many.
        changes: fields that are to be otherwise; `row` for the fifteen numbers of each.
    """
    row = changes.pop("row", (0.5, 31.5, 22.25, 12.0, 1 / 3, 1, 0, 1, 0, 1, 0, 0.1 + 0.2, 0.25, 0.75, 0.042))
    numbers = np.tile(np.array(row, NUMBER), number).tobytes()
    batch = RecordBatch(millisecond, 16_380, "0123456789ab", "contract", "r1", 12.5, 81.25, numbers)
    return replace(batch, **changes)


def batch_of(record: Record) -> RecordBatch:
    """Return the batch that makes this record, one of `record_at`, but for its outcome."""
    answer = (
        math.nan if record.prediction is None else record.prediction,
        *(record.interval or [math.nan] * 2),
    )
    row = (*(getattr(record, name) for name in NAMES), *answer, record.latency_ms)
    shadow = None
    if record.shadow_prediction is not None:
        shadow = ShadowAnswers(
            str(record.shadow_model), str(record.shadow_revision), _packed(record.shadow_prediction)
        )
    made = RecordBatch(
        int(record.id[:8] + record.id[9:13], 16),
        0,
        record.id[-12:],
        record.model,
        record.revision,
        record.cpu_percent,
        record.memory_mb,
        np.array(row, NUMBER).tobytes(),
        record.status_code,
        record.error,
        shadow,
        record.source,
        None if record.kicker is None else [record.kicker],
        None
        if record.learned is None
        else pack_learned([encode_learned(record.learned).numbers], record.base or 0),
    )
    assert made.ids.texts() == [record.id]  # noqa: S101 - for tests
    return made


def _packed(number: float) -> bytes:
    return np.array([number], NUMBER).tobytes()


async def keep(store: Store, records: Sequence[Record]) -> None:
    """Add records of `record_at` to a store, with their outcomes."""
    await store.add([*map(batch_of, records)])
    known = [(each.id, each.outcome, each.outcome_at) for each in records]
    await store.set_outcomes([SetOutcome(each, won, at) for each, won, at in known if won is not None and at])


def shadow_of(number: int) -> ShadowAnswers:
    """Make what a second model says of that many kicks, for tests."""
    return ShadowAnswers("second", "r2", np.linspace(0, 1, number).astype(NUMBER).tobytes())


def learned_of(kicker: str | None, level: float = 0.0) -> Learned:
    """Make what was learned of a kicker, for tests; of the level alone for None."""
    named = kicker and LearnedKicker(name=kicker, outcomes=3, ability=0.1 + 0.2, low=-0.25, high=1 / 3)
    return Learned(level=level, kicker=named or None)


def records_from(start: int = START, *, step: int = 1_000) -> Iterator[Record]:
    """Make records without end, `step` milliseconds apart."""
    millisecond = start
    while True:
        yield record_at(millisecond)
        millisecond += step


def some_records(number: int, *, step: int = 1_000) -> list[Record]:
    """Make that many records, oldest first."""
    return list(islice(records_from(step=step), number))


def expected_page(
    records: Sequence[Record],
    limit: int,
    *,
    before: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Record]:
    """Answer `Store.page` from a list, the slow and plain way."""
    found = [
        record
        for record in sorted(records, key=lambda each: each.id, reverse=True)
        if (before is None or record.id < before)
        and (since is None or record.created_at >= since)
        and (until is None or record.created_at < until)
    ]
    return found[:limit]


async def streamed(
    store: Store, *, since: datetime | None = None, until: datetime | None = None, kicker: str | None = None
) -> list[Record]:
    """Collect all that a stream yields."""
    groups = store.stream(since=since, until=until, kicker=kicker)
    return [record async for group in groups for record in group]


async def all_labelled(store: Store, **filters: Any) -> list[LabelledPrediction]:
    """Collect all that `labelled` yields."""
    return [each async for group in store.labelled(**filters) for each in group]


async def all_known(store: Store, **filters: Any) -> list[KnownOutcome]:
    """Collect all that `known_outcomes` yields."""
    return [each async for group in store.known_outcomes(**filters) for each in group]
