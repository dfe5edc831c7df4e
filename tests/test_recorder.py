"""What was answered is kept: with the store there, away, and back again. The store is a real Postgres."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from conftest import running
from httpx import ASGITransport, AsyncClient
from serving import BARE, serving
from turns import counted_turns

from kickserve import recorder
from kickserve import store as retention
from kickserve.app import create_app
from kickserve.batching import cancel_task
from kickserve.journal import Group, Journal
from kickserve_testing.contract_samples import START, batch_at


@pytest.fixture
async def on_postgres(postgres_cluster, start, settings, monkeypatch):
    monkeypatch.setattr(recorder, "PATIENCE", 2.0)
    return await start(replace(settings, database_url=postgres_cluster.url, shutdown_timeout=1))


def client_of(app):
    return AsyncClient(transport=ASGITransport(app), base_url="http://test/api/v1")


async def eventually(check):
    """Wait until a check holds."""
    async with asyncio.timeout(20):
        while not await check():
            await asyncio.sleep(0.05)


async def stored_before_an_outage(client, cluster, kick):
    """Have a prediction stored, then stop the store; return the prediction's id."""
    first = (await client.post("/predict", json=kick)).json()["id"]
    assert (await client.get(f"/predictions/{first}")).status_code == 200
    await asyncio.to_thread(cluster.stop)
    return first


async def is_well(client):
    return (await client.get("/health")).json()["status"] == "ok"


async def is_degraded(client):
    return (await client.get("/health")).json()["status"] == "degraded"


async def test_with_the_store_away_clients_notice_nothing_and_all_is_there_afterwards(
    on_postgres, postgres_cluster, kick
):
    client = on_postgres
    first = await stored_before_an_outage(client, postgres_cluster, kick)

    away = [(await client.post("/predict", json=kick)).json()["id"] for _ in range(20)]
    await eventually(lambda: is_degraded(client))
    assert (await client.get("/health/ready")).status_code == 200

    # What is in the journal can be found, judged and deleted all the same.
    assert (await client.get(f"/predictions/{away[0]}")).json()["id"] == away[0]
    assert (await client.delete(f"/predictions/{away[1]}")).status_code == 204
    assert (await client.get(f"/predictions/{away[1]}")).status_code == 503
    assert (await client.put(f"/predictions/{away[2]}/outcome", json={"success": True})).status_code == 204
    assert (await client.get(f"/predictions/{away[2]}")).json()["outcome"] is True
    # What only the store knows can't.
    for response in [
        await client.get("/predictions"),
        await client.get(f"/predictions/{first}"),
        await client.delete(f"/predictions/{first}"),
        await client.get("/quality"),
    ]:
        assert response.status_code == 503
        assert response.headers["retry-after"]

    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    kept = {record["id"]: record for record in (await client.get("/predictions")).json()}
    assert set(kept) == {first, *away} - {away[1]}
    assert kept[away[2]]["outcome"] is True


async def test_a_service_that_starts_before_its_database_waits_for_it(
    postgres_cluster, start, settings, kick
):
    await asyncio.to_thread(postgres_cluster.stop)
    client = await start(replace(settings, database_url=postgres_cluster.url))
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    assert [record["id"] for record in (await client.get("/predictions")).json()] == [record_id]


async def test_what_could_not_be_stored_before_the_end_is_stored_by_the_next_start(
    postgres_cluster, settings, kick, caplog
):
    settings = replace(settings, database_url=postgres_cluster.url, shutdown_timeout=0.2)
    app = create_app(settings)
    async with (
        running(app),
        client_of(app) as client,
    ):
        await asyncio.to_thread(postgres_cluster.stop)
        record_id = (await client.post("/predict", json=kick)).json()["id"]
    assert "go to the store when kickserve starts again" in caplog.text.replace("\n", " ")
    await asyncio.to_thread(postgres_cluster.start)
    app = create_app(settings)
    async with (
        running(app),
        client_of(app) as client,
    ):
        await eventually(lambda: is_well(client))

        async def is_there():
            return (await client.get(f"/predictions/{record_id}")).status_code == 200

        await eventually(is_there)


async def test_a_journal_that_is_full_refuses_with_503_rather_than_lose(
    postgres_cluster, start, settings, kick
):
    client = await start(replace(settings, database_url=postgres_cluster.url, journal_max=5_000))
    await asyncio.to_thread(postgres_cluster.stop)
    responses = [await client.post("/predict", json=kick) for _ in range(40)]
    answered = [response.json()["id"] for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code != 200]
    assert answered
    assert {response.status_code for response in refused} == {503}
    assert refused[0].headers["retry-after"]
    assert "KICKSERVE_JOURNAL_MAX" in refused[0].json()["detail"]
    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    assert {record["id"] for record in (await client.get("/predictions")).json()} == set(answered)


