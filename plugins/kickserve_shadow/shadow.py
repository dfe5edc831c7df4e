"""Asks a second model about every kick as well, off the path, to compare it before it is served."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kickserve.errors import PredictionFailed
from kickserve.features import COUNT
from kickserve.model import predict
from kickserve.record import NUMBER, ShadowAnswers, numbers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kickserve.model import Model
    from kickserve.record import RecordBatch

_log = logging.getLogger(__name__)


class Shadow:
    """The second model.

    It is asked on the way from the journal to the store, about 2,000 kicks at a time and in a thread: no
    answer waits for it, and a process that dies forgets no kick that it had still to be asked of.

    Args:
        load: loads the model, or says None where there is none: now, and again when it is to be changed.

    Attributes:
        load: as above.
        model: what is asked; another may take its place.
        state: in words how it does: `ok`, or what is wrong.
    """

    def __init__(self, load: Callable[[], Model | None]) -> None:
        self.load = load
        self.model = load()
        self.state = "ok"

    async def complete(self, batches: Sequence[RecordBatch]) -> list[RecordBatch]:
        """Add what it says to predictions, in their order; where it fails, they stay as they are."""
        model = self.model
        due = [each for each in batches if _lacks_it(each)]
        if model is None or not due:
            return [*batches]
        try:
            answers = iter(await asyncio.to_thread(_answers, model, due))
        except PredictionFailed as error:
            self._note(f"{error}: predictions are kept without it")
            return [*batches]
        self._note("ok")
        return [replace(each, shadow=next(answers)) if _lacks_it(each) else each for each in batches]

    def _note(self, state: str) -> None:
        """Remember how it does, and log when that changes."""
        if state != self.state:
            _log.warning("the model that is asked as well: %s", state)
        self.state = state


def _lacks_it(batch: RecordBatch) -> bool:
    return batch.error is None and batch.shadow is None


def _answers(model: Model, batches: Sequence[RecordBatch]) -> list[ShadowAnswers]:
    probability: NDArray[Any] = predict(model, numbers_of(batches)[:, :COUNT]).probability.astype(NUMBER)
    card, answers, at = model.card, [], 0
    for batch in batches:
        part = probability[at : at + len(batch)]
        answers.append(ShadowAnswers(card.name, card.revision, part.tobytes()))
        at += len(batch)
    return answers
