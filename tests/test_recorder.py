"""Every answer is kept: with the store there, away, back again, or refusing. The store is a real Postgres."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from httpx import URL, ASGITransport, AsyncClient
from serving import BARE, eventually, serving

from kickserve import dead_letters, recorder
from kickserve import store as store_module
from kickserve.app import create_app
from kickserve.cli import run
from kickserve.dead_letters import DeadLetters
from kickserve.errors import RecordUnfit
from kickserve.ids import first_id_in
from kickserve.journal import FIRST, PREAMBLE, Journal, encode
from kickserve.plugins import Plugin, discover
from kickserve.record import NUMBER, WIDTH, Add, Delete
from kickserve.record import encode as encode_operation
from kickserve_storage.sqlite import SqliteStore
from kickserve_testing.app import running
from kickserve_testing.contract_samples import START, batch_at, shadow_of


@pytest.fixture
async def on_postgres(postgres_cluster, start, settings, monkeypatch):
    monkeypatch.setattr(recorder, "PATIENCE", 2.0)
    return await start(replace(settings, database_url=postgres_cluster.url, shutdown_timeout=1))


def client_of(app):
    return AsyncClient(transport=ASGITransport(app), base_url="http://localhost/api/v1")


async def is_well(client):
    return (await client.get("/health")).json()["status"] == "ok"


async def outcomes_in(client):
    """Return the outcome of each prediction that is kept."""
    records = (await client.get("/predictions?limit=10000")).json()
    return {record["id"]: record["outcome"] for record in records}


async def test_with_the_store_away_clients_notice_nothing_and_all_is_there_afterwards(
    on_postgres, postgres_cluster, kick
):
    client = on_postgres
    first = (await client.post("/predict", json=kick)).json()["id"]
    assert (await client.get(f"/predictions/{first}")).status_code == 200
    await asyncio.to_thread(postgres_cluster.stop)

    found, deleted, labelled, *others = [
        (await client.post("/predict", json=kick)).json()["id"] for _ in range(20)
    ]
    batch = [each["id"] for each in (await client.post("/predict/batch", json=[kick] * 50)).json()]

    async def is_degraded():
        return not await is_well(client)

    await eventually(is_degraded)
    assert (await client.get("/health/ready")).status_code == 200

    # Predictions in the journal can be found, given an outcome and deleted all the same.
    assert (await client.get(f"/predictions/{found}")).json()["id"] == found
    assert (await client.delete(f"/predictions/{deleted}")).status_code == 204
    assert (await client.get(f"/predictions/{deleted}")).status_code == 503
    assert (await client.put(f"/predictions/{labelled}/outcome", json={"success": True})).status_code == 204
    assert (await client.get(f"/predictions/{labelled}")).json()["outcome"] is True
    outcomes = [{"id": each, "success": True} for each in batch]
    answer = await client.put("/predictions/outcomes", json=outcomes)
    assert answer.json() == {"kept": 50, "unknown": []}
    # Others can't: many outcomes are set all or none.
    outcomes = [*({**each, "success": False} for each in outcomes), {"id": first, "success": False}]
    for response in [
        await client.get("/predictions"),
        await client.get(f"/predictions/{first}"),
        await client.delete(f"/predictions/{first}"),
        await client.get("/quality"),
        await client.put("/predictions/outcomes", json=outcomes),
    ]:
        assert response.status_code == 503
        assert response.headers["retry-after"]

    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    expected = {**dict.fromkeys([first, found, *others]), **dict.fromkeys([labelled, *batch], True)}
    assert await outcomes_in(client) == expected


async def test_a_label_that_is_forgotten_with_the_store_away_is_off_all_records_before(
    on_postgres, postgres_cluster, kick
):
    client, named = on_postgres, {**kick, "kicker": "Léo"}
    await client.post("/predict", json=named)
    assert len((await client.get("/predictions?kicker=Léo")).json()) == 1
    await asyncio.to_thread(postgres_cluster.stop)
    waiting = (await client.post("/predict", json=named)).json()["id"]
    assert (await client.get(f"/predictions/{waiting}")).json()["kicker"] == "Léo"
    assert await client.app.recorder.forget("Léo") is None
    assert (await client.get(f"/predictions/{waiting}")).json()["kicker"] is None
    later = (await client.post("/predict", json=named)).json()["id"]
    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    assert [each["id"] for each in (await client.get("/predictions?kicker=Léo")).json()] == [later]
    assert await client.app.recorder.forget("Léo") == 1


async def test_a_service_that_starts_before_its_database_finds_it_without_a_prediction(
    on_postgres, postgres_cluster, start
):
    await asyncio.to_thread(postgres_cluster.stop)
    client = await start(on_postgres.app.settings)
    assert not await is_well(client)
    assert (await client.get("/predictions")).status_code == 503
    await asyncio.to_thread(postgres_cluster.start)
    await eventually(lambda: is_well(client))
    assert (await client.get("/predictions")).json() == []


async def test_a_service_starts_before_its_database_and_the_next_one_stores_what_it_could_not(
    postgres_cluster, settings, kick, caplog
):
    settings = replace(settings, database_url=postgres_cluster.url, shutdown_timeout=0.2)
    await asyncio.to_thread(postgres_cluster.stop)
    app = create_app(settings)
    async with running(app), client_of(app) as client:
        record_id = (await client.post("/predict", json=kick)).json()["id"]
    assert "go to the store when kickserve starts again" in caplog.text.replace("\n", " ")
    app = create_app(settings)
    async with running(app), client_of(app) as client:
        await asyncio.to_thread(postgres_cluster.start)

        async def is_there():
            return await is_well(client) and await outcomes_in(client) == {record_id: None}

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
    assert (await outcomes_in(client)).keys() == {*answered}


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
    store = client.app.store
    add, failures = store.add, 0

    async def broken(records):
        nonlocal failures
        failures += 1
        if failures == 1:
            raise ZeroDivisionError
        await add(records)

    monkeypatch.setattr(store, "add", broken)
    record_id = (await client.post("/predict", json=kick)).json()["id"]
    await eventually(lambda: is_well(client))

    async def is_there():
        return await store.get(record_id) is not None

    await eventually(is_there)
    assert "with an unexpected error" in caplog.text


async def test_a_bug_in_a_plugin_on_the_way_to_the_store_loses_no_prediction(start, settings, kick, caplog):
    class Broken(Plugin):
        async def complete(self, batches):
            raise ZeroDivisionError(len(batches))

    client = await start(settings, plugins=[*discover(settings), Broken(settings)])
    made = (await client.post("/predict", json=kick)).json()
    assert (await client.get(f"/predictions/{made['id']}")).status_code == 200
    assert "stored without it" in caplog.text


async def test_what_another_process_has_not_stored_yet_can_be_found(postgres_cluster, tmp_path, kick):
    environment = {**BARE, "DATABASE_URL": postgres_cluster.url}
    with serving(tmp_path, **environment) as one, serving(tmp_path, **environment) as other:
        async with AsyncClient(timeout=60) as client:
            await asyncio.to_thread(postgres_cluster.stop)
            record_id = (await client.post(f"{one.url}/predict", json=kick)).json()["id"]
            assert (await client.get(f"{other.url}/predictions/{record_id}")).json()["id"] == record_id
            assert (await client.delete(f"{other.url}/predictions/{record_id}")).status_code == 503
            await asyncio.to_thread(postgres_cluster.start)

            async def is_gone():
                return (await client.delete(f"{other.url}/predictions/{record_id}")).status_code == 204

            await eventually(is_gone)
        assert (one.end(), other.end()) == (0, 0)


async def test_a_new_id_that_nobody_knows_is_503_until_its_process_must_have_stored_it(client, kick):
    """Another process may hold it; its journal may be on another machine."""
    young = first_id_in(time.time_ns() // 1_000_000 + 4_000)  # a clock may go a little ahead
    old, own = first_id_in(1_700_000_000_000), (await client.post("/predict", json=kick)).json()["id"]
    outcomes = [{"id": each, "success": True} for each in (own, young)]
    for method, path, body in [
        ("GET", f"/predictions/{young}", None),
        ("DELETE", f"/predictions/{young}", None),
        ("PUT", f"/predictions/{young}/outcome", {"success": True}),
        ("PUT", "/predictions/outcomes", outcomes),
    ]:
        response = await client.request(method, path, json=body)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "retry" in response.json()["detail"]
    assert (await client.delete(f"/predictions/{own}")).status_code == 204
    for known in (own, old):
        assert (await client.delete(f"/predictions/{known}")).status_code == 404
        assert (await client.get(f"/predictions/{known}")).status_code == 404


def listens(server):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", URL(server.url).port)) == 0


async def test_a_frozen_database_holds_up_neither_health_nor_the_end(postgres_cluster, tmp_path, kick):
    environment = {**BARE, "DATABASE_URL": postgres_cluster.url, "KICKSERVE_SHUTDOWN_TIMEOUT": "4"}
    sent = asyncio.Event()

    async def trace(event, _):
        if event == "http11.send_request_body.complete":
            sent.set()

    patient = {**environment, "KICKSERVE_SHUTDOWN_TIMEOUT": "600"}
    with serving(tmp_path, **environment) as server, serving(tmp_path, **patient) as other:
        async with AsyncClient(timeout=60) as client:
            with postgres_cluster.frozen():
                ids = {(await client.post(f"{server.url}/predict", json=kick)).json()["id"] for _ in range(5)}
                health = (await client.get(f"{server.url}/health")).json()
                assert "does not answer" in health["parts"]["store"]
                listing = asyncio.create_task(
                    client.get(f"{server.url}/predictions", extensions={"trace": trace})
                )
                await sent.wait()
                ids.add((await client.post(f"{other.url}/predict", json=kick)).json()["id"])
                other.process.send_signal(signal.SIGTERM)

                await eventually(lambda: not listens(other))
                assert await asyncio.to_thread(other.end) == 1  # at once, at the second signal
                assert await asyncio.to_thread(server.end) == 0
                assert (await listing).status_code == 503
    assert "wait in the journal" in "".join(server.log)
    assert "Traceback" not in "".join(server.log)
    with serving(tmp_path, **environment) as server:
        async with AsyncClient(timeout=60) as client:
            records = (await client.get(f"{server.url}/predictions")).json()
    assert {each["id"] for each in records} == ids


async def test_old_predictions_are_removed_in_small_groups_also_after_a_bug_in_the_store(
    client, start, settings, kick, monkeypatch
):
    monkeypatch.setattr(store_module, "EVERY", 0.01)
    await client.post("/predict/batch", json=[kick] * 2_500)
    assert len((await client.get("/predictions?limit=10000")).json()) == 2_500
    purge, failures = SqliteStore.purge, []

    async def fail_once(store, until, limit):
        if not failures:
            failures.append(ZeroDivisionError())
            raise failures[0]
        return await purge(store, until, limit)

    monkeypatch.setattr(SqliteStore, "purge", fail_once)
    other = await start(replace(settings, retention=timedelta(milliseconds=1)))

    async def is_empty():
        return (await other.get("/predictions")).json() == []

    await eventually(is_empty)
    assert failures


def with_unfit(batch, *places):
    """Return a batch in which kicks have a distance that is no number, which no store holds."""
    numbers = np.frombuffer(batch.numbers, NUMBER).reshape(-1, WIDTH).copy()
    numbers[list(places), 1] = math.nan
    return msgspec.structs.replace(batch, numbers=numbers.tobytes())


def lines_of(client):
    text = client.app.recorder.dead_letters.file.read_text()
    return [json.loads(line) for line in text.splitlines()]


async def test_what_does_not_fit_is_put_aside_and_all_others_are_stored(client, kick, caplog):
    own = client.app.recorder
    batches = [
        batch_at(START, 40),
        with_unfit(batch_at(START + 1, 50, shadow=shadow_of(50)), 17, 49),
        batch_at(START + 2),
    ]
    await own.keep(batches)
    ids = [record.id for batch in batches for record in batch.records()]
    unfit = {ids[40 + 17], ids[40 + 49]}
    behind = (await client.post("/predict", json=kick)).json()["id"]
    assert (await outcomes_in(client)).keys() == {*ids, behind} - unfit
    lines = lines_of(client)
    assert {line["refused"][0]["id"] for line in lines} == unfit
    assert all("distance" in line["reason"] for line in lines)
    assert "refused.jsonl" in caplog.text.replace("\n", "")
    assert client.app.metrics.read().counts["dead_letters"] == 2
    # /health reports it until a person moves the file away; clients notice nothing.
    health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "refused.jsonl" in health["parts"]["store"]
    assert (await client.get("/health/ready")).status_code == 200
    own.dead_letters.file.unlink()
    assert await is_well(client)


async def test_a_store_that_refuses_everything_is_waited_for(client, kick, monkeypatch):
    monkeypatch.setattr(dead_letters, "IN_A_ROW", 3)
    service = client.app
    add, broken = service.store.add, True

    async def refuse(batches):
        if broken:
            raise RecordUnfit("a rule of somebody else's")
        await add(batches)

    monkeypatch.setattr(service.store, "add", refuse)
    ids = [each["id"] for each in (await client.post("/predict/batch", json=[kick] * 20)).json()]

    async def the_reason_is_said():
        return "somebody else's" in (await client.get("/health")).json()["parts"]["store"]

    await eventually(the_reason_is_said)
    broken = False
    aside = {line["refused"][0]["id"] for line in lines_of(client)}

    async def the_others_are_there():
        return (await client.get("/predictions?limit=100")).status_code == 200

    await eventually(the_others_are_there)
    assert (await outcomes_in(client)).keys() == {*ids} - aside
    assert len(aside) == 3


async def test_what_cannot_be_put_aside_waits_in_the_journal(client, kick):
    own = client.app.recorder
    own.dead_letters.file.mkdir()
    await own.keep([with_unfit(batch_at(START), 0)])

    async def is_said():
        return "the dead letter can't be written" in (await client.get("/health")).json()["parts"]["store"]

    await eventually(is_said)
    behind = (await client.post("/predict", json=kick)).json()["id"]
    own.dead_letters.file.rmdir()

    async def is_there():
        return (await client.get("/predictions")).status_code == 200

    await eventually(is_there)
    assert await outcomes_in(client) == {behind: None}
    assert len(lines_of(client)) == 1


def test_an_operation_that_is_accepted_ends_the_row_of_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(dead_letters, "IN_A_ROW", 2)
    letters = DeadLetters(tmp_path)
    assert letters.state == "ok"
    one, reason = Delete("an id"), RecordUnfit("no")
    assert [letters.add(one, reason) for _ in range(3)] == [True, True, False]
    letters.accepted()
    assert letters.add(one, reason)
    assert len((tmp_path / "refused.jsonl").read_bytes().splitlines()) == 3


def test_recover_stores_dead_letters_and_what_is_whole_beside_damage(settings, monkeypatch, capsys):
    for name, value in settings.environ.items():
        monkeypatch.setenv(name, value)
    letters, damaged, after = (batch_at(START + each) for each in range(3))
    folder = Journal.from_settings(settings, settings.database_url).folder
    other = folder / "4711-0123abcd"
    other.mkdir(parents=True)
    other.joinpath("1.log").write_bytes(PREAMBLE + encode([b"of another version"]))
    DeadLetters(folder).add(Add(letters), RecordUnfit("a rule of somebody else's"))
    frames = [encode([encode_operation(Add(each))]) for each in (damaged, after)]
    # As the version before kept it.
    folder.joinpath("1-2.log.damaged").write_bytes(PREAMBLE + frames[0] + b"damage" + frames[1])
    with folder.joinpath("refused.jsonl").open("ab") as file:
        file.write(b"not JSON\n")
    assert run(["recover"]) == 3
    assert "refused.jsonl" in capsys.readouterr().out
    assert run(["export", "--output", "all.ndjson"]) == 0
    stored = [json.loads(line)["id"] for line in Path("all.ndjson").read_text().splitlines()]
    assert stored == [record.id for batch in (letters, damaged, after) for record in batch.records()]
    other, line = folder.joinpath("refused.jsonl").read_text().splitlines()
    assert other == "not JSON"
    assert "can't be read" in line
    [file] = folder.glob("*.damaged")
    assert file.read_bytes()[FIRST:] == b"damage"
    folder.joinpath("refused.jsonl").unlink()
    file.unlink()
    capsys.readouterr()
    assert run(["recover", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"operations": 0, "damaged": 0, "state": "ok"}


async def test_a_journal_of_the_version_before_is_drained(start, settings):
    """It holds a drained batch, three more (one with a shadow, one failed), an outcome and a deletion."""
    folder = Journal.from_settings(settings, settings.database_url).folder / "4711-0123abcd"
    folder.mkdir(parents=True)
    old = Path(__file__).parent / "old_journals" / "0.1.0.log"
    (folder / "01796070872879776696.log").write_bytes(old.read_bytes())
    client = await start(settings)

    async def has_drained():
        return not folder.exists()

    await eventually(has_drained)
    records = (await client.get("/predictions")).json()
    assert [(each["id"][9:23], each["outcome"], each["prediction"]) for each in records] == [
        ("6c03-7000-8000", None, None),
        ("6c02-7000-8001", None, 0.75),
        ("6c02-7000-8000", None, 0.75),
        ("6c01-7000-8002", None, 0.75),
        ("6c01-7000-8000", True, 0.75),
    ]
    assert [each["shadow_prediction"] for each in records] == [None, 0.5, 0.25, None, None]
    assert records[0]["status_code"] == 500
