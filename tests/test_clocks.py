"""Clocks: set back and forth under a running service, in other zones, at the odd days of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import debian
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import BARE, serving

from kickserve.ids import first_id_at, instant
from kickserve.openapi import EXAMPLE
from kickserve_storage.postgres import PostgresStore
from kickserve_testing.contract import START, keep, record_at, some_records, streamed


@given(st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)), st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001 - hypothesis wants them bare
def test_an_instant_is_the_same_in_every_zone(moment, minutes):
    here = moment.replace(tzinfo=UTC)
    assert first_id_at(here.astimezone(timezone(timedelta(minutes=minutes)))) == first_id_at(here)


class Clock:
    """The clock of processes started with its environment, by libfaketime; time goes as fast as it does.

    Raises:
        debian.Missing: there is no libfaketime.
    """

    def __init__(self, folder):
        if not self._libraries() and not (debian.install("faketime") and self._libraries()):
            raise debian.Missing("no libfaketime: install Debian's package faketime")
        self._file = folder / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(self._libraries()[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    @staticmethod
    def _libraries():
        return [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]  # for programs with threads

    def set(self, days):
        """Set it so many days ahead of the real one, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{days * 86_400:+.3f}")
        new.replace(self._file)


def walked(client, path):
    """Return all ids from page to page."""
    seen = []
    while path:
        page = client.get(path)
        seen += [each["id"] for each in page.json()]
        path = page.links.get("next", {}).get("url")
    return seen


def test_a_running_service_follows_a_clock_that_is_set_back_and_forth(tmp_path):
    """In a zone with half an hour of summer time; its dates are in UTC all the same."""
    clock, answered, days = Clock(tmp_path), [], [0, 400, 399.9999, -30, -31, 0.0]
    zone = {"TZ": "Australia/Lord_Howe"}
    with serving(tmp_path, **BARE, **zone, **clock.environment) as server:
        with httpx.Client(base_url=server.url.removesuffix("/api/v1"), timeout=60) as http:
            for ahead in days:
                clock.set(ahead)
                expected = datetime.now(UTC) + timedelta(days=ahead)
                for _ in range(4):
                    found = http.post("/api/v1/predict", json=EXAMPLE)
                    answered.append(found.raise_for_status().json()["id"])
                kept = http.get(f"/api/v1/predictions/{answered[-1]}").json()
                made = datetime.fromisoformat(kept["created_at"])
                assert abs(made - expected) < timedelta(seconds=30)
                assert made.utcoffset() == timedelta(0)
            assert len(set(answered)) == len(answered)
            assert walked(http, "/api/v1/predictions?limit=3") == sorted(answered, reverse=True)
            since = (datetime.now(UTC) + timedelta(days=10)).isoformat()
            later = http.get("/api/v1/predictions", params={"since": since}).json()
            assert {each["id"] for each in later} == {*answered[4:12]}
        assert server.end() == 0


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"])
async def test_the_zone_of_a_postgres_session_changes_nothing(postgres_schema, zone):
    store = PostgresStore(f"{postgres_schema}&timezone={zone}")
    await store.open()
    try:
        border = round(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
        records = [record_at(border + at) for at in (-1, 0, 1)]
        await keep(store, records)
        assert await streamed(store) == records
        assert {each.created_at.utcoffset() for each in await store.page(3)} == {timedelta(0)}
        assert await store.page(9, since=instant(border)) == [records[2], records[1]]
        assert await store.drop_whole(instant(border)) == ["predictions_2023_12"]
    finally:
        await store.close()


@pytest.fixture
async def kept(client):
    """A client of a service that has three predictions, of three seconds."""
    records = some_records(3)
    await keep(client.app.store, records)
    return client, [record.id for record in records[::-1]]


async def asked(client, **query):
    response = await client.get("/predictions", params=query)
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()]


async def test_a_time_may_have_any_offset_and_the_two_hours_at_the_end_of_summer_differ(kept):
    client, ids = kept
    moment = instant(START) + timedelta(seconds=1)
    for text in ("+00:00", "+05:45", "-03:30", "+14:00", "-12:00"):
        sign = 1 if text[0] == "+" else -1
        away = timedelta(hours=int(text[1:3]), minutes=int(text[4:])) * sign
        text_there = (moment + away).replace(tzinfo=None).isoformat() + text
        assert await asked(client, since=text_there) == ids[:2]
        assert await asked(client, until=text_there) == ids[2:]
    first, second = "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"
    made = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    record = record_at(round(made.timestamp() * 1000))
    await keep(client.app.store, [record])
    assert await asked(client, since=first, until=second) == [record.id]
    assert await asked(client, since=second) == []


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z"])
async def test_a_time_that_no_calendar_of_ours_has_is_refused_by_name(client, name, text):
    response = await client.get("/predictions", params={name: text})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == name


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2024-02-29T23:59:59.999Z", "2000-02-29T00:00:00Z"),
        ("2016-12-31T23:59:59.999999Z", "2016-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ],
)
async def test_odd_days_and_the_borders_of_the_calendar_are_times(kept, since, until):
    client, ids = kept
    assert await asked(client, since=since) == ids
    assert await asked(client, until=until) == []
    assert await asked(client, until="9999-12-31T23:59:59-14:00") == ids
