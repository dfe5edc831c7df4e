"""Live drift: figures of the newest kicks of all workers from the start, and one alarm each way, signed."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import httpx
import msgspec
import numpy as np
import pytest
import standardwebhooks
from conftest import configured
from prometheus_client.parser import text_string_to_metric_families
from receiver import receiving
from serving import eventually, serving

from kickserve.app import create_app
from kickserve.errors import MissingExtra, StoreUnavailable
from kickserve.features import named
from kickserve.linear import load_default
from kickserve.record import RecordBatch
from kickserve_data.simulate import simulate
from kickserve_drift import window as window_module
from kickserve_drift.monitor import ALARM_STARTED, ENDED, STARTED, TRIES, Event, Monitor, Webhook
from kickserve_drift.outcomes import OutcomeTest
from kickserve_drift.psi import COLUMNS, MIN_KICKS, Limits
from kickserve_drift.reports import ReportFolder
from kickserve_drift.settings import DriftSettings
from kickserve_drift.window import LiveDrift

SECRET = "open sesame"
MODEL = load_default()


def kicks(size, seed, **arguments):
    return [named(row) for row in simulate(size, seed, **arguments).matrix.tolist()]


def drifted(summary):
    return {each["name"] for each in [*summary["features"], summary["prediction"]] if each["drifted"]}


async def _summary(client):
    response = await client.get("/drift")
    return response if response.status_code == 200 else None


async def ready(client):
    """Wait until the plugin has the reference of the model; return the summary."""
    response = await eventually(partial(_summary, client))
    return response.json()


async def test_with_too_few_kicks_it_says_how_many_are_needed(client):
    await client.post("/predict/batch", json=kicks(MIN_KICKS - 2, 1))
    response = await client.get("/drift")
    assert response.status_code == 409
    assert "fewer than 50" in response.json()["detail"]
    for kick in kicks(2, 2):
        await client.post("/predict", json=kick)
    assert (await ready(client))["kicks"] == MIN_KICKS


async def test_usual_kicks_have_not_drifted_and_far_ones_have(client):
    await client.post("/predict/batch", json=kicks(600, 1))
    summary = await ready(client)
    assert (summary["kicks"], summary["drifted"], drifted(summary)) == (600, False, set())
    assert (summary["model"], summary["report"]) == ("simulated", None)
    await client.post("/predict/batch", json=kicks(2_000, 1, min_distance=40))
    summary = (await client.get("/drift")).json()
    assert summary["drifted"]
    assert drifted(summary) >= {"distance", "prediction"}
    text = (await client.get("http://test/metrics")).text
    samples = {
        (sample.name, sample.labels.get("feature")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["kickserve_drift_psi", "distance"] > 1 > samples["kickserve_drift_psi", "game_away"]
    assert {feature for name, feature in samples if name == "kickserve_drift_psi"} == {*COLUMNS}
    assert (samples["kickserve_drift_kicks", None], samples["kickserve_drift_drifted", None]) == (2_600, 1)
    assert ("kickserve_drift_share", None) in samples


@pytest.fixture
def without_evidently(monkeypatch):
    monkeypatch.setattr("kickserve.errors.find_spec", lambda name: None if name == "evidently" else name)


@pytest.mark.usefixtures("without_evidently")
async def test_figures_need_no_extra_and_only_full_reports_name_theirs(client, kickserve, settings):
    extra = "pip install 'kickserve[reports]'"
    await client.post("/predict/batch", json=kicks(MIN_KICKS, 1))
    assert (await ready(client))["kicks"] == MIN_KICKS
    refused = await client.post("/drift/reports")
    assert (refused.status_code, extra in refused.json()["detail"]) == (409, True)
    assert (await client.get("/drift/reports")).json() == {"newest_run": None, "reports": []}
    code, _, err = kickserve("evaluate")
    assert (code, extra in err) == (2, True)
    with pytest.raises(MissingExtra, match=r"KICKSERVE_DRIFT_EVERY needs evidently.*'kickserve\[reports\]'"):
        create_app(configured(settings, KICKSERVE_DRIFT_EVERY="1d"))


async def test_a_window_of_no_kicks_turns_the_figures_off(start, settings):
    client = await start(configured(settings, KICKSERVE_DRIFT_WINDOW="0"))
    await client.post("/predict/batch", json=kicks(600, 1))
    refused = await client.get("/drift")
    assert (refused.status_code, "KICKSERVE_DRIFT_WINDOW is 0" in refused.json()["detail"]) == (409, True)
    assert "kickserve_drift_psi" not in (await client.get("http://test/metrics")).text


async def test_limits_are_those_of_the_settings(start, settings):
    client = await start(configured(settings, KICKSERVE_DRIFT_PSI="9", KICKSERVE_DRIFT_SHARE="0.01"))
    await client.post("/predict/batch", json=kicks(600, 1, min_distance=40))
    summary = await ready(client)
    assert {each["limit"] for each in summary["features"]} == {9.0}
    assert (summary["limit"], summary["drifted"]) == (0.01, False)


async def test_a_new_start_counts_the_newest_kicks_of_the_store(start, settings):
    client = await start(settings)
    await client.post("/predict/batch", json=kicks(400, 1, min_distance=40))
    await client.get("/predictions")  # brings them to the store
    client = await start(replace(settings, journal_dir=settings.journal_dir / "other"))
    summary = await ready(client)
    assert (summary["kicks"], summary["drifted"]) == (400, True)


def batch_of(size, seed=1):
    matrix = simulate(size, seed).matrix
    answer = MODEL.predict(matrix)
    numbers = np.column_stack([matrix, answer.probability, answer.low, answer.high, np.ones(size)])
    return RecordBatch(1_795_000_000_000, 0, "x", "simulated", "1", 0.0, 0.0, numbers.tobytes())


@pytest.fixture
async def live():
    live = LiveDrift(500)
    await live.follow(MODEL)
    return live


async def test_another_model_starts_anew_and_one_that_raises_has_no_figures(live, caplog):
    live.add(batch_of(600))
    assert not live.summary(Limits()).drifted
    profile = MODEL.profile
    quantiles = {**profile.quantiles, "distance": [each + 20 for each in profile.quantiles["distance"]]}
    moved = SimpleNamespace(
        card=MODEL.card, profile=msgspec.structs.replace(profile, quantiles=quantiles), predict=MODEL.predict
    )
    await live.follow(moved)
    assert live.summary(Limits()) is None  # counts by another reference don't add up
    live.add(batch_of(600))
    assert {each.name for each in live.summary(Limits()).features if each.drifted} == {"distance"}

    await live.follow(SimpleNamespace(card=MODEL.card, profile=None, predict=None))
    assert "live drift figures are unavailable" in caplog.text
    live.add(batch_of(600))
    assert live.summary(Limits()) is None


async def test_figures_begin_empty_where_the_store_is_away(start, settings, caplog, monkeypatch):
    caplog.set_level("INFO")
    service = (await start(settings)).app

    async def page(*_, **__):
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(service.store, "page", page)
    live = LiveDrift(500)
    await live.start(service)
    assert "start without stored kicks: the store is away" in caplog.text
    live.add(batch_of(MIN_KICKS))
    assert live.summary(Limits()).kicks == MIN_KICKS


async def test_predictions_that_wait_for_the_reference_are_bounded():
    live, batch = LiveDrift(500), batch_of(10_000)
    for _ in range(100):
        live.add(batch)
        assert live._bytes <= window_module._MAX_WAITING


async def test_two_workers_give_one_summary(tmp_path):
    with serving(tmp_path, KICKSERVE_WORKERS="2") as server:

        async def ask(method, path, **options):
            """Ask on a connection of its own, so that the system chooses a worker."""
            async with httpx.AsyncClient(timeout=60) as client:
                return await client.request(method, f"{server.url}{path}", **options)

        sent = kicks(800, 1)
        for at in range(0, 800, 40):
            assert (await ask("POST", "/predict/batch", json=sent[at : at + 40])).status_code == 200

        async def complete():
            answer = (await ask("GET", "/drift")).json()
            return answer if answer.get("kicks") == 800 else None

        answers = [await eventually(complete) for _ in range(12)]
    assert len({tuple(each["psi"] for each in answer["features"]) for answer in answers}) == 1


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


def event(kind=STARTED):
    at = datetime(2026, 11, 24, tzinfo=UTC)
    return Event(type=kind, timestamp=at, data={"share": 0.5}, text="the kicks have drifted")


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, SECRET.encode()),
        ("whsec_" + base64.b64encode(b"bytes").decode(), b"bytes"),
        ("whsec_no base64!", b"whsec_no base64!"),
        (None, None),
    ],
)
async def test_the_receiver_can_check_the_sender(receiver, secret, key):
    webhook = Webhook(receiver.url, secret)
    webhook.send(event())
    await eventually(lambda: receiver.taken)
    await webhook.stop()
    [(_, headers, body)] = receiver.taken
    assert json.loads(body) == {
        "type": STARTED,
        "timestamp": "2026-11-24T00:00:00Z",
        "data": {"share": 0.5},
        "text": "the kicks have drifted",
    }
    assert {"webhook-id", "webhook-timestamp"} <= {*headers}
    if key is None:
        assert "webhook-signature" not in headers
    else:
        standardwebhooks.Webhook(key).verify(body, headers)


async def test_it_is_sent_again_until_it_is_accepted_and_in_order_but_not_after_a_refusal(receiver, caplog):
    webhook = Webhook(f"{receiver.url}/hook?token=1", SECRET, pause=0.001)
    receiver.answers += [500, 503, 429, 200, 204, 404]
    for kind in (STARTED, ENDED, STARTED, ENDED):
        webhook.send(event(kind))
    await eventually(lambda: len(receiver.taken) == 3)
    await webhook.stop()
    assert [json.loads(body)["type"] for *_, body in receiver.taken] == [STARTED, ENDED, ENDED]
    assert receiver.tries == 7
    assert "did not receive drift.started: it answered 404" in caplog.text
    assert "token" not in caplog.text


async def test_a_receiver_that_is_away_is_given_up_and_unsent_messages_are_logged(caplog):
    caplog.set_level("INFO", "kickserve_drift")
    webhook = Webhook("http://127.0.0.1:9/hook", pause=0.0001)
    webhook.send(event())
    await eventually(lambda: "did not receive" in caplog.text)
    await webhook.stop()
    assert caplog.text.count("did not accept") == TRIES
    webhook.send(event())
    webhook.send(event())
    await webhook.stop()
    assert "2 messages to the webhook were not sent" in caplog.text


class FakeWebhook:
    """Keeps the kinds of events."""

    def __init__(self):
        self.kinds = []

    def send(self, event):
        self.kinds.append(event.type)
        assert event.data.drifted == (event.type == STARTED)


def add(live, at, **arguments):
    """Count 500 kicks as of this second."""
    kicks = simulate(500, at, **arguments)
    counts = live._reference.count(np.column_stack([kicks.matrix, MODEL.predict(kicks.matrix).probability]))
    live.window.add(counts, live._tag, at, at + 1)


def monitor(settings, live, webhook, **limits):
    table = replace(DriftSettings.load(settings.environ), **limits)
    return Monitor(table, live, OutcomeTest(), ReportFolder(table.reports), webhook)


async def test_an_alarm_is_raised_once_and_ended_once(live, settings, caplog):
    webhook = FakeWebhook()
    monitor(settings, live, webhook).check_alarm()
    for step, far in enumerate([None, None, 40, 40, 40, None, None, None]):
        add(live, 1_000 + 100 * step, min_distance=far)
        monitor(settings, live, webhook).check_alarm()  # a new worker does not repeat it
    assert webhook.kinds == [STARTED, ENDED]
    assert "have drifted" in caplog.text
    assert "distance (" in caplog.text


async def test_figures_about_a_limit_do_not_cross_it_time_and_again(live, settings):
    add(live, 1_000, min_distance=40)
    figure, webhook = live.summary(Limits()).prediction.psi, FakeWebhook()
    for nudge in (0.99, 1.01, 0.99, 1.05, 0.99, 1.1, 0.99):
        monitor(settings, live, webhook, psi=figure * nudge).check_alarm()
    assert webhook.kinds == [STARTED]
    webhook.send = lambda event: webhook.kinds.append(event.type)
    monitor(settings, live, webhook, psi=figure * 1.3).check_alarm()
    assert webhook.kinds == [STARTED, ENDED]


async def test_a_service_alarms_its_webhook(start, settings, receiver):
    webhook = {"KICKSERVE_DRIFT_WEBHOOK": receiver.url, "KICKSERVE_DRIFT_SECRET": SECRET}
    client = await start(configured(settings, **webhook))
    await client.post("/predict/batch", json=kicks(200, 1, min_distance=40))
    await eventually(lambda: receiver.taken)
    [(_, headers, body)] = receiver.taken
    message = standardwebhooks.Webhook(SECRET.encode()).verify(body, headers)
    assert message["type"] == STARTED
    assert message["data"]["prediction"]["drifted"]
    assert message["text"].startswith(
        "the kicks have drifted from the training data of the model simulated: "
    )


async def tell(client, size, seed, world, **fields):
    """Have kicks predicted, and tell outcomes of a world: the probability of success by that predicted."""
    answers = (await client.post("/predict/batch", json=[each | fields for each in kicks(size, seed)])).json()
    p = np.array([each.get("base", each["prediction"]) for each in answers])
    success = np.random.default_rng([seed, 99]).random(size) < world(p)  # simulate takes [seed, 0]
    told = [{"id": each["id"], "success": bool(y)} for each, y in zip(answers, success, strict=True)]
    assert (await client.put("/predictions/outcomes", json=told)).json()["kept"] == size


async def heard(client, outcomes):
    """Wait until the test of outcomes has heard so many; return the summary."""

    async def summary():
        found = (await client.get("/drift")).json()
        return found if (found.get("calibration") or {}).get("outcomes") == outcomes else None

    return await eventually(summary)


async def test_a_service_hears_that_fewer_kicks_succeed_than_predicted(start, settings, receiver):
    client = await start(configured(settings, KICKSERVE_DRIFT_WEBHOOK=receiver.url))
    await tell(client, 400, 1, lambda p: p)
    summary = await heard(client, 400)
    assert (summary["drifted"], summary["calibration"]["change"]) == (False, None)
    await tell(client, 600, 2, lambda p: p * 0.85)
    summary = await heard(client, 1_000)
    assert summary["drifted"]
    assert drifted(summary) == set()
    change = summary["calibration"]["change"]
    assert (change["what"], change) == ("level down", summary["calibration"]["base_change"])
    low, high = change["difference_interval"]
    assert low < -0.15 * 0.735 < high < 0
    assert change["since"] <= change["heard_at"]
    text = (await client.get("http://test/metrics")).text
    assert 'kickserve_drift_alarm{of="answers",what="level down"} 1' in text
    assert 'kickserve_drift_alarm{of="answers",what="level up"} 0' in text
    [(_, _, body)] = await eventually(lambda: receiver.taken)
    message = json.loads(body)
    assert (message["type"], message["data"]["drifted"]) == (ALARM_STARTED, True)
    assert change["text"] in message["text"]


async def test_kicks_of_visitors_of_the_page_move_neither_figures_nor_test(client):
    await tell(client, 100, 1, lambda p: p)
    await tell(client, 400, 2, lambda p: 0 * p, source="page")
    summary = await heard(client, 100)
    assert (summary["kicks"], summary["calibration"]["change"]) == (100, None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks://proxy:1"), ("https_proxy", "http://[::1"), ("SSL_CERT_FILE", "/nowhere.pem")],
)
async def test_a_variable_that_keeps_the_webhook_from_being_reached_is_named_at_the_start(
    start, settings, caplog, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    await start(configured(settings, KICKSERVE_DRIFT_WEBHOOK="https://hooks.example/1"))
    await eventually(lambda: f"no messages can be sent to the webhook: {variable}" in caplog.text)


async def test_a_webhook_is_reached_through_the_proxy_of_the_environment_and_loopback_without(
    receiver, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "fd00::/8,[::1]")
    for url, proxy, path in (
        ("http://hooks.example/1", receiver.url, "http://hooks.example/1"),
        (f"{receiver.url}/2", "socks://proxy:1", "/2"),
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        webhook = Webhook(url)
        webhook.send(event())
        await eventually(lambda path=path: path in [taken[0] for taken in receiver.taken])
        await webhook.stop()
