"""Watches the live figures: raises an alarm in the log and by a webhook, and starts reports on schedule."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from kickserve.plugins import ConfigurationError, KickserveError, cancel_task
from kickserve_drift.psi import Limits, with_outcomes

if TYPE_CHECKING:
    import httpx

    from kickserve.plugins import App
    from kickserve.schemas import CalibrationChange, DriftSummary
    from kickserve_drift.outcomes import OutcomeTest
    from kickserve_drift.reports import ReportFolder
    from kickserve_drift.settings import DriftSettings
    from kickserve_drift.window import LiveDrift

STARTED: Final = "drift.started"
ENDED: Final = "drift.ended"
ALARM_STARTED: Final = "alarm.started"
ALARM_ENDED: Final = "alarm.ended"
EVERY: Final = 1.0  # seconds between looks at the figures
TRIES: Final = 10
LONGEST: Final = 300.0  # seconds between two tries

_TIMEOUT: Final = 10.0
_REFUSED: Final = 4  # hundreds of a status
_TEMPORARY: Final = frozenset({408, 425, 429})  # of these, the ones that another try may not meet
_PREFIX: Final = "whsec_"  # of a secret in base64

_log = logging.getLogger(__name__)


class Event(Struct, kw_only=True, frozen=True):
    """A message to the webhook.

    Attributes:
        type: `drift.started` or `drift.ended` of the kicks, `alarm.started` or `alarm.ended` of outcomes.
        timestamp: when, UTC.
        data: the summary of drift then; null where there were too few kicks.
        text: the event in a sentence, which chat rooms show.
    """

    type: str
    timestamp: datetime
    data: Any
    text: str


class Webhook:
    """Sends events to one address, in order, each again until it is accepted.

    Messages and signatures are those of Standard Webhooks (https://www.standardwebhooks.com). The loop of
    tries is ours: each try has a new timestamp and signature, as receivers refuse a timestamp older than 5
    minutes.

    Args:
        url: the address.
        secret: signs messages; in base64 after `whsec_`, else as it is. Without one they are not signed.
        pause: seconds before the second try; each later pause is twice as long, up to `LONGEST`.
    """

    def __init__(self, url: str, secret: str | None = None, *, pause: float = 1.0) -> None:
        self._url = url
        self._secret = None if secret is None else _decode(secret)
        self._pause = pause
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Log at once where no message can be sent, and not only when drift starts."""
        self._task = self._task or asyncio.create_task(self._run(), name="webhook")

    def send(self, event: Event) -> None:
        """Have an event sent, after those before it."""
        self._queue.put_nowait(event)
        self.start()

    async def stop(self) -> None:
        """Stop sending, and log how many events are lost."""
        unsent = self._queue.qsize()
        await cancel_task(self._task)
        self._task = None
        if unsent:
            _log.warning("%d messages to the webhook were not sent", unsent)

    async def _run(self) -> None:
        import httpx  # a service without a webhook need not wait for it

        from kickserve_client import http_client

        try:
            client = http_client(httpx.AsyncClient, self._url, timeout=_TIMEOUT)
        except ConfigurationError as error:
            _log.error("no messages can be sent to the webhook: %s", error)
            return
        async with client:
            while True:
                await self._deliver(client, await self._queue.get())

    async def _deliver(self, client: httpx.AsyncClient, event: Event) -> None:
        body, message = msgspec.json.encode(event), f"msg_{uuid.uuid4().hex}"
        problem, temporary = "", True
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(min(self._pause * 2 ** (attempt - 1), LONGEST))
            problem, temporary = await self._try(client, body, message)
            if not problem:
                return
            _log.info("the webhook did not accept %s: %s", event.type, problem)
            if not temporary:
                break
        _log.error("the webhook did not receive %s: %s", event.type, problem)

    async def _try(self, client: httpx.AsyncClient, body: bytes, message: str) -> tuple[str, bool]:
        """Send once; return the problem, empty where there is none, and whether another try may help."""
        import httpx

        try:
            response = await client.post(self._url, content=body, headers=self._headers(body, message))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__} {error}".strip(), True
        status = response.status_code
        problem = "" if response.is_success else f"it answered {status}"
        return problem, status // 100 != _REFUSED or status in _TEMPORARY

    def _headers(self, body: bytes, message: str) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {"content-type": "application/json", "webhook-id": message, "webhook-timestamp": now}
        if self._secret is not None:
            signed = hmac.digest(self._secret, f"{message}.{now}.".encode() + body, hashlib.sha256)
            headers["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
        return headers


class Monitor:
    """Counts predictions in every worker; the first worker also raises alarms and starts reports.

    Drift has ended only below limits a fifth lower: figures about a limit would otherwise cross it time and
    again.

    Args:
        settings: limits, schedule and webhook.
        live: the figures.
        outcomes: what outcomes say.
        reports: the full reports.
        webhook: gets the alarms, beside the log; by default that of the settings.
    """

    def __init__(
        self,
        settings: DriftSettings,
        live: LiveDrift,
        outcomes: OutcomeTest,
        reports: ReportFolder,
        webhook: Webhook | None = None,
    ) -> None:
        self._live = live
        self._outcomes = outcomes
        self._reports = reports
        self._limits = Limits(settings.psi, settings.share)
        if webhook is None and settings.webhook is not None:
            webhook = Webhook(settings.webhook, settings.secret)
        self._webhook = webhook
        self._every = settings.every
        self._last = reports.newest_at() or datetime.now(UTC)  # when a report was last made or tried
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: App) -> None:
        """Start."""
        if self._webhook is not None and self._live.window.number == 0:
            self._webhook.start()
        self._task = asyncio.create_task(self._run(app), name="drift")

    async def stop(self) -> None:
        """Stop, and end the webhook and a report under way."""
        await cancel_task(self._task)
        if self._webhook is not None:
            await self._webhook.stop()
        await self._reports.stop()

    def check_alarm(self) -> None:
        """Raise an alarm once where drift has started, and once where it has ended; so too of outcomes."""
        window = self._live.window
        summary = self._live.summary(self._limits.eased() if window.alarmed else self._limits)
        if summary is not None and summary.drifted != window.alarmed:
            window.alarmed = summary.drifted
            self._tell(*_event_of(summary))
        heard = self._outcomes.result
        if heard is not None and (heard.change is not None) != window.outcomes_alarmed:
            window.outcomes_alarmed = heard.change is not None
            self._tell(*_event_of_outcomes(heard.change))

    def _tell(self, kind: str, text: str) -> None:
        _log.warning("%s", text)
        if self._webhook is not None:
            summary = self._live.summary(self._limits)
            data = None if summary is None else with_outcomes(summary, self._outcomes.result)
            self._webhook.send(Event(type=kind, timestamp=datetime.now(UTC), data=data, text=text))

    async def start_due_report(self, app: App) -> None:
        """Start a report where the newest one, or the last attempt, is older than the schedule allows."""
        now = datetime.now(UTC)
        if self._every is None or now - self._last < self._every:
            return
        newest = self._reports.newest_at()
        if newest is not None and newest > self._last:  # one was asked for meanwhile
            self._last = newest
            return
        self._last = now
        try:
            await self._reports.start(app)
        except KickserveError as error:
            _log.warning("no drift report was started: %s", error)

    async def _run(self, app: App) -> None:
        while True:
            try:
                await self._live.start(app)
                while True:
                    await asyncio.sleep(EVERY)
                    await self._live.follow(app.predictor.model)
                    await self._live.count_in_turns()
                    await self._outcomes.look(app)
                    if self._live.window.number == 0:
                        self.check_alarm()
                        await self.start_due_report(app)
            except Exception:  # noqa: BLE001  one failure must not leave the service without figures
                _log.exception("the live drift figures start over")
                await asyncio.sleep(EVERY)


def _decode(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass  # it only looks like one
    return secret.encode()


def _event_of(summary: DriftSummary) -> tuple[str, str]:
    """Return the kind of an event, and the event in a sentence."""
    data = f"the training data of the model {summary.model}"
    if not summary.drifted:
        return ENDED, f"the drift has ended: the kicks are like {data} again"
    drifted = [each for each in [*summary.features, summary.prediction] if each.drifted]
    found = ", ".join(f"{each.name} (PSI {each.psi:.2f})" for each in drifted)
    return STARTED, f"the kicks have drifted from {data}: {found}"


def _event_of_outcomes(change: CalibrationChange | None) -> tuple[str, str]:
    if change is None:
        return (
            ALARM_ENDED,
            "the alarm on outcomes has ended: there is none on the predictions of the present model",
        )
    return (
        ALARM_STARTED,
        f"the outcomes no longer fit the predictions, since {change.since:%Y-%m-%d %H:%M} UTC: {change.text}",
    )
