"""What the routes, the page and the command line have in common: the predictor, the record, the health."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from kickserve import __version__
from kickserve.errors import MissingExtra, ModelUnusable, PredictionFailed, RequestError
from kickserve.ids import IdFactory
from kickserve.metrics import Metrics
from kickserve.model import TYPICAL, predict
from kickserve.plugins import Plugin
from kickserve.predictor import Predictor
from kickserve.process import ProcessSampler
from kickserve.schemas import Health
from kickserve.scorer import Scorer
from kickserve.store import Retention
from kickserve.validation import read_kick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kickserve.errors import Backlogged, KickserveError
    from kickserve.model import Model
    from kickserve.plugins import Metric
    from kickserve.record import RecordBatch
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
        self._load = load
        self._batch_max = settings.batch_max
        self._ids = IdFactory()
        self.predictor = self._predictor(load())
        self._loading = asyncio.Lock()
        self._retention = Retention(store, settings.retention)
        self._stopping = False
        self._plugins = plugins
        # Hooks that do nothing are not called on the way of a prediction.
        self._watchers = [
            each.on_predictions
            for each in plugins
            if getattr(each.on_predictions, "__func__", None) is not Plugin.on_predictions
        ]

    def _predictor(self, model: Model) -> Predictor:
        return Predictor(Scorer(model, self.sampler, self._ids), self._keep, batch_max=self._batch_max)

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
        try:
            kick = read_kick(body)
        except RequestError:
            self.metrics.count("refused_kicks")
            raise
        return self.predictor.ask(kick)

    async def reload(self) -> ModelCard:
        """Load the model anew beside the one that answers, try it, and change between two requests.

        What has been asked already is still answered by the model before, and recorded as such.

        Returns:
            The card of the model that answers from now on.

        Raises:
            ModelUnusable: it can't be loaded or does not answer; the model before stays.
        """
        async with self._loading:
            before = self.predictor
            # Both or none: the settings that name them may have been changed together.
            shadow = self.recorder.shadow
            shadow.model, self.predictor = await asyncio.to_thread(self._loaded_anew)
            before.retire()
            self._tell_model()
        card = self.predictor.model.card
        _log.info("the model is now %s, revision %s, from %s", card.name, card.revision, card.source)
        return card

    def _loaded_anew(self) -> tuple[Model | None, Predictor]:
        """Load the second model, and the one that is to answer; ask that as often as it takes to be warm."""
        try:
            shadow, model = self.recorder.shadow.load(), self._load()
            for _ in range(_TRIALS):
                predict(model, TYPICAL)
        except (PredictionFailed, MissingExtra) as error:
            raise ModelUnusable(f"{error}: the model before stays") from error
        return shadow, self._predictor(model)

    async def health(self) -> Health:
        """Ask every part how it is."""
        parts = {**self._parts(), "store": await self.recorder.store_state()}
        if self.recorder.shadow.model is not None:
            parts["shadow"] = self.recorder.shadow.state
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

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Count the kicks that are found not to fit while the block reads them."""
        try:
            yield
        except RequestError as error:
            self.metrics.count("refused_kicks", len({fault.row for fault in error.errors}) or 1)
            raise

    def _keep(self, batches: Sequence[RecordBatch]) -> asyncio.Future[Backlogged | None]:
        kept = self.recorder.keep(batches)
        if kept.done():
            self._note(batches, kept)
        else:
            kept.add_done_callback(partial(self._note, batches))
        return kept

    def _note(self, batches: Sequence[RecordBatch], kept: asyncio.Future[Backlogged | None]) -> None:
        # Who asked may have gone away while the disk was busy: then nobody got the answers.
        given = not kept.cancelled() and kept.result() is None
        for batch in batches:
            if batch.error is not None:
                self.metrics.count("failed_kicks", len(batch))
            elif given:
                self.metrics.count_predictions(batch)
                for watch in self._watchers:
                    watch(batch)

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
