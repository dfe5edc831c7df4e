"""What the routes, the page and the command line have in common: the predictor, the record, the health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kickserve import __version__
from kickserve.bodies import read_kick
from kickserve.gauge import Gauge
from kickserve.predictor import Predictor
from kickserve.retention import Retention
from kickserve.schemas import Health
from kickserve.scorer import Scorer

if TYPE_CHECKING:
    import asyncio

    from kickserve.errors import KickserveError
    from kickserve.model import Model
    from kickserve.ports import Store
    from kickserve.recorder import Recorder
    from kickserve.schemas import Prediction
    from kickserve.settings import Settings


class Service:
    """The parts of a running service.

    Attributes:
        predictor: answers kicks.
        recorder: keeps the answers, and finds those that are on their way to the store.
        store: where they are kept for good.
        gauge: what the process uses.
    """

    def __init__(self, model: Model, recorder: Recorder, store: Store, settings: Settings) -> None:
        self.gauge = Gauge()
        self.store = store
        self.recorder = recorder
        self.predictor = Predictor(Scorer(model, self.gauge), recorder.keep, batch_max=settings.batch_max)
        self._retention = Retention(store, settings.retention)
        self._stopping = False

    async def start(self) -> None:
        """Begin: take up what an earlier process left, and open the store.

        Raises:
            StoreMisconfigured: the store can't be used as it is set up; one that is away is waited for.
            ConfigurationError: the journal's folder can't be used.
        """
        await self.recorder.start()
        await self.gauge.start()
        await self._retention.start()

    def drain(self) -> None:
        """Say from now on that no more requests should come."""
        self._stopping = True

    async def stop(self) -> None:
        """End: bring what is kept to the store, as far as it can be reached in time."""
        self.drain()
        await self._retention.stop()
        await self.gauge.stop()
        await self.recorder.stop()

    def ask(self, body: bytes) -> asyncio.Future[Prediction | KickserveError]:
        """Have a kick answered as it came over the network: what the route and the fast lane have in common.

        Returns:
            As `Predictor.ask`.

        Raises:
            MalformedBody: it is no JSON.
            InvalidInput: it is JSON that is no kick.
        """
        return self.predictor.ask(read_kick(body))

    async def health(self) -> Health:
        """Ask every part how it is."""
        parts = {**self._parts(), "store": await self.recorder.store_state()}
        well = all(state == "ok" for state in parts.values())
        return Health(status="ok" if well else "degraded", version=__version__, parts=parts)

    def readiness(self) -> Health:
        """Say whether predictions can be taken. The journal takes them where the store is away."""
        parts = self._parts()
        ready = all(state == "ok" for state in parts.values())
        return Health(status="ready" if ready else "not ready", version=__version__, parts=parts)

    def _parts(self) -> dict[str, str]:
        return {
            "service": "stopping" if self._stopping else "ok",
            "model": "ok",
            "journal": self.recorder.journal_state(),
        }
