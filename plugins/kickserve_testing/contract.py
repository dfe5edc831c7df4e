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

from kickserve.errors import StoreUnavailable
from kickserve.ids import instant
from kickserve.record import NOTHING_LEARNED, SetOutcome, encode_learned, pack_learned
from kickserve.store import KnownOutcome, LabelledPrediction, Selection
from kickserve_testing.contract_samples import (
    START,
    UNKNOWN,
    all_known,
    all_labelled,
    batch_at,
    expected_page,
    keep,
    learned_of,
    record_at,
    records_from,
    shadow_of,
    some_records,
    streamed,
)

if TYPE_CHECKING:
    from kickserve.schemas import Record
    from kickserve.store import Order, Store

SET_AT = instant(START + 60_000)


@pytest.mark.asyncio
class StoreContract:
    """Derive from it, name the class `Test…`, and give it a fixture `store`: open, and empty.

    Attributes:
        durable: whether records outlive `close`; false for a store in memory.
    """

    durable: ClassVar[bool] = True

    async def test_a_record_comes_back_as_it_went_in(self, store: Store) -> None:
        record = record_at(START, outcome=True, outcome_at=SET_AT)
        await keep(store, [record])
        kept = await store.get(record.id)
        assert kept == record
        assert {type(kept.is_left_footed), type(kept.game_away), type(kept.outcome)} == {bool}
        assert type(kept.distance) is float
        assert kept.created_at.utcoffset() == timedelta(0)

    async def test_batches_are_kept_as_their_records_are(self, store: Store) -> None:
        kick = (0.5, 31.5, 22.25, 12.0, 1 / 3, 1, 0, 1, 0, 1, 0)
        plain = (*kick, 0.75, math.nan, math.nan, 0.042)  # of a model that gives no interval
        failed = (*kick, math.nan, math.nan, math.nan, 0.0)
        level, kicker = (
            pack_learned([encode_learned(learned_of(*each)).numbers, NOTHING_LEARNED.numbers], 1 / 3)
            for each in ((None, 0.5), ("Léo",))
        )
        error = "κακὸν 🏉 'quoted' \"twice\" \\ %s $1 ?\n"
        batches = [
            *(batch_at(START + at, number) for at, number in enumerate((1, 63, 64, 65, 1, 300, 7_000))),
            batch_at(START + 10, 5, row=plain),
            batch_at(START + 11, 70),
            batch_at(START + 12, 2, row=failed, status_code=500, error=error),
            *(batch_at(START + at, 65, shadow=shadow_of(65)) for at in (14, 15)),
            *(batch_at(START + at, 65, source=source) for at, source in ((16, "page"), (17, "batch"))),
            batch_at(START + 18, 65, kickers=[None, "Léo", *["O'Hara; --"] * 63]),
            batch_at(START + 19, 2, learned=level),
            batch_at(START + 20, 2, learned=kicker, kickers=["Léo", "Léo"]),
        ]
        for some in (batches[:3], batches[3:7], batches[7:8], batches[8:12], batches[12:], []):
            await store.add(some)
        assert await streamed(store) == [record for batch in batches for record in batch.records()]

    async def test_text_that_no_database_holds_does_not_stop_the_rest(self, store: Store) -> None:
        odd = "nul \0 and half a pair \ud800"
        await store.add([batch_at(START, error=odd, model=odd, revision=odd), batch_at(START + 1)])
        assert await store.count() == 2

    async def test_adding_the_same_again_changes_nothing(self, store: Store) -> None:
        one, two = batch_at(START, 100), batch_at(START + 1, 100)
        await store.add([one, one])
        await store.set_outcomes([SetOutcome(one.ids.texts()[0], success=True, at=SET_AT)])
        before = await streamed(store)
        await store.add([one])
        assert await streamed(store) == before
        await store.add([two, one, batch_at(START + 2)])
        assert await store.count() == 201

    async def test_batches_are_all_kept_or_none(self, store: Store) -> None:
        good, bad = batch_at(START, 1_000), batch_at(START + 1, status_code="no number")
        with pytest.raises(Exception, match=r"."):
            await store.add([good, bad])
        assert await store.count() == 0
        await store.add([good])
        assert await store.count() == 1_000

    async def test_groups_added_at_once_are_all_kept(self, store: Store) -> None:
        records = some_records(200)
        await asyncio.gather(*(keep(store, records[at : at + 20]) for at in range(0, 200, 10)))
        assert await streamed(store) == records

    async def test_an_unknown_id_is_none_and_false(self, store: Store) -> None:
        for unknown in (UNKNOWN, "no id at all", "", "'; DROP TABLE predictions; --", "\0"):
            assert await store.get(unknown) is None
            assert await store.delete(unknown) is False
            assert await store.set_outcomes([SetOutcome(unknown, success=True, at=SET_AT)]) == {unknown}

    async def test_a_deleted_record_is_gone_and_only_that(self, store: Store) -> None:
        records = some_records(3)
        await keep(store, records)
        assert await store.delete(records[1].id) is True
        assert await store.get(records[1].id) is None
        assert await store.delete(records[1].id) is False
        assert await store.page(10) == [records[2], records[0]]

    async def test_a_deleted_record_does_not_come_back_with_its_batch(self, store: Store) -> None:
        batch, later = batch_at(START, 300), batch_at(START + 1)
        await store.add([batch])
        gone, *rest = batch.ids.texts()
        assert await store.delete(gone) is True
        await store.add([later, batch])
        assert await store.get(gone) is None
        assert [record.id for record in await streamed(store)] == [*rest, *later.ids.texts()]
        assert await store.delete(gone) is False
        assert await store.was_deleted(gone) is True
        assert [await store.was_deleted(each) for each in (rest[0], UNKNOWN, "no id")] == [False] * 3

    async def test_a_forgotten_label_is_off_its_records_and_stays_off(self, store: Store) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        learned: dict[str, Any] = {"kicker": "Léo", "base": 0.5, "learned": learned_of("Léo", 0.25)}
        gone: dict[str, Any] = {"kicker": None, "learned": learned_of(None, 0.25)}
        first, second, late = (record_at(START + at, **learned) for at in range(3))
        other = record_at(START + 3, kicker="Leo")
        later = record_at(round(now.timestamp() * 1000), **learned)
        await keep(store, [first, second, other, later])
        assert await store.forget("Léo", now) == 2
        await keep(store, [late, first])  # from the journal of a process that died
        assert await streamed(store) == [
            *(replace(each, **gone) for each in (first, second, late)),
            other,
            later,
        ]
        assert [await store.forget(name, now) for name in ("Léo", "unknown", "'; --")] == [0, 0, 0]
        assert await store.forget("Léo", now + timedelta(milliseconds=1)) == 1
        assert await store.page(1) == [replace(later, **gone)]

    async def test_records_are_found_by_the_label_of_their_kicker(self, store: Store) -> None:
        records = [record_at(START + at, kicker=("Léo", "Owen", None)[at % 3]) for at in range(900)]
        await keep(store, records)
        assert await store.page(2, kicker="Owen", before=records[4].id) == [records[1]]
        assert await streamed(store, kicker="Léo", since=records[3].created_at) == records[3::3]
        assert await store.page(9, kicker="nobody") == await streamed(store, kicker="nobody") == []

    async def test_pages_are_newest_first_also_within_a_millisecond(self, store: Store) -> None:
        await keep(store, [record_at(START, number=number) for number in (3, 1, 2, 0)])
        assert [each.id[-1] for each in await store.page(10)] == ["3", "2", "1", "0"]

    async def test_pages_one_after_the_other_show_each_record_once(self, store: Store) -> None:
        records = some_records(25)
        await keep(store, records)
        seen: list[Record] = []
        before = None
        while page := await store.page(10, before=before):
            seen += page
            before = page[-1].id
        assert seen == records[::-1]

    async def test_a_page_is_what_a_plain_search_finds_for_all_filters_together(self, store: Store) -> None:
        records = [record_at(START + at // 2, number=at % 2) for at in range(12)]
        await keep(store, records)
        moments = (None, *(instant(START) + at * timedelta(microseconds=500) for at in range(-1, 14, 3)))
        befores = (None, records[0].id, records[5].id, records[-1].id, UNKNOWN)
        for limit, before, since, until in product((1, 4, 100), befores, moments, moments):
            page = await store.page(limit, before=before, since=since, until=until)
            assert page == expected_page(records, limit, before=before, since=since, until=until)

    async def test_a_stream_yields_everything_oldest_first_in_groups(self, store: Store) -> None:
        assert [group async for group in store.stream()] == []
        records = some_records(2_500)
        await keep(store, records[1_000:])
        await keep(store, records[:1_000])
        groups = [group async for group in store.stream()]
        assert [record for group in groups for record in group] == records
        assert len(groups) > 1
        assert all(groups)

    async def test_a_stream_keeps_to_its_time(self, store: Store) -> None:
        records = some_records(10)
        await keep(store, records)
        assert await streamed(store, since=records[3].created_at) == records[3:]
        assert await streamed(store, until=records[3].created_at) == records[:3]
        assert await streamed(store, since=records[3].created_at, until=records[7].created_at) == records[3:7]
        assert await streamed(store, since=records[7].created_at, until=records[3].created_at) == []

    async def test_a_stream_ends_although_records_keep_coming_and_are_removed(self, store: Store) -> None:
        await keep(store, some_records(3_000))
        coming = records_from(START + 10**9)
        seen = 0
        async for group in store.stream():
            seen += len(group)
            await keep(store, list(islice(coming, 2_000)))
            assert seen <= 3_000, "it follows what is added after its start"
        assert seen == 3_000
        stream = store.stream()
        await anext(stream)
        while await store.purge(datetime.now(UTC) + timedelta(days=10_000), 10_000):
            pass
        assert len([group async for group in stream]) <= 1

    async def test_streams_left_early_hold_nothing_up(self, store: Store) -> None:
        records = some_records(1_500)
        await keep(store, records)
        streams = [store.stream() for _ in range(6)]
        for stream in streams:
            assert await anext(stream)
        assert await asyncio.wait_for(store.get(records[0].id), 5) == records[0]
        await asyncio.wait_for(keep(store, [record_at(START - 1)]), 5)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined] # an async generator in every store so far
        assert await store.count() == len(records) + 1

    async def test_an_outcome_is_kept_with_its_time_to_the_millisecond_and_can_be_set_again(
        self, store: Store
    ) -> None:
        record = record_at(START)
        await keep(store, [record])
        for success, at in ((True, SET_AT), (False, SET_AT + timedelta(hours=1))):
            outcome = SetOutcome(record.id, success=success, at=at + timedelta(microseconds=999))
            assert await store.set_outcomes([outcome]) == set()
            assert await store.get(record.id) == replace(record, outcome=success, outcome_at=at)

    async def test_an_outcome_that_is_taken_back_leaves_nothing_and_can_be_set_again(
        self, store: Store
    ) -> None:
        record = record_at(START)
        await keep(store, [record])
        for success, at in ((True, SET_AT), (None, None), (False, SET_AT + timedelta(seconds=2))):
            outcome = SetOutcome(record.id, success=success, at=at or SET_AT + timedelta(seconds=1))
            assert await store.set_outcomes([outcome]) == set()
            assert await store.get(record.id) == replace(record, outcome=success, outcome_at=at)

    async def test_records_are_sought_sorted_and_counted(self, store: Store) -> None:
        known: dict[str, Any] = {"outcome_at": SET_AT}
        records = [
            record_at(START, prediction=0.9, distance=20.0, outcome=True, kicker="Léo", **known),
            record_at(START + 1, prediction=0.2, distance=50.0, outcome=False, **known),
            record_at(START + 2, prediction=0.9, distance=30.0, kicker="Léo", source="page"),
            record_at(START + 3, prediction=None, distance=40.0),
        ]
        await keep(store, records)
        one, two, three, four = [await store.get(each.id) for each in records]
        for wanted, found in (
            (Selection(), [four, three, two, one]),
            (Selection(outcome="open"), [four, three]),
            (Selection(outcome="scored"), [one]),
            (Selection(outcome="missed"), [two]),
            (Selection(kicker="Léo"), [three, one]),
            (Selection(kicker="Léo", source="page", outcome="open"), [three]),
            (Selection(newest=records[2].id), [three, two, one]),
            (Selection(after=records[1].id), [four, three]),
            (Selection(since=instant(START + 1), until=instant(START + 3)), [three, two]),
            (Selection(kicker="'; --"), []),
        ):
            assert await store.search(wanted, 9) == found
            assert await store.count(wanted) == len(found)
        orders: dict[Order, list[Record | None]] = {
            "newest": [four, three, two, one],
            "oldest": [one, two, three, four],
            "likeliest": [three, one, two, four],
            "unlikeliest": [two, three, one, four],
            "furthest": [two, four, three, one],
        }
        for order, sorted_records in orders.items():
            assert await store.search(Selection(), 2, order=order) == sorted_records[:2]
            assert await store.search(Selection(), 2, offset=2, order=order) == sorted_records[2:]
        assert await store.count(Selection(), most=3) == 3

    async def test_an_earlier_outcome_never_replaces_a_later_one(self, store: Store) -> None:
        record, other = some_records(2)
        await keep(store, [record, other])
        later = SetOutcome(record.id, success=True, at=SET_AT)
        earlier = SetOutcome(record.id, success=False, at=SET_AT - timedelta(milliseconds=1))
        known = SetOutcome(other.id, success=False, at=SET_AT)
        assert await store.set_outcomes([later]) == set()
        for outcomes in ([earlier, known], [later, earlier, earlier]):
            assert await store.set_outcomes(outcomes) == set()
            assert await store.get(record.id) == replace(record, outcome=True, outcome_at=SET_AT)
        assert await store.get(other.id) == replace(other, outcome=False, outcome_at=SET_AT)

    async def test_outcomes_set_together_are_kept_as_one_by_one_and_the_unknown_are_named(
        self, store: Store
    ) -> None:
        records = some_records(1_200)
        await keep(store, records)
        gone = [record_at(START - at).id for at in range(1, 4)]
        outcomes = [
            *(SetOutcome(record.id, success=True, at=instant(START)) for record in records[:2]),
            *(
                SetOutcome(record.id, success=at % 3 == 0, at=SET_AT)
                for at, record in enumerate(records[:-1])
            ),
            *(SetOutcome(each, success=True, at=SET_AT) for each in (*gone, "no id")),
        ]
        assert await store.set_outcomes(outcomes) == {*gone, "no id"}
        assert await streamed(store) == [
            *(
                replace(record, outcome=at % 3 == 0, outcome_at=SET_AT)
                for at, record in enumerate(records[:-1])
            ),
            records[-1],
        ]
        spelt = SetOutcome(records[-1].id.upper(), success=True, at=SET_AT)
        assert await store.set_outcomes([spelt]) == set()
        assert await store.get(records[-1].id) == replace(records[-1], outcome=True, outcome_at=SET_AT)
        assert await store.set_outcomes([]) == set()

    async def test_labelled_yields_predictions_with_an_outcome(self, store: Store) -> None:
        known: dict[str, Any] = {"outcome": True, "outcome_at": SET_AT}
        shadow: dict[str, Any] = {"shadow_model": "it", "shadow_revision": "r", "shadow_prediction": 0.5}
        further: dict[str, Any] = {"source": "page", "base": 0.625, "learned": learned_of(None, 0.5)}
        records = [
            record_at(START, prediction=0.25, outcome=False, outcome_at=SET_AT),
            record_at(START + 1),
            record_at(START + 2, prediction=None, interval=None, **known),
            record_at(START + 3, prediction=0.75, model="other", **known, **shadow, **further),
        ]
        await keep(store, records)
        first = LabelledPrediction(instant(START), "contract", 0.25, success=False)
        last = LabelledPrediction(
            instant(START + 3),
            "other",
            0.75,
            success=True,
            shadow="it",
            shadow_prediction=0.5,
            source="page",
            base=0.625,
        )
        assert await all_labelled(store) == [first, last]
        assert await all_labelled(store, model="other") == [last]
        assert await all_labelled(store, model="none") == []
        assert await all_labelled(store, since=instant(START + 1)) == [last]
        assert await all_labelled(store, until=instant(START + 3)) == [first]

    async def test_labelled_yields_several_groups(self, store: Store) -> None:
        records = [record_at(START + at, outcome=at % 2 == 0, outcome_at=SET_AT) for at in range(10_500)]
        await keep(store, records)
        groups = [group async for group in store.labelled()]
        assert len(groups) > 1
        assert [each.success for group in groups for each in group] == [record.outcome for record in records]

    async def test_known_outcomes_come_in_the_order_in_which_they_became_known(self, store: Store) -> None:
        known = [(7, True), (3, False), (9, True), (3, True)]  # seconds after SET_AT
        records = [
            record_at(START + at, outcome=success, outcome_at=SET_AT + timedelta(seconds=seconds))
            for at, (seconds, success) in enumerate(known)
        ]
        records[1] = replace(records[1], kicker="Ann", base=0.7, learned=learned_of("Ann"))
        records[2] = replace(records[2], revision="r2", source="page")
        broken = record_at(START + 9, prediction=None, interval=None, outcome=True, outcome_at=SET_AT)
        await keep(store, [*records, broken, record_at(START + 10)])
        expected = [
            KnownOutcome(SET_AT + timedelta(seconds=3), "r1", 0.7, "Ann", success=False, prediction=0.8125),
            KnownOutcome(SET_AT + timedelta(seconds=3), "r1", 0.8125, None, success=True, prediction=0.8125),
            KnownOutcome(SET_AT + timedelta(seconds=7), "r1", 0.8125, None, success=True, prediction=0.8125),
            KnownOutcome(
                SET_AT + timedelta(seconds=9),
                "r2",
                0.8125,
                None,
                success=True,
                prediction=0.8125,
                source="page",
            ),
        ]
        assert await all_known(store) == expected
        assert await all_known(store, revision="r1") == expected[:3]
        assert await all_known(store, since=expected[2].at) == expected[2:]

    async def test_many_known_outcomes_come_in_groups_also_of_one_instant(self, store: Store) -> None:
        records = [record_at(START + at, outcome=at % 3 == 0, outcome_at=SET_AT) for at in range(2_500)]
        await keep(store, records)
        groups = [group async for group in store.known_outcomes()]
        assert len(groups) > 1
        assert [each.success for group in groups for each in group] == [record.outcome for record in records]

    async def test_whatever_changes_known_outcomes_is_noticed_with_its_earliest_instant(
        self, store: Store
    ) -> None:
        times = [SET_AT + timedelta(minutes=at) for at in range(6)]
        records = [
            record_at(START + at, outcome=True, outcome_at=moment, kicker="Ann" if at == 4 else None)
            for at, moment in enumerate(times)
        ]
        await keep(store, [*records[1:], record_at(START)])
        mark, first = await store.outcome_changes()
        assert first is not None
        assert first <= times[0]

        async def change() -> datetime | None:
            nonlocal mark
            mark, first = await store.outcome_changes(mark)
            return first

        assert await change() is None
        late = SetOutcome(records[0].id, success=False, at=times[0])
        await store.set_outcomes([late])
        assert await change() == times[0]
        later = [SetOutcome(record.id, success=False, at=times[5]) for record in records[2:4]]
        await store.set_outcomes(later)
        assert await change() == times[2]
        await store.forget("Ann", datetime.now(UTC) + timedelta(days=10_000))
        assert await change() == times[4]
        await store.delete(records[1].id)
        assert await change() == times[1]
        await store.add([batch_at(START + 60_000)])
        await store.delete(batch_at(START + 60_000).ids.texts()[0])
        assert await change() is None, "neither had an outcome"
        await store.purge(instant(START + 1), 10)
        assert await change() == times[0]
        assert await change() is None

    async def test_purge_removes_the_oldest_up_to_its_limit(self, store: Store) -> None:
        records = some_records(10)
        await keep(store, records)
        bound = records[6].created_at
        assert [await store.purge(bound, 4) for _ in range(3)] == [4, 2, 0]
        assert await streamed(store) == records[6:]

    async def test_the_store_answers_a_ping_and_its_label_shows_no_password(self, store: Store) -> None:
        await store.ping()
        assert store.label
        assert "secret" not in store.label

    async def test_what_was_kept_is_there_when_it_is_opened_again(self, store: Store) -> None:
        records = some_records(3)
        await keep(store, records)
        await store.open()
        assert await store.count() == len(records)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match=r"open\(\) first"):
            await store.count()
        await store.open()
        assert await store.page(10) == (records[::-1] if self.durable else [])

    async def test_a_write_cancelled_half_way_leaves_the_store_in_order(self, store: Store) -> None:
        batches = [batch_at(START + at, 100) for at in range(30)]
        for turns in range(1, 40, 3):
            task = asyncio.create_task(store.add(batches))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await store.count() in (0, 3_000)
        await store.add(batches)
        assert await store.count() == 3_000
