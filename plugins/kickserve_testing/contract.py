"""The contract of stores, as tests that a plugin runs against its own store.

    pytest.register_assert_rewrite("kickserve_testing.contract")  # in conftest.py: shows values

    from kickserve_testing.contract import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            store = MyStore(...)   # empty
            await store.open()
            yield store
            await store.close()

It needs pytest and pytest-asyncio, which kickserve itself does not install.
"""
# ruff: noqa: D102, PLR2004, S101 - tests: asserts, expected numbers, and names that say what they guard

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from msgspec.structs import replace

from kickserve.ids import instant
from kickserve.record import SetOutcome
from kickserve.store import LabelledPrediction
from kickserve_testing.contract_samples import (
    START,
    UNKNOWN,
    all_labelled,
    batch_at,
    expected_page,
    record_at,
    records_from,
    shadow_of,
    some_records,
    streamed,
)

if TYPE_CHECKING:
    from kickserve.schemas import Record
    from kickserve.store import Store


@pytest.mark.asyncio
class StoreContract:
    """Derive from it, name the class `Test…`, and give it a fixture `store`: open, and empty.

    Attributes:
        durable: whether records outlive `close`; false for a store in memory.
    """

    durable: ClassVar[bool] = True

    async def test_a_record_comes_back_as_it_went_in(self, store: Store) -> None:
        record = record_at(START)
        await store.add([record])
        assert await store.get(record.id) == record

    async def test_what_is_null_comes_back_as_null(self, store: Store) -> None:
        record = record_at(
            START, prediction=None, confidence=None, interval=None, status_code=500, error="broke"
        )
        await store.add([record])
        assert await store.get(record.id) == record

    async def test_flags_come_back_as_booleans_and_numbers_as_floats(self, store: Store) -> None:
        await store.add([record_at(START, outcome=True, outcome_at=instant(START))])
        [kept] = await store.page(1)
        assert (kept.is_left_footed, kept.game_away, kept.outcome) == (True, False, True)
        assert {type(kept.is_left_footed), type(kept.game_away), type(kept.outcome)} == {bool}
        assert type(kept.distance) is float

    async def test_instants_come_back_in_utc(self, store: Store) -> None:
        await store.add([record_at(START)])
        [kept] = await store.page(1)
        assert kept.created_at.utcoffset() == timedelta(0)

    async def test_text_of_any_script_and_odd_characters_can_be_kept(self, store: Store) -> None:
        await store.add([record_at(START, error="Fehler: κακὸν 🏉 'quoted' \"twice\" \\ %s $1 ?\n")])
        [kept] = await store.page(1)
        assert kept.error == "Fehler: κακὸν 🏉 'quoted' \"twice\" \\ %s $1 ?\n"

    async def test_text_that_no_database_holds_does_not_stop_the_rest(self, store: Store) -> None:
        await store.add([record_at(START, error="nul \0 and half a pair \ud800"), record_at(START + 1)])
        assert await store.count() == 2

    async def test_an_empty_group_is_fine(self, store: Store) -> None:
        await store.add([])
        assert await store.count() == 0

    async def test_adding_the_same_again_changes_nothing(self, store: Store) -> None:
        records = some_records(5)
        await store.add(records[:3])
        await store.set_outcome(records[0].id, success=True, at=instant(START))
        await store.add(records)
        assert await store.count() == len(records)
        first = await store.get(records[0].id)
        assert first is not None
        assert first.outcome is True

    async def test_an_id_twice_in_one_group_is_kept_once(self, store: Store) -> None:
        record = record_at(START)
        await store.add([record, record])
        assert await store.page(10) == [record]

    async def test_a_group_is_kept_whole_or_not_at_all(self, store: Store) -> None:
        good, bad = record_at(START), record_at(START + 1)
        bad.model = None  # type: ignore[assignment] # what no store may keep
        with pytest.raises(Exception, match=r"."):
            await store.add([good, bad])
        assert await store.count() == 0
        await store.add([good])
        assert await store.count() == 1

    async def test_a_large_group_is_kept(self, store: Store) -> None:
        records = some_records(7_000, step=1)
        await store.add(records)
        assert await store.count() == len(records)
        assert await store.page(10_000) == records[::-1]

    async def test_groups_added_at_once_are_all_kept(self, store: Store) -> None:
        records = some_records(200)
        await asyncio.gather(*(store.add(records[at : at + 20]) for at in range(0, 200, 10)))
        assert await streamed(store) == records

    async def test_an_unknown_id_is_none_and_false(self, store: Store) -> None:
        for unknown in (UNKNOWN, "no id at all", "", "'; DROP TABLE predictions; --", "\0"):
            assert await store.get(unknown) is None
            assert await store.delete(unknown) is False
            assert await store.set_outcome(unknown, success=True, at=instant(START)) is False

    async def test_a_deleted_record_is_gone_and_only_that(self, store: Store) -> None:
        records = some_records(3)
        await store.add(records)
        assert await store.delete(records[1].id) is True
        assert await store.get(records[1].id) is None
        assert await store.delete(records[1].id) is False
        assert await store.page(10) == [records[2], records[0]]

    async def test_pages_are_newest_first_also_within_a_millisecond(self, store: Store) -> None:
        records = [record_at(START, number=number) for number in (3, 1, 2, 0)]
        await store.add(records)
        assert [each.id[-1] for each in await store.page(10)] == ["3", "2", "1", "0"]

    async def test_pages_one_after_the_other_show_each_record_once(self, store: Store) -> None:
        records = some_records(25)
        await store.add(records)
        seen: list[Record] = []
        before = None
        while page := await store.page(10, before=before):
            seen += page
            before = page[-1].id
        assert seen == records[::-1]

    async def test_a_page_is_what_a_plain_search_finds_for_all_filters_together(self, store: Store) -> None:
        records = [record_at(START + at // 2, number=at % 2) for at in range(12)]
        await store.add(records)
        moments = (None, *(instant(START) + at * timedelta(microseconds=500) for at in range(-1, 14, 3)))
        befores = (None, records[0].id, records[5].id, records[-1].id, UNKNOWN)
        for limit, before, since, until in product((1, 4, 100), befores, moments, moments):
            page = await store.page(limit, before=before, since=since, until=until)
            assert page == expected_page(records, limit, before=before, since=since, until=until)

    async def test_a_stream_yields_everything_oldest_first_in_groups(self, store: Store) -> None:
        records = some_records(2_500)
        await store.add(records[1_000:])
        await store.add(records[:1_000])
        groups = [group async for group in store.stream()]
        assert [record for group in groups for record in group] == records
        assert len(groups) > 1
        assert all(groups)

    async def test_a_stream_keeps_to_its_time(self, store: Store) -> None:
        records = some_records(10)
        await store.add(records)
        assert await streamed(store, since=records[3].created_at) == records[3:]
        assert await streamed(store, until=records[3].created_at) == records[:3]
        assert await streamed(store, since=records[3].created_at, until=records[7].created_at) == records[3:7]
        assert await streamed(store, since=records[7].created_at, until=records[3].created_at) == []

    async def test_a_stream_of_nothing_yields_nothing(self, store: Store) -> None:
        assert [group async for group in store.stream()] == []

    async def test_a_stream_ends_although_records_keep_coming(self, store: Store) -> None:
        await store.add(some_records(3_000))
        coming = records_from(START + 10**9)
        seen = 0
        async for group in store.stream():
            seen += len(group)
            await store.add(list(islice(coming, 2_000)))
            assert seen <= 3_000, "it follows what is added after its start"
        assert seen == 3_000

    async def test_a_stream_left_early_holds_nothing_up(self, store: Store) -> None:
        records = some_records(1_500)
        await store.add(records)
        for _ in range(6):
            stream = store.stream()
            assert await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined] # an async generator in every store so far
        assert await store.count() == len(records)

    async def test_reading_and_writing_go_on_during_a_stream(self, store: Store) -> None:
        records = some_records(2_500)
        await store.add(records)
        async for _ in store.stream():
            await asyncio.wait_for(store.add([record_at(START - 1)]), 5)
            assert await asyncio.wait_for(store.get(records[0].id), 5) == records[0]

    async def test_an_outcome_is_kept_with_its_time_and_can_be_set_again(self, store: Store) -> None:
        record = record_at(START)
        await store.add([record])
        set_at = instant(START + 60_000)
        assert await store.set_outcome(record.id, success=True, at=set_at) is True
        assert await store.get(record.id) == replace(record, outcome=True, outcome_at=set_at)
        later = set_at + timedelta(hours=1)
        assert await store.set_outcome(record.id, success=False, at=later) is True
        assert await store.get(record.id) == replace(record, outcome=False, outcome_at=later)

    async def test_the_time_of_an_outcome_is_kept_to_the_millisecond(self, store: Store) -> None:
        record = record_at(START)
        await store.add([record])
        await store.set_outcome(record.id, success=True, at=instant(START) + timedelta(microseconds=1_999))
        kept = await store.get(record.id)
        assert kept is not None
        assert kept.outcome_at == instant(START + 1)

    async def test_outcomes_set_together_are_kept_as_one_by_one_and_the_unknown_are_named(
        self, store: Store
    ) -> None:
        records = some_records(1_200)
        await store.add(records)
        first, set_at = instant(START), instant(START + 60_000)
        gone = [record_at(START - at).id for at in range(1, 4)]
        outcomes = [
            *(SetOutcome(record.id, success=True, at=first) for record in records[:2]),
            *(
                SetOutcome(record.id, success=at % 3 == 0, at=set_at)
                for at, record in enumerate(records[:-1])
            ),
            *(SetOutcome(each, success=True, at=set_at) for each in gone),
            SetOutcome("no id", success=True, at=set_at),
        ]
        assert await store.set_outcomes(outcomes) == {*gone, "no id"}
        assert await streamed(store) == [
            *(
                replace(record, outcome=at % 3 == 0, outcome_at=set_at)
                for at, record in enumerate(records[:-1])
            ),
            records[-1],
        ]
        spelt = SetOutcome(records[-1].id.upper(), success=True, at=set_at)
        assert await store.set_outcomes([spelt]) == set()
        assert await store.get(records[-1].id) == replace(records[-1], outcome=True, outcome_at=set_at)
        assert await store.set_outcomes([]) == set()

    async def test_labelled_yields_predictions_with_an_outcome(self, store: Store) -> None:
        set_at = instant(START)
        shadow: dict[str, Any] = {"shadow_model": "it", "shadow_prediction": 0.5}
        await store.add(
            [
                record_at(START, prediction=0.25, outcome=False, outcome_at=set_at),
                record_at(START + 1),
                record_at(START + 2, prediction=None, outcome=True, outcome_at=set_at),
                record_at(START + 3, prediction=0.75, model="other", **shadow),
            ]
        )
        await store.set_outcome(record_at(START + 3).id, success=True, at=set_at)
        assert await all_labelled(store) == [
            LabelledPrediction(instant(START), "contract", 0.25, success=False),
            LabelledPrediction(
                instant(START + 3), "other", 0.75, success=True, shadow="it", shadow_prediction=0.5
            ),
        ]

    async def test_labelled_takes_a_model_and_times(self, store: Store) -> None:
        set_at = instant(START)
        records = [
            record_at(START + at, model="ab"[at % 2], prediction=at / 10, outcome=True, outcome_at=set_at)
            for at in range(10)
        ]
        await store.add(records)
        since, until = instant(START + 3), instant(START + 8)
        assert [each.prediction for each in await all_labelled(store, since=since, until=until)] == [
            record.prediction for record in records[3:8]
        ]
        assert {each.model for each in await all_labelled(store, model="b")} == {"b"}
        assert len(await all_labelled(store, model="b", since=since)) == 4
        assert await all_labelled(store, model="c") == []

    async def test_labelled_yields_several_groups(self, store: Store) -> None:
        set_at = instant(START)
        records = [record_at(START + at, outcome=at % 2 == 0, outcome_at=set_at) for at in range(10_500)]
        await store.add(records)
        groups = [group async for group in store.labelled()]
        assert len(groups) > 1
        assert [each.success for group in groups for each in group] == [record.outcome for record in records]

    async def test_purge_removes_the_oldest_up_to_its_limit(self, store: Store) -> None:
        records = some_records(10)
        await store.add(records)
        bound = records[6].created_at
        assert [await store.purge(bound, 4) for _ in range(3)] == [4, 2, 0]
        assert await streamed(store) == records[6:]

    async def test_the_store_answers_a_ping(self, store: Store) -> None:
        await store.ping()

    async def test_the_label_shows_no_password(self, store: Store) -> None:
        assert store.label
        assert "secret" not in store.label

    async def test_opening_again_keeps_what_is_there(self, store: Store) -> None:
        records = some_records(3)
        await store.add(records)
        await store.open()
        assert await store.count() == len(records)

    async def test_closing_twice_is_fine_and_what_was_kept_is_there_afterwards(self, store: Store) -> None:
        records = some_records(3)
        await store.add(records)
        await store.close()
        await store.close()
        await store.open()
        assert await store.page(10) == (records[::-1] if self.durable else [])

    async def test_a_write_cancelled_half_way_leaves_the_store_in_order(self, store: Store) -> None:
        records = some_records(3_000)
        for turns in range(1, 40, 3):
            task = asyncio.create_task(store.add(records))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await store.count() in (0, len(records))
        await store.add(records)
        assert await store.count() == len(records)
        assert await store.purge(datetime.now(UTC) + timedelta(days=10_000), 10_000) == len(records)

    async def test_batches_are_kept_as_their_records_are(self, store: Store) -> None:
        kick = (0.5, 31.5, 22.25, 12.0, 1 / 3, 1, 0, 1, 0, 1, 0)
        plain = (*kick, 0.75, math.nan, math.nan, 0.042)  # of a model that gives no interval
        failed = (*kick, math.nan, math.nan, math.nan, 0.0)
        batches = [
            *(batch_at(START + at, number) for at, number in enumerate((1, 63, 64, 65, 1, 300, 2_000))),
            batch_at(START + 10, 5, row=plain),
            batch_at(START + 11, 70),
            batch_at(START + 12, 2, row=failed, status_code=500, error="no \0 luck"),
            batch_at(START + 13, 3, model="a \0 name"),
            *(batch_at(START + at, 65, shadow=shadow_of(65)) for at in (14, 15)),
        ]
        for some in (batches[:3], batches[3:7], batches[7:8], batches[8:12], batches[12:], []):
            await store.add_batches(some)
        expected = [record for batch in batches for record in batch.records()]
        for record in expected:
            record.error = record.error and record.error.replace("\0", "\N{REPLACEMENT CHARACTER}")
            record.model = record.model.replace("\0", "\N{REPLACEMENT CHARACTER}")
        assert await streamed(store) == expected

    async def test_batches_kept_twice_change_nothing(self, store: Store) -> None:
        one, two = batch_at(START, 100), batch_at(START + 1, 100)
        await store.add_batches([one, one])
        await store.set_outcome(one.records()[0].id, success=True, at=instant(START))
        before = await streamed(store)
        await store.add(one.records())
        await store.add_batches([one])
        assert await streamed(store) == before
        await store.add_batches([two, one, batch_at(START + 2)])
        assert await store.count() == 201

    async def test_batches_are_all_kept_or_none(self, store: Store) -> None:
        good, bad = batch_at(START, 1_000), batch_at(START + 1, status_code="no number")
        with pytest.raises(Exception, match=r"."):
            await store.add_batches([good, bad])
        assert await store.count() == 0
        await store.add_batches([good])
        assert await store.count() == 1_000
