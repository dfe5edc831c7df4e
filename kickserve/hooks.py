"""The hooks of a plugin: each does nothing until it is overridden.

A plugin is an entry point: a factory that takes the `Settings` and returns a `Plugin`. All that it needs of
the core it imports from `kickserve.plugins`; libraries (`kickserve_data`, `kickserve_scores`, …) are open to
it too, other plugins are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from litestar.plugins import CLIPlugin, InitPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from click import Group
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.auth import Authenticator
    from kickserve.learner import Learner
    from kickserve.middleware import App
    from kickserve.model import Model, ModelFile
    from kickserve.record import RecordBatch
    from kickserve.schemas import DriftSummary
    from kickserve.settings import Settings, SettingsTable
    from kickserve.store import Store


class Metric(NamedTuple):
    """One value at `/metrics`.

    Attributes:
        name: in the manner of Prometheus, with its unit: `kickserve_drift_psi`; of a counter with `_total`.
        help: one sentence.
        value: the value now.
        labels: labels by name.
        kind: of metric.
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}
    kind: Literal["gauge", "counter"] = "gauge"


class Plugin(InitPlugin, CLIPlugin):
    """A plugin, with hooks that do nothing until they are overridden.

    `on_app_init` (routes, lifespan) and `on_cli_init` (commands) are Litestar's own hooks.

    Args:
        settings: of the core; `settings.environ` is what the plugin's own `SettingsTable` is loaded from.

    Attributes:
        settings: the same.
        table: the plugin's own settings; None where it has none.
    """

    table: SettingsTable | None = None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add routes, lifespan managers and the like to `app_config`, and return it."""
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add commands to the command line."""

    def create_store(self, url: str) -> Store | None:  # noqa: ARG002
        """Return the store for a database URL, not connected yet; None for a scheme of another plugin.

        Raises:
            StoreMisconfigured: the URL can't be used.
            MissingExtra: the driver of the store is not installed.
        """
        return None

    def fetch_model(self, source: str) -> ModelFile | None:  # noqa: ARG002
        """Return the file of a model, not loaded yet; None for a source that the plugin does not know.

        Args:
            source: the value of `KICKSERVE_MODEL` or `KICKSERVE_SHADOW`: a path, `hf:owner/name@revision`, …;
                empty where `KICKSERVE_MODEL` is.

        Raises:
            ModelUnusable: it can't be found, read or trusted.
        """
        return None

    def load_model(self, file: ModelFile) -> Model | None:  # noqa: ARG002
        """Return the model of a file; None for a kind of file that the plugin does not know.

        Raises:
            ModelUnusable: it can't be trusted, or is no model of its kind.
            MissingExtra: its kind needs an extra that is not installed.
        """
        return None

    def reload(self) -> Callable[[], None] | None:
        """Load again the models of the plugin's own, and return a function that puts them in place.

        Called in a thread when the model is reloaded. The function is called only where everything has
        loaded: all models change, or none.

        Raises:
            ModelUnusable: a model can't be loaded.
            MissingExtra: its kind needs an extra that is not installed.
        """
        return None

    async def complete(self, batches: Sequence[RecordBatch]) -> Sequence[RecordBatch]:
        """Return predictions with additions of the plugin, in the same order, on their way to the store.

        No answer waits for it; the store does. After an exception they are stored as they were.
        """
        return batches

    def create_learner(self) -> Learner | None:
        """Return what takes the outcomes of earlier kicks into account in each answer; the first one does."""
        return None

    def create_authenticator(self) -> Authenticator | None:
        """Return the authenticator of the service; it is asked for once before workers are forked."""
        return None

    def create_protocol(self, app: App) -> Callable[..., object] | None:  # noqa: ARG002
        """Return a factory of uvicorn's HTTP connections; None for uvicorn's own."""
        return None

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return an ASGI application around every request: a profiler or a tracer."""
        return app

    def wrap_router(self, router: ASGIApp, app: App) -> ASGIApp:  # noqa: ARG002
        """Return an ASGI application between the middleware and the router of `app`."""
        return router

    def serve_workers(self, settings: Settings, plugins: Sequence[Plugin]) -> int | None:  # noqa: ARG002
        """Serve with several workers, and return the exit code; None where the plugin can't."""
        return None

    def share_memory(self, workers: int) -> None:
        """Make memory that all workers see. Called once, before workers are forked or a single one serves."""

    def join_worker(self, number: int) -> None:
        """Write to row `number` of shared memory from now on.

        Called in each of several workers, before `create_app`.

        Args:
            number: of the worker, from 0.
        """

    def on_predictions(self, batch: RecordBatch) -> None:
        """Take note of predictions that were recorded together.

        Called in the event loop before their answers leave: note them, and do the work later. An exception is
        logged, and the answers leave all the same.
        """

    def metrics(self) -> Iterable[Metric]:
        """Return values for `/metrics`, over all workers."""
        return ()

    def health(self) -> Mapping[str, str]:
        """Return the state of each part of the plugin for `/health`, by name: `ok`, or its fault in words."""
        return {}

    def second_model(self) -> Model | None:
        """Return a model that is loaded beside the current one, so that the two can be compared."""
        return None

    def drift(self) -> DriftSummary | None:
        """Return the newest summary of drift, over all workers; None before there are enough kicks."""
        return None

    def drift_reports(self) -> Path | None:
        """Return the folder of full reports of drift."""
        return None
