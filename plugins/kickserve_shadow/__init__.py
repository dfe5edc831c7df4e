"""The plugin `shadow`: a second model predicts every kick too, off the path, for a comparison."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kickserve.features import COUNT
from kickserve.plugins import (
    NUMBER,
    LimitedThread,
    Plugin,
    PredictionFailed,
    SettingsTable,
    ShadowAnswers,
    cancel_of,
    kinds,
    load_source,
    numbers_of,
    predict_checked,
    setting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from litestar.config.app import AppConfig
    from numpy.typing import NDArray

    from kickserve.plugins import Model, RecordBatch, Settings

__all__ = ["ShadowPlugin", "create_plugin"]

_log = logging.getLogger(__name__)


def create_plugin(settings: Settings) -> ShadowPlugin:
    """Make the plugin: the entry point names this function."""
    return ShadowPlugin(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSettings(SettingsTable):
    """The setting of the plugin."""

    source: str | None = setting(
        "KICKSERVE_SHADOW",
        "",
        kinds.text,
        "Second model that predicts the same kicks in the background, for comparison in `/quality`: a file,"
        " `hf:owner/name` with an optional `@revision`, or `default` for the packaged model.",
    )


class ShadowPlugin(Plugin):
    """Adds the predictions of a second model on the way from the journal to the store.

    It predicts about 2,000 kicks at a time, in a thread: no answer waits for it, and a process that dies
    leaves no kick without it. Where it fails, or takes too long, the kicks are stored without it.

    Args:
        settings: of the core.

    Attributes:
        model: the second model; None without `KICKSERVE_SHADOW`.
        state: `ok`, or the fault in words.
    """

    table: ShadowSettings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table = ShadowSettings.load(settings.environ)
        self.model: Model | None = None
        self.state = "ok"
        # Half: readers of what was just predicted wait for it.
        self._thread = LimitedThread("shadow", settings.model_timeout / 2, self._cancel)
        self._plugins: Sequence[Plugin] = ()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Load the model, with the help of the other plugins."""
        self._plugins = [plugin for plugin in app_config.plugins if isinstance(plugin, Plugin)]
        self.model = self._load()
        app_config.on_shutdown.append(partial(self._thread.shutdown))
        return app_config

    def reload(self) -> Callable[[], None]:
        """Load the model again, and return a function that puts it in place."""
        model = self._load()

        def commit() -> None:
            self.model = model

        return commit

    def health(self) -> Mapping[str, str]:
        """Return the state of the second model, where there is one."""
        state = self._thread.state if self.state == "ok" else self.state
        return {} if self.model is None else {"shadow": state}

    def second_model(self) -> Model | None:
        """Return the second model."""
        return self.model

    async def complete(self, batches: Sequence[RecordBatch]) -> Sequence[RecordBatch]:
        """Add the second model's predictions; where it fails, the batches stay as they are."""
        model = self.model
        due = [batch for batch in batches if _is_due(batch)]
        if model is None or not due:
            return batches
        try:
            loop = asyncio.get_running_loop()
            answers = iter(await loop.run_in_executor(self._thread, _answers, model, due))
        except PredictionFailed as error:
            self._set_state(f"{error}: predictions are stored without the second model")
            return batches
        self._set_state("ok")
        return [replace(batch, shadow=next(answers)) if _is_due(batch) else batch for batch in batches]

    def _load(self) -> Model | None:
        return None if self.table.source is None else load_source(self.table.source, self._plugins)

    def _cancel(self) -> None:
        if self.model is not None:
            cancel_of(self.model)()

    def _set_state(self, state: str) -> None:
        if state != self.state:
            _log.warning("the second model: %s", state)
        self.state = state


def _is_due(batch: RecordBatch) -> bool:
    return batch.error is None and batch.shadow is None


def _answers(model: Model, batches: Sequence[RecordBatch]) -> list[ShadowAnswers]:
    probability: NDArray[Any] = predict_checked(model, numbers_of(batches)[:, :COUNT]).probability.astype(
        NUMBER
    )
    card, answers, at = model.card, [], 0
    for batch in batches:
        part = probability[at : at + len(batch)]
        answers.append(ShadowAnswers(card.name, card.revision, part.tobytes()))
        at += len(batch)
    return answers
