"""Who is to be told of a drift is told once, signed, again until it is taken, and once when it is over."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from test_drift_live import kicks

from kickserve.linear import load_default
from kickserve_data.simulate import simulate
from kickserve_drift.alarm import ENDED, STARTED, Alarm
from kickserve_drift.drift import Limits
from kickserve_drift.live import Live
from kickserve_drift.webhook import TRIES, Event, Webhook

SECRET = "open sesame"


class Receiver:
    """A little HTTP server that keeps what it is sent, and answers as it is told."""

    def __init__(self):
        self.taken = []
        self.answers = []
        self.tries = 0

    async def _serve(self, reader, writer):
        while line := await reader.readline():
            headers = {}
            while (line := (await reader.readline()).decode().strip()) != "":
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers["content-length"]))
            status = self.answers.pop(0) if self.answers else 204
            self.tries += 1
            if status < 300:
                self.taken.append((headers, body))
            writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async def until(self, count):
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=1"
        try:
            yield self
        finally:
            server.close()


@pytest.fixture
async def receiver():
    async with Receiver().running() as receiver:
        yield receiver


def event(kind=STARTED):
    return Event(type=kind, timestamp=datetime(2026, 11, 24, tzinfo=UTC), data={"share": 0.5})


@pytest.fixture
async def webhook(receiver):
    webhook = Webhook(receiver.url, SECRET, pause=0.001)
    yield webhook
    await webhook.stop()


async def test_the_receiver_can_check_who_has_sent_it(receiver, webhook):
    webhook.send(event())
    await receiver.until(1)
    [(headers, body)] = receiver.taken
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}".encode()
    digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert json.loads(body) == {"type": STARTED, "timestamp": "2026-11-24T00:00:00Z", "data": {"share": 0.5}}


@pytest.mark.parametrize(
    ("secret", "key"),
    [("whsec_" + base64.b64encode(b"bytes").decode(), b"bytes"), ("whsec_no base64!", b"whsec_no base64!")],
)
async def test_a_secret_may_be_written_in_base64(receiver, secret, key):
    webhook = Webhook(receiver.url, secret)
    webhook.send(event())
    await receiver.until(1)
    await webhook.stop()
    [(headers, body)] = receiver.taken
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


async def test_without_a_secret_nothing_is_signed(receiver):
    webhook = Webhook(receiver.url)
    webhook.send(event())
    await receiver.until(1)
    await webhook.stop()
    assert "webhook-signature" not in receiver.taken[0][0]


async def test_it_is_sent_again_until_it_is_taken_and_in_order(receiver, webhook):
    receiver.answers = [500, 503, 429]
    webhook.send(event(STARTED))
    webhook.send(event(ENDED))
    await receiver.until(2)
    assert [json.loads(body)["type"] for _, body in receiver.taken] == [STARTED, ENDED]
    assert receiver.tries == 5


async def test_a_receiver_that_refuses_is_not_asked_again(receiver, webhook, caplog):
    receiver.answers = [404]
    webhook.send(event(STARTED))
    webhook.send(event(ENDED))
    await receiver.until(1)
    assert receiver.tries == 2
    assert "was not told of drift.started: it answered 404" in caplog.text
    assert "token" not in caplog.text


async def test_one_that_is_away_is_given_up_in_the_end_and_the_log_says_so(caplog):
    webhook = Webhook("http://127.0.0.1:9/hook", pause=0.0001)
    caplog.set_level("INFO", "kickserve_drift")
    webhook.send(event())
    async with asyncio.timeout(20):
        while "was not told" not in caplog.text:
            await asyncio.sleep(0.01)
    await webhook.stop()
    assert caplog.text.count("did not take") == TRIES


async def test_what_is_not_sent_at_the_end_is_said(caplog):
    webhook = Webhook("http://127.0.0.1:9/hook")
    webhook.send(event())
    webhook.send(event())
    await webhook.stop()
    assert "2 messages to the webhook were not sent" in caplog.text


class Heard:
    """Takes events in the place of a webhook."""

    def __init__(self):
        self.events = []

    def send(self, event):
        self.events.append(event)


@pytest.fixture
async def live():
    live = Live(500)
    await live._learn(load_default())
    return live


def put(live, kicks, at):
    """Count kicks as though they had come in at this second."""
    counts = live._reference.count(kicks.matrix, load_default().predict(kicks.matrix).probability)
    live.board.add(counts, live._tag, at, at + 1)


async def test_it_is_said_once_that_it_began_and_once_that_it_is_over(live):
    heard = Heard()
    alarm = Alarm(live, Limits(), heard)
    alarm.look()
    for step, far in enumerate([None, None, 40, 40, 40, None, None, None]):
        put(live, simulate(500, step, min_distance=far), 1_000 + 100 * step)
        alarm.look()
    assert [each.type for each in heard.events] == [STARTED, ENDED]
    assert heard.events[0].data.drifted
    assert not heard.events[1].data.drifted


async def test_figures_about_a_limit_do_not_cross_it_time_and_again(live):
    reference = live._reference
    kicks = simulate(500, 1, min_distance=40)
    put(live, kicks, 1_000)
    figure = live.summary(Limits()).prediction.psi
    heard = Heard()
    for nudge in (0.99, 1.01, 0.99, 1.05, 0.99, 1.1, 0.99):
        Alarm(live, Limits(psi=figure * nudge), heard).look()
    assert [each.type for each in heard.events] == [STARTED]
    Alarm(live, Limits(psi=figure * 1.3), heard).look()
    assert [each.type for each in heard.events] == [STARTED, ENDED]
    assert live._reference is reference


async def test_another_worker_in_its_place_does_not_say_it_again(live):
    heard = Heard()
    put(live, simulate(500, 1, min_distance=40), 1_000)
    Alarm(live, Limits(), heard).look()
    Alarm(live, Limits(), heard).look()
    assert len(heard.events) == 1


async def test_without_a_webhook_the_log_says_it(live, caplog):
    put(live, simulate(500, 1, min_distance=40), 1_000)
    alarm = Alarm(live, Limits(), None)
    alarm.look()
    assert "have drifted" in caplog.text
    assert "distance (" in caplog.text
    await alarm.stop()


async def test_a_service_tells_its_webhook(start, settings, receiver):
    client = await start(replace(settings, drift_webhook=receiver.url, drift_secret=SECRET))
    await client.post("/predict/batch", json=kicks(200, 1, min_distance=40))
    await receiver.until(1)
    [(headers, body)] = receiver.taken
    told = json.loads(body)
    assert told["type"] == STARTED
    assert told["data"]["prediction"]["drifted"]
    assert headers["webhook-signature"].startswith("v1,")
