"""The service behind the pages, and what its visitors share."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kickserve.plugins import ConfigurationError
from kickserve_data.simulate import simulate
from kickserve_scores.follower import Follower
from kickserve_scores.kickers import Tally
from kickserve_scores.quality import assess
from kickserve_scores.report import report
from kickserve_ui.cards import Cards
from kickserve_ui.comparison import OtherModels
from kickserve_ui.heat_map import HeatMaps, about
from kickserve_ui.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve.plugins import App, ServedModel
    from kickserve_scores.quality import Bin
    from kickserve_scores.report import QualityReport

_COLLECT_AFTER: Final = 2.0  # seconds after a page was left: its connection has ended by then
_SIMULATED: Final = 20_000  # kicks
_SEED: Final = 11  # of these, which no model was trained on
_FILES: Final = 8
_PAUSE: Final = 10  # times as long as an assessment took, it is not repeated: it reads all known outcomes


class Backend:
    """The service of one application, as its pages use it.

    Args:
        app: of the service.

    Attributes:
        app: the same.
        sessions: visitors who are signed in.
        maps: heat maps, cached for all visitors.
        cards: the newest cards of kicks, cached alike.
        others: models that the current one can be compared with.
        files: room for visitors' files that come, wait or are read: of 10 MB each.
        reading: held while one of them is read.
        saving: held while a visitor's file is recorded: a second press finds what the first has recorded.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.sessions = Sessions(app.authenticator, app.settings.journal_dir)
        self.maps = HeatMaps()
        self.cards = Cards()
        self.others = OtherModels(app)
        self.files = asyncio.Semaphore(_FILES)
        self.reading = asyncio.Lock()
        self.saving = asyncio.Lock()
        self._known: Follower[Tally] | None = None
        self._assessing = asyncio.Lock()
        self._quality: QualityReport | None = None
        self._quality_until = 0.0
        self._collecting = False
        self._simulated: tuple[str, list[Bin]] | None = None  # of this revision

    @property
    def served(self) -> ServedModel:
        """The current model: a reload replaces it."""
        return self.app.predictor.current

    def known(self, *, level: bool) -> Follower[Tally]:
        """Return what follows the stored outcomes by kicker.

        Args:
            level: whether abilities are those above a level that is learned too, as the service has it.
        """
        if self._known is None:
            self._known = Follower(self.app.store, lambda: Tally(level=level))
        return self._known

    async def simulated_bins(self) -> list[Bin]:
        """Return how a model of simulated kicks does on others: of a fresh service nothing else is known.

        Returns:
            Nothing for other models.

        Raises:
            PredictionFailed: the model failed.
        """
        served = self.served
        if not about(served.model.card)["simulated"]:
            return []
        if self._simulated is None or self._simulated[0] != served.model.card.revision:
            kicks = simulate(_SIMULATED, _SEED)
            scores = await served.score(kicks.matrix)
            self._simulated = served.model.card.revision, assess(scores[:, 0], kicks.success).bins
        return self._simulated[1]

    async def quality(self) -> QualityReport:
        """Assess all predictions with an outcome: once for all visitors, and a tenth of the time at most.

        Raises:
            StoreError: the store can't be reached.
        """
        async with self._assessing:
            started = time.monotonic()
            if self._quality is None or started > self._quality_until:
                await self.app.recorder.flush()
                self._quality = await report(self.app.store.labelled())
                ended = time.monotonic()
                self._quality_until = ended + _PAUSE * (ended - started)
            return self._quality

    def collect_soon(self) -> None:
        """Collect the objects of pages that were left, all of two seconds together: 2 ms, and 3 a page.

        Each leaves some 1,700 objects in cycles of NiceGUI and Starlette. Python's own collections would come
        hours later, after tens of megabytes, and stop the event loop for a tenth of a second.
        """
        if not self._collecting:
            self._collecting = True
            asyncio.get_running_loop().call_later(_COLLECT_AFTER, self._collect)

    def _collect(self) -> None:
        self._collecting = False
        gc.collect()


_serving: list[Backend] = []  # one, or none: NiceGUI has one set of pages a process


@contextmanager
def serving(backend: Backend) -> Iterator[None]:
    """Have the pages of this process use a backend until the block ends.

    Raises:
        ConfigurationError: they use another one.
    """
    if _serving:
        raise ConfigurationError("another application of this process serves the page: run each in its own")
    _serving.append(backend)
    try:
        yield
    finally:
        _serving.remove(backend)
        backend.others.close()


def current_backend() -> Backend:
    """Return the backend of this process's pages."""
    return _serving[0]
