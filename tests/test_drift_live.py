"""The live figures: of the newest kicks, of all workers, from the start, in memory that does not grow."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from serving import serving

from kickserve.errors import StoreUnavailable
from kickserve.features import named
from kickserve.linear import load_default
from kickserve.model import HasProfile
from kickserve.record import RecordBatch
from kickserve_data.simulate import simulate
from kickserve_drift import live as live_module
from kickserve_drift.board import SECONDS, Board
from kickserve_drift.drift import LEAST, Limits
from kickserve_drift.drift_bins import COLUMNS, WIDTH, Counts
from kickserve_drift.live import Live


def kicks(size, seed, **arguments):
    return [named(row) for row in simulate(size, seed, **arguments).matrix.tolist()]


def drifted(summary):
    return {each["name"] for each in [*summary["features"], summary["prediction"]] if each["drifted"]}


async def ready(client):
    """Wait until the plugin knows what the model knows."""
    async with asyncio.timeout(10):
        while (await client.get("/drift")).status_code != 200:
            await asyncio.sleep(0.02)


async def test_with_too_few_kicks_it_is_said_how_many_it_takes(client):
    await client.post("/predict/batch", json=kicks(LEAST - 1, 1))
    response = await client.get("/drift")
    assert response.status_code == 409
    assert "fewer than 50" in response.json()["detail"]


async def test_usual_kicks_have_not_drifted_and_far_ones_have(client):
    await client.post("/predict/batch", json=kicks(600, 1))
    await ready(client)
    summary = (await client.get("/drift")).json()
    assert (summary["kicks"], summary["drifted"], drifted(summary)) == (600, False, set())
    assert summary["model"] == "simulated"
    assert summary["report"] is None
    await client.post("/predict/batch", json=kicks(2_000, 1, min_distance=40))
    summary = (await client.get("/drift")).json()
    assert summary["drifted"]
    assert drifted(summary) >= {"distance", "prediction"}


async def test_kicks_that_come_one_by_one_are_counted_too(client):
    for kick in kicks(LEAST, 2):
        await client.post("/predict", json=kick)
    await ready(client)
    assert (await client.get("/drift")).json()["kicks"] == LEAST


async def test_the_limits_are_those_of_the_settings(start, settings):
    client = await start(replace(settings, drift_psi=9.0, drift_share=0.01))
    await client.post("/predict/batch", json=kicks(600, 1, min_distance=40))
    await ready(client)
    summary = (await client.get("/drift")).json()
    assert {each["limit"] for each in summary["features"]} == {9.0}
    assert summary["limit"] == 0.01
    assert not summary["drifted"]


async def test_the_key_guards_all_of_it(start, settings):
    client = await start(replace(settings, api_key="sesame"))
    for method, path in [("GET", ""), ("POST", "/reports"), ("GET", "/reports"), ("GET", "/reports/x.html")]:
        assert (await client.request(method, f"/drift{path}")).status_code == 401
    assert (await client.get("/drift/reports", headers={"X-API-Key": "sesame"})).status_code == 200


async def test_a_new_start_takes_up_the_newest_kicks_of_the_store(start, settings):
    client = await start(settings)
    await client.post("/predict/batch", json=kicks(400, 1, min_distance=40))
    await client.get("/predictions")  # brings them to the store
    client = await start(replace(settings, journal_dir=settings.journal_dir / "other"))
    await ready(client)
    summary = (await client.get("/drift")).json()
    assert summary["kicks"] == 400
    assert summary["drifted"]


async def test_prometheus_reads_the_figures(client):
    await client.post("/predict/batch", json=kicks(600, 1, min_distance=40))
    await ready(client)
    text = (await client.get("http://test/metrics")).text
    samples = {
        (sample.name, sample.labels.get("feature")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["kickserve_drift_psi", "distance"] > 1 > samples["kickserve_drift_psi", "game_away"]
    assert {feature for name, feature in samples if name == "kickserve_drift_psi"} == {*COLUMNS}
    assert samples["kickserve_drift_kicks", None] == 600
    assert samples["kickserve_drift_drifted", None] == 1


async def test_the_api_documents_its_calls(client):
    paths = (await client.get("http://test/docs/openapi.json")).json()["paths"]
    assert {"/api/v1/drift", "/api/v1/drift/reports", "/api/v1/drift/reports/{name}"} <= {*paths}
    assert "202" in paths["/api/v1/drift/reports"]["post"]["responses"]


async def test_a_model_that_is_changed_starts_anew(start, settings):
    document = load_default().document
    client = await start(settings)
    await client.post("/predict/batch", json=kicks(600, 1))
    await ready(client)
    plugin = next(each for each in client.app.plugins if hasattr(each, "drift"))
    changed = load_default()
    profile = document.reference
    quantiles = {**profile.quantiles, "distance": [each + 20 for each in profile.quantiles["distance"]]}
    moved = type(profile)(
        count=profile.count,
        levels=profile.levels,
        quantiles=quantiles,
        shares=profile.shares,
        prediction=profile.prediction,
    )
    changed.document = type(document)(
        **{each: getattr(document, each) for each in document.__struct_fields__} | {"reference": moved}
    )
    assert isinstance(changed, HasProfile)
    live = plugin._live
    await live._learn(changed)
    assert live.summary(Limits()) is None  # what was counted by the other reference doesn't count
    live.watch(batch_of(600, 1))
    assert {each.name for each in live.summary(Limits()).features if each.drifted} == {"distance"}


async def test_a_model_that_can_not_be_read_leaves_the_figures_out_and_nothing_waits(caplog):
    class Broken:
        card = load_default().card
        profile = None

        def predict(self, _):
            raise ArithmeticError("no")

    live = Live(500)
    await live._learn(Broken())
    assert "no live figures of drift" in caplog.text
    live.watch(batch_of(100, 1))
    assert live.summary(Limits()) is None
    assert live._waiting == []


def batch_of(size, seed):
    matrix = simulate(size, seed).matrix
    answer = load_default().predict(matrix)
    numbers = np.column_stack([matrix, answer.probability, answer.low, answer.high, np.ones(size)])
    return RecordBatch(1_795_000_000_000, 0, "x", "simulated", "1", 0.0, 0.0, numbers.tobytes())


async def test_a_store_that_is_away_at_the_start_leaves_the_figures_empty(
    start, settings, caplog, monkeypatch
):
    caplog.set_level("INFO")
    client = await start(settings)
    service = client.app.state.service

    async def page(*_, **__):
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(service.store, "page", page)
    live = Live(500)
    await live.begin(service)
    assert "begin with no kick: the store is away" in caplog.text
    live.watch(batch_of(LEAST, 1))
    assert live.summary(Limits()).kicks == LEAST


async def test_what_is_much_is_counted_at_once_and_by_the_model_that_answers_now(start, settings):
    client = await start(settings)
    service = client.app.state.service
    live = Live(500)
    await live.begin(service)
    live.watch(batch_of(10_000, 1))
    async with asyncio.timeout(live_module.EVERY / 2):
        await live.step(service)
    assert live.board.read(live._tag).counts.kicks == 10_000
    await service.reload()
    live.watch(batch_of(10_000, 1))
    await live.step(service)
    assert live._model is service.predictor.model


def test_what_waits_is_bounded_while_nobody_counts():
    live, batch = Live(500), batch_of(10_000, 1)
    for _ in range(200):
        live.watch(batch)
    assert live._size <= live_module._MOST + len(batch.numbers)


def counts_of(number):
    cells = np.zeros((len(COLUMNS), WIDTH))
    cells[:, 1] = number
    return Counts(cells)


def test_the_window_slides_over_the_newest_kicks():
    board = Board(1, 500)
    for second in range(1_000, 3_000, 10):
        board.add(counts_of(100), 1, second, second + 1)
    window = board.read(1)
    assert 500 <= window.counts.kicks <= 900
    assert window.until - window.since >= SECONDS - 10
    assert window.until == 2_991


def test_few_kicks_stay_in_the_window_however_old_they_are():
    board = Board(1, 500)
    for second in range(0, 86_400, 1_000):
        board.add(counts_of(5), 1, 1 + second, 1 + second)
    assert board.read(1).counts.kicks == 435
    assert board.read(1).since == 1


def test_a_burst_does_not_reach_back_to_older_kicks():
    board = Board(1, 500)
    board.add(counts_of(1_000), 1, 1_000, 1_001)
    board.add(counts_of(1_000), 1, 2_000, 2_001)
    assert board.read(1).counts.kicks == 1_000
    assert board.read(1).since == 2_000


def test_a_place_that_is_taken_again_goes_on_and_a_half_written_slot_is_left_out():
    board = Board(2, 500)
    board.take_place(1)
    board.add(counts_of(10), 1, 1_000, 1_001)
    board.take_place(0)
    board.add(counts_of(1), 1, 1_000, 1_001)
    board.take_place(1)
    assert board.read(1).counts.kicks == 11
    board._own[board._at][0] += 1  # killed while it wrote
    assert board.read(1).counts.kicks == 1
    board.add(counts_of(10), 1, 1_002, 1_003)
    assert board.read(1).counts.kicks == 21
    assert board.read(2) is None


async def test_two_workers_give_one_summary(tmp_path):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:
        all_of_them = kicks(800, 1)
        for at in range(0, 800, 40):
            async with httpx.AsyncClient(timeout=20) as client:
                response = await client.post(f"{server.url}/predict/batch", json=all_of_them[at : at + 40])
                assert response.status_code == 200
        async with asyncio.timeout(20):
            answers = []
            while len(answers) < 12:
                async with httpx.AsyncClient(timeout=20) as client:
                    response = await client.get(f"{server.url}/drift")
                    if response.status_code == 200 and response.json()["kicks"] == 800:
                        answers.append(response.json())
                    else:
                        await asyncio.sleep(0.1)
    assert len({tuple(each["psi"] for each in answer["features"]) for answer in answers}) == 1


def test_the_process_that_serves_imports_neither_evidently_nor_pandas():
    code = (
        "import sys\n"
        "from kickserve.app import create_app\n"
        "from kickserve.settings import Settings\n"
        "app = create_app(Settings(database_url='sqlite://'))\n"
        "assert any(route.path == '/api/v1/drift' for route in app.routes)\n"
        "print(sorted({'evidently', 'pandas', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
