"""The parts of a report: samples, kicks drawn back, which kicks are looked at."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from turns import counted_turns

from kickserve.batching import yield_to_loop
from kickserve.linear import load_default
from kickserve.openapi import EXAMPLE
from kickserve.schemas import Record
from kickserve_drift.kicks import Window, kept
from kickserve_drift.sampling import Sample, drawn_back
from kickserve_drift.window import Seen, chosen, newest_report

BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)


def record(number, model="m"):
    return Record(
        id=f"{number:08d}",
        created_at=BEGIN + timedelta(seconds=number),
        **EXAMPLE,
        prediction=0.7,
        confidence=0.7,
        interval=None,
        model=model,
        revision="r",
        latency_ms=0,
        cpu_percent=0,
        memory_mb=0,
    )


NEWEST_FIRST = [record(number, "m" if number % 2 else "n") for number in range(199, -1, -1)]


class Kept:
    """Pages of records, as a store gives them."""

    async def page(self, limit, *, before, since, until):
        del since, until
        return [each for each in NEWEST_FIRST if before is None or each.id < before][:limit]


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order():
    rows = np.arange(10_000.0)[:, None]
    samples = []
    for pieces in (rows[:4_000], rows[4_000:]), (rows[:4_000], rows[4_000:]):
        sample = Sample(500, 1, 7)
        for piece in pieces:
            sample.add(piece)
        samples.append(sample.rows())
    assert np.array_equal(*samples)
    assert len(samples[0]) == 500
    assert np.all(np.diff(samples[0][:, 0]) > 0)
    assert samples[0].mean() == pytest.approx(5_000, abs=500)


def test_few_rows_are_all_in_the_sample():
    sample = Sample(500, 1, 7)
    sample.add(np.arange(20.0)[:, None])
    assert sample.whole
    assert len(sample.rows()) == 20


def test_kicks_drawn_back_have_the_profiles_shares_and_quantiles():
    profile = load_default().profile
    rows = drawn_back(profile, 5_000, 0)
    assert rows[:, 5].mean() == pytest.approx(profile.shares["is_left_footed"], abs=2e-4)
    assert np.quantile(rows[:, 1], 0.5) == pytest.approx(profile.quantiles["distance"][7], rel=1e-3)
    assert np.quantile(rows[:, 11], 0.9) == pytest.approx(profile.prediction[11], rel=1e-3)


@pytest.mark.parametrize(
    ("seen", "count", "rule"),
    [
        (None, 200, "the newest"),
        (Seen("x", BEGIN, BEGIN + timedelta(seconds=99)), 100, "new since"),
        (Seen("x", BEGIN + timedelta(seconds=50), BEGIN + timedelta(seconds=190)), 150, "only 9 are new"),
        (Seen("x", BEGIN + timedelta(seconds=190), BEGIN + timedelta(seconds=195)), 200, "the newest"),
    ],
)
def test_what_is_new_is_looked_at_or_else_the_last_reports_kicks_again(seen, count, rule):
    choice = chosen(NEWEST_FIRST, seen)
    assert len(choice.records) == count
    assert rule in choice.rule


def test_a_report_of_other_kicks_or_a_broken_one_is_passed_over(tmp_path):
    at = BEGIN.isoformat()
    for name, value in {
        "1": {"details": {"current": {"place": "here", "first": at, "last": at}}},
        "2": {"details": {"current": {"place": "there", "first": at, "last": at}}},
    }.items():
        (tmp_path / f"drift-{name}.json").write_bytes(msgspec.json.encode(value))
    (tmp_path / "drift-3.json").write_text("{")
    assert newest_report(tmp_path, "here") == Seen("here", BEGIN, BEGIN)
    assert newest_report(tmp_path, "nowhere") is None


@pytest.mark.parametrize(
    ("window", "count"), [(Window(), 200), (Window(last=30), 30), (Window(last=30, model="n"), 30)]
)
async def test_kept_predictions_come_newest_first_page_by_page(window, count, monkeypatch):
    monkeypatch.setattr("kickserve_drift.kicks.PAGE", 16)
    found = [each async for group in kept(Kept(), window) for each in group]
    assert len(found) == count
    assert [each.id for each in found] == sorted((each.id for each in found), reverse=True)
    assert window.model is None or {each.model for each in found} == {window.model}


async def test_others_get_several_turns_after_one_of_a_stream():
    async with counted_turns() as turns:
        await asyncio.sleep(0)
        before = len(turns)
        await yield_to_loop()
    assert len(turns) - before >= 4