async def test_a_batch_for_which_the_journal_has_no_room_leaves_nothing_behind_and_may_be_sent_again(
    start, settings, kick
):
    client = await start(replace(settings, journal_max=300_000))
    response = await client.post("/predict/batch", json=[kick] * 4_000)
    assert response.status_code == 503
    assert "480" in response.json()["detail"]
    assert (await client.get("/predictions")).json() == []
    assert (await client.post("/predict/batch", json=[kick] * 2_000)).status_code == 200


async def test_a_bug_in_a_store_ends_neither_the_writing_nor_the_service(client, kick, monkeypatch, caplog):
    store = client.app.state.service.store
    add, failures = store.add_batches, 0

    async def broken(records):
        nonlocal failures
        failures += 1
        if failures == 1:
            raise ZeroDivisionError
        await add(records)

    monkeypatch.setattr(store, "add_batches", broken)
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    await eventually(lambda: is_well(client))

    async def is_there():
        return await store.get(record_id) is not None

    await eventually(is_there)
    assert "in a way that it should not" in caplog.text


async def test_what_another_process_has_not_stored_yet_can_be_found(postgres_cluster, tmp_path, kick):
    environment = {**BARE, "DATABASE_URL": postgres_cluster.url}
    with serving(tmp_path, **environment) as one, serving(tmp_path, **environment) as other:
        async with AsyncClient(timeout=30) as client:
            await asyncio.to_thread(postgres_cluster.stop)
            record_id = (await client.post(f"{one.url}/predict", json=kick)).json()["id"]
            assert (await client.get(f"{other.url}/predictions/{record_id}")).json()["id"] == record_id
            assert (await client.delete(f"{other.url}/predictions/{record_id}")).status_code == 503
            await asyncio.to_thread(postgres_cluster.start)

            async def is_gone():
                return (await client.delete(f"{other.url}/predictions/{record_id}")).status_code == 204

            await eventually(is_gone)
        assert (one.end(), other.end()) == (0, 0)


async def test_old_predictions_are_removed_in_small_groups(client, start, settings, kick):
    await client.post("/predict/batch", json=[kick] * 2_500)
    assert len((await client.get("/predictions?limit=10000")).json()) == 2_500
    await asyncio.sleep(0.02)
    other = await start(replace(settings, retention=timedelta(milliseconds=1)))

    async def is_empty():
        return (await other.get("/predictions")).json() == []

    await eventually(is_empty)


async def test_a_bug_in_a_store_does_not_end_the_removal_of_old_predictions(
    start, settings, kick, monkeypatch
):
    monkeypatch.setattr(retention, "EVERY", 0.01)
    client = await start(replace(settings, retention=timedelta(milliseconds=1)))
    store = client.app.state.service.store
    purge, broken = store.purge, True

    async def purge_or_break(until, limit):
        if broken:
            raise ZeroDivisionError
        return await purge(until, limit)

    monkeypatch.setattr(store, "purge", purge_or_break)
    await client.post("/predict", json=kick)
    await asyncio.sleep(0.05)
    broken = False

    async def is_empty():
        return await store.count() == 0

    await client.get("/predictions")  # waits until it is in the store
    await eventually(is_empty)


async def test_the_event_loop_turns_while_records_are_made_of_large_batches(tmp_path):
    kept = []

    async def add(records):
        kept.extend(records)

    batches = [batch_at(START + at, 500) for at in range(4)]
    journal = Journal(tmp_path, limit=1)
    async with counted_turns() as turns:
        await recorder.Recorder(SimpleNamespace(add=add), journal, None, patience=1)._add(batches)
        assert len(turns) >= len(batches)
    assert kept == [record for batch in batches for record in batch.records()]


@pytest.mark.parametrize("turns", range(4))
async def test_the_writer_ends_also_where_something_comes_in_at_that_moment(client, monkeypatch, turns):
    own = client.app.state.service.recorder
    arrived, group = asyncio.Event(), Group([], None, 0, 0)

    async def take():
        await arrived.wait()
        arrived.clear()
        return group

    monkeypatch.setattr(own, "_take", take)
    await cancel_task(own._writer)
    own._writer = asyncio.create_task(own._write_all())
    await asyncio.sleep(0.01)
    arrived.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    own._writer.cancel()
    ended, _ = await asyncio.wait([own._writer], timeout=1)
    assert ended


async def test_outcomes_of_what_waits_in_the_journal_are_kept_all_or_none(
    on_postgres, postgres_cluster, kick
):
    client = on_postgres
    first = await stored_before_an_outage(client, postgres_cluster, kick)
    waiting = [each["id"] for each in (await client.post("/predict/batch", json=[kick] * 50)).json()]
    told = [{"id": each, "success": True} for each in waiting]
    assert (await client.put("/predictions/outcomes", json=told)).json() == {"kept": 50, "unknown": []}
    refused = [*({**each, "success": False} for each in told), {"id": first, "success": False}]
    assert (await client.put("/predictions/outcomes", json=refused)).status_code == 503
    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    kept = {record["id"]: record["outcome"] for record in (await client.get("/predictions")).json()}
    assert kept == {**dict.fromkeys(waiting, True), first: None}
