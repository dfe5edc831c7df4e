"""The current model beside another one: on the pitch, and on kicks whose outcome is known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from kickserve.features import NAMES
from kickserve.plugins import InvalidInput, Selection, load_default, plugins_of
from kickserve_scores.quality import compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kickserve.plugins import App, Model, ServedModel, Store
    from kickserve.schemas import Record
    from kickserve_scores.quality import Quality
    from kickserve_ui.messages import Messages

    Comparison = tuple[Quality, Quality, float, float]  # as `kickserve_scores.quality.compare` returns it

_MOST: Final = 5_000  # scored kicks, and missed ones: the newest
_AT_A_TIME: Final = 500  # of them: the event loop has others to serve
_FEW: Final = 30  # kicks that say nothing yet
_SURE: Final = 1.96  # standard errors, within which a difference may be chance in 95 of 100 cases


class OtherModels:
    """The models that the current one can be compared with.

    Args:
        app: of the service.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._packaged = load_default()
        self._served: dict[str, ServedModel] = {}
        self._turn = asyncio.Lock()

    def models(self) -> dict[str, Model]:
        """Return by name `second`, that of `KICKSERVE_SHADOW`, and `packaged`; none that equals another."""
        known = {self._app.predictor.model.card.revision}
        found = {}
        for name, model in self._candidates():
            if model.card.revision not in known:
                known.add(model.card.revision)
                found[name] = model
        return found

    async def get(self, name: str) -> ServedModel:
        """Return one of them by its name, ready to score.

        Raises:
            InvalidInput: there is none of this name.
            ModelUnusable: it does not answer.
        """
        model = self.models().get(name)
        if model is None:
            raise InvalidInput(f"there is no other model {name!r} to compare with: load the page anew")
        async with self._turn:
            served = self._served.get(name)
            if served is None or served.model is not model:  # reloaded
                self.close(name)
                served = self._served[name] = await asyncio.to_thread(self._app.predictor.serve, model)
            return served

    async def compare(self, name: str) -> Comparison | None:
        """Compare the current model with another one on the newest kicks whose outcome is known.

        Both predict the kicks anew. Kicks recorded on the page are left out, as everywhere in quality.

        Returns:
            As `kickserve_scores.quality.compare`; None where there are no such kicks.

        Raises:
            InvalidInput: there is no other model of this name.
            StoreError: the store can't be reached.
            PredictionFailed: a model failed.
        """
        models = self._app.predictor.current, await self.get(name)
        async with self._turn:
            if not (found := await _known(self._app.store)):
                return None
            rows = np.array([[getattr(each, name) for name in NAMES] for each in found], dtype=np.float64)
            success = np.array([each.outcome for each in found], dtype=np.float64)
            one, other = [(await served.score(rows))[:, 0] for served in models]
            return await asyncio.to_thread(compare, one, other, success)

    def close(self, *names: str) -> None:
        """End the threads of some; of all, where none is named."""
        for name in names or [*self._served]:
            if served := self._served.pop(name, None):
                served.close()

    def _candidates(self) -> Iterator[tuple[str, Model]]:
        for plugin in plugins_of(self._app):
            if model := plugin.second_model():
                yield "second", model
        yield "packaged", self._packaged


async def _known(store: Store) -> list[Record]:
    """Return the newest kicks with a known outcome, scored and missed ones of the same time."""
    parts = [await _newest(store, "scored"), await _newest(store, "missed")]
    since = max((part[-1].id for part in parts if len(part) >= _MOST), default="")
    return [each for part in parts for each in part if each.id >= since and each.source != "page"]


async def _newest(store: Store, outcome: Literal["scored", "missed"]) -> list[Record]:
    found: list[Record] = []
    wanted = Selection(outcome=outcome)
    # The last one of a part is the first of the next.
    while part := await store.search(wanted, _AT_A_TIME, offset=1 if found else 0):
        found += part
        wanted = Selection(outcome=outcome, newest=part[-1].id)
        if len(found) >= _MOST:
            break
    return found


def described(messages: Messages, names: Sequence[str], found: Comparison | None) -> dict[str, Any]:
    """Return a comparison as the page shows it: both curves, and which model is better, in words."""
    if found is None:
        return {"verdict": messages("compare_none"), "curves": []}
    *qualities, difference, error = found
    count = qualities[0].count
    better, worse = names if difference > 0 else names[::-1]
    values = {
        "count": messages.number(count),
        "better": better,
        "worse": worse,
        "difference": messages.number(abs(difference), 4),
        "error": messages.number(_SURE * error, 4),
    }
    kind = "few" if count < _FEW else "better" if abs(difference) > _SURE * error else "chance"
    return {
        "verdict": messages(f"compare_{kind}", **values),
        "curves": [_curve(each) for each in qualities],
        "brier": [messages.number(each.brier, 4) for each in qualities],
    }


def _curve(quality: Quality) -> list[dict[str, Any]]:
    return [
        {
            "predicted": each.mean_prediction,
            "actual": each.success_rate,
            "interval": each.interval,
            "count": each.count,
        }
        for each in quality.bins
    ]
