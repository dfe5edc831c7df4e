"""What the routes, the page and the command line have in common: the predictor, the record, the health."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from kickserve import __version__
from kickserve.errors import MissingExtra, ModelUnusable, RequestError
from kickserve.metrics import Metrics
from kickserve.plugins import Plugin
from kickserve.predictor import Predictor
from kickserve.process import ProcessSampler
from kickserve.schemas import Health
from kickserve.store import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kickserve.errors import KickserveError
    from kickserve.model import Model
    from kickserve.plugins import Metric
    from kickserve.recorder import Recorder
    from kickserve.schemas import DriftSummary, ModelCard, Prediction
    from kickserve.settings import Settings
    from kickserve.store import Store

_TRIALS: Final = 3

_log = logging.getLogger(__name__)


class Service:
    """The parts of a running service.

    Args:
        load: loads the model: now, and again when it is to be changed.
        recorder: see below.
        store: see below.
        settings: the rest of what it is told.
        metrics: see below; its own where not given.
        plugins: those that are loaded: some watch what is predicted, or know more about it.

    Attributes:
        predictor: answers kicks.
        recorder: keeps the answers, and finds those that are on their way to the store.
        store: where they are kept for good.
        sampler: of processor and memory.
        metrics: what is counted, over all workers.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        recorder: Recorder,
        store: Store,
        settings: Settings,
        metrics: Metrics | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        self.metrics = metrics or Metrics()
        self.sampler = ProcessSampler()
        self.store = store
        self.recorder = recorder
        recorder.on_failure = partial(self.metrics.count, "store_errors")
        recorder.on_refusal = partial(self.metrics.count, "dead_letters")
        self.predictor = Predictor(
            load,
            recorder,
            metrics=self.metrics,
            sampler=self.sampler,
            batch_max=settings.batch_max,
            # Hooks that do nothing are not called on the way of a prediction.
            on_predictions=[
                each.on_predictions
                for each in plugins
                if getattr(each.on_predictions, "__func__", None) is not Plugin.on_predictions
            ],
        )
        self._retention = Retention(store, settings.retention)
        self._stopping = False
        self._plugins = plugins

    async def start(self) -> None:
        """Begin: take up what an earlier process left, and open the store.

        Raises:
            StoreMisconfigured: the store can't be used as it is set up; one that is away is waited for.
            ConfigurationError: the journal's folder can't be used.
        """
        await self.recorder.start()
        await self.sampler.start(self._tell)
        self.metrics.count("starts")
        self._tell_model()
        await self._retention.start()

    def drain(self) -> None:
        """Say from now on that no more requests should come."""
        self._stopping = True

    async def stop(self) -> None:
        """End: bring what is kept to the store, as far as it can be reached in time."""
        self.drain()
        await self._retention.stop()
        await self.sampler.stop()
        await self.recorder.stop()
        self.predictor.close()

    def ask(self, body: bytes) -> asyncio.Future[Prediction | KickserveError]:
        """Have a kick answered as it came over the network: what the route and the fast lane have in common.

        Returns:
            As `Predictor.ask`.

        Raises:
            MalformedBody: it is no JSON.
            InvalidInput: it is JSON that is no kick.
        """
        return self.predictor.predict_json(body)

    async def reload(self) -> ModelCard:
        """Load the model anew beside the one that answers, try it, and change between two requests.

        What has been asked already is still answered by the model before, and recorded as such.

        Returns:
            The card of the model that answers from now on.

        Raises:
            ModelUnusable: it can't be loaded or does not answer; the model before stays.
        """
        # All models or none: the settings that name them may have been changed together.
        try:
            commits = await asyncio.to_thread(self._reload_plugins)
        except MissingExtra as error:
            raise ModelUnusable(f"{error}: the model before stays") from error
        card = await self.predictor.reload()
        for commit in commits:
            commit()
        return card

    def _reload_plugins(self) -> list[Callable[[], None]]:
        return [commit for plugin in self._plugins if (commit := plugin.reload()) is not None]

    async def health(self) -> Health:
        """Ask every part how it is."""
        parts = {**self._parts(), "store": await self.recorder.store_state()}
        for plugin in self._plugins:
            parts |= plugin.health()
        well = all(state == "ok" for state in parts.values())
        return Health(status="ok" if well else "degraded", version=__version__, parts=parts)

    def readiness(self) -> Health:
        """Say whether predictions can be taken. The journal takes them where the store is away."""
        parts = self._parts()
        ready = all(state == "ok" for state in parts.values())
        return Health(status="ready" if ready else "not ready", version=__version__, parts=parts)

    def plugin_metrics(self) -> list[Metric]:
        """Return the metrics of all plugins."""
        return [metric for each in self._plugins for metric in each.metrics()]

    def drift(self) -> DriftSummary | None:
        """Return the newest summary of drift, where a plugin knows one."""
        summaries = (each.drift() for each in self._plugins)
        return next((each for each in summaries if each is not None), None)

    def drift_reports(self) -> Path | None:
        """Return the folder of full reports of drift, where a plugin has one."""
        folders = (each.drift_reports() for each in self._plugins)
        return next((each for each in folders if each is not None), None)

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Count the kicks that are found not to fit while the block reads them."""
        try:
            yield
        except RequestError as error:
            self.metrics.count("refused_kicks", len({fault.row for fault in error.errors}) or 1)
            raise

    def _tell(self) -> None:
        waiting = self.recorder.backlog()
        self.metrics.set_state(
            memory=self.sampler.memory_mb * 1e6,
            cpu=self.sampler.cpu_percent / 100,
            journal=waiting.size,
            lag=waiting.lag,
            age=waiting.age,
            store_up=self.recorder.store_works,
        )

    def _tell_model(self) -> None:
        card = self.predictor.model.card
        self.metrics.set_model(card.name, card.revision)

    def _parts(self) -> dict[str, str]:
        return {
            "service": "stopping" if self._stopping else "ok",
            "model": "ok",
            "journal": self.recorder.journal_state(),
        }
