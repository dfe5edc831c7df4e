"""Plugins: the base class with its hooks, their discovery, and all that a plugin may import of the core.

A plugin is an entry point: a factory that takes the `Settings` and returns a `Plugin`. Hooks do nothing until
they are overridden. A plugin imports from this module, and from `kickserve.features`, `kickserve.schemas` and
`kickserve.errors`; libraries (`kickserve_data`, `kickserve_scores`, …) are open to it too, other plugins are
not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from litestar.plugins import CLIPlugin, InitPlugin
from packaging.requirements import Requirement

from kickserve import kinds, problems
from kickserve.addresses import FORWARDED_FOR, identity
from kickserve.auth import (
    ANONYMOUS,
    DEFAULT_KEY,
    KEY_NAME,
    MEANINGS,
    NO_KEY,
    Authenticator,
    Key,
    KeyRing,
    Principal,
    Scope,
    default_keys,
    requires,
)
from kickserve.batching import cancel_task
from kickserve.errors import (
    ConfigurationError,
    KickserveError,
    MissingExtra,
    StoreMisconfigured,
    TooManyRequests,
    UnknownPlugin,
)
from kickserve.middleware import REQUEST_ID, App, app_of, request_context
from kickserve.model import SMOKE_KICKS, TYPICAL, Answer, AnswersOne, Model, ModelFile, Origin, predict
from kickserve.openapi import EXAMPLE, TakesKick, answers, refusals, takes
from kickserve.parameters import (
    Before,
    Limit,
    Since,
    ThePredictor,
    TheRecorder,
    Until,
    parse_instant,
    read_body,
)
from kickserve.record import RecordBatch, numbers_of
from kickserve.settings import Settings, SettingsTable, setting
from kickserve.validation import out_of_range, read_kick

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from click import Group
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp

    from kickserve.schemas import DriftSummary
    from kickserve.store import Store

__all__ = [
    "ANONYMOUS",
    "API",
    "DEFAULT_KEY",
    "EXAMPLE",
    "FORWARDED_FOR",
    "KEY_NAME",
    "MEANINGS",
    "NO_KEY",
    "REQUEST_ID",
    "SMOKE_KICKS",
    "TYPICAL",
    "Answer",
    "AnswersOne",
    "App",
    "Authenticator",
    "Before",
    "ConfigurationError",
    "Key",
    "KeyRing",
    "KickserveError",
    "Limit",
    "Metric",
    "MissingExtra",
    "Model",
    "ModelFile",
    "Origin",
    "Plugin",
    "Principal",
    "RecordBatch",
    "Scope",
    "Settings",
    "SettingsTable",
    "Since",
    "StoreMisconfigured",
    "TakesKick",
    "ThePredictor",
    "TheRecorder",
    "TooManyRequests",
    "UnknownPlugin",
    "Until",
    "answers",
    "app_of",
    "cancel_task",
    "create_authenticator",
    "create_store",
    "default_keys",
    "discover",
    "drift_reports",
    "identity",
    "kinds",
    "newest_drift",
    "numbers_of",
    "open_store",
    "out_of_range",
    "overridden",
    "parse_instant",
    "plugins_of",
    "predict",
    "problems",
    "read_body",
    "read_kick",
    "refusals",
    "request_context",
    "requires",
    "setting",
    "takes",
]

API: Final = "/api/v1"
GROUP: Final = "kickserve.plugins"
"""Entry points that `KICKSERVE_PLUGINS` picks from."""
STANDARD: Final = "kickserve.standard"
"""Entry points that every service loads, whatever `KICKSERVE_PLUGINS` picks."""

_log = logging.getLogger(__name__)


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
        """Add routes, lifespan managers and the like to the application."""
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

        No answer waits for it; the store does. An exception would hold up the store for good.
        """
        return batches

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
        """Write as this worker, from 0, from now on.

        Called in each of several workers, before `create_app`.
        """

    def on_predictions(self, batch: RecordBatch) -> None:
        """Take note of predictions that were recorded together.

        Called in the event loop on the way of their answers: note them, and do the work later. An exception
        would hurt the answers.
        """

    def metrics(self) -> Iterable[Metric]:
        """Return values for `/metrics`, over all workers."""
        return ()

    def health(self) -> Mapping[str, str]:
        """Return the state of each part of the plugin for `/health`: `ok`, or a description of the fault."""
        return {}

    def drift(self) -> DriftSummary | None:
        """Return the newest summary of drift, over all workers; None before there are enough kicks."""
        return None

    def drift_reports(self) -> Path | None:
        """Return the folder of full reports of drift."""
        return None


class _LitestarPlugin(Plugin):
    """A plain Litestar plugin as a `Plugin`.

    Args:
        settings: of the core.
        plugin: what the factory returned.
    """

    def __init__(self, settings: Settings, plugin: InitPlugin | CLIPlugin) -> None:
        super().__init__(settings)
        self._plugin = plugin

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        return self._plugin.on_app_init(app_config) if isinstance(self._plugin, InitPlugin) else app_config

    def on_cli_init(self, cli: Group) -> None:
        if isinstance(self._plugin, CLIPlugin):
            self._plugin.on_cli_init(cli)


def discover(settings: Settings) -> list[Plugin]:
    """Make the standard plugins, and those of `KICKSERVE_PLUGINS` or else all with their requirements met.

    A plugin whose name is also an extra of its distribution needs the packages of that extra.

    Raises:
        UnknownPlugin: `KICKSERVE_PLUGINS` names a plugin that is not installed.
        MissingExtra: it names a plugin whose extra is not installed.
        ConfigurationError: a factory returned something else than a plugin.
        Exception: an error inside a plugin passes as it is, with its own traceback.
    """
    found = {point.name: point for point in _entry_points(GROUP)}
    wanted = settings.plugins
    for name in wanted or ():
        if name not in found:
            raise UnknownPlugin(_unknown(name, found))
    chosen = [
        point
        for name, point in found.items()
        if (wanted is None or name in wanted) and _installed(point, required=wanted is not None)
    ]
    return [_make(point, settings) for point in [*_entry_points(STANDARD), *chosen]]


def create_store(plugins: Sequence[Plugin], url: str) -> Store:
    """Return the store for a database URL, by the first plugin that knows its scheme.

    Raises:
        StoreMisconfigured: no loaded plugin knows the scheme, or the URL can't be used.
    """
    for plugin in plugins:
        if (store := plugin.create_store(url)) is not None:
            return store
    scheme = url.partition(":")[0]
    raise StoreMisconfigured(
        f"DATABASE_URL starts with '{scheme}:', which no loaded plugin can store to: use sqlite: or"
        " postgresql:, or see whether KICKSERVE_PLUGINS leaves the plugin storage out"
    )


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the store of the settings, for a command that works without a server.

    Raises:
        StoreError: it can't be opened.
        ConfigurationError: plugins or URL can't be used.
    """
    store = create_store(discover(settings), settings.database_url)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def create_authenticator(plugins: Sequence[Plugin], settings: Settings) -> Authenticator:
    """Return the authenticator of the first plugin that brings one, or else the core's.

    Raises:
        ConfigurationError: keys can't be read.
    """
    for plugin in plugins:
        if (authenticator := plugin.create_authenticator()) is not None:
            return authenticator
    return Authenticator(settings)


def plugins_of(app: App) -> list[Plugin]:
    """Return the plugins of an application."""
    return [plugin for plugin in app.plugins if isinstance(plugin, Plugin)]


def overridden(plugins: Sequence[Plugin], hook: str) -> list[Any]:
    """Return a hook of the plugins that override it: on the way of a prediction no other is called."""
    found = [getattr(plugin, hook) for plugin in plugins]
    return [each for each in found if getattr(each, "__func__", None) is not getattr(Plugin, hook)]


def newest_drift(app: App) -> DriftSummary | None:
    """Return the newest summary of drift of an application; None without the plugin, or too few kicks."""
    summaries = (plugin.drift() for plugin in plugins_of(app))
    return next((summary for summary in summaries if summary is not None), None)


def drift_reports(app: App) -> Path | None:
    """Return the folder of full reports of drift of an application; None without the plugin."""
    folders = (plugin.drift_reports() for plugin in plugins_of(app))
    return next((folder for folder in folders if folder is not None), None)


def _entry_points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: point.name)


def _unknown(name: str, found: Mapping[str, EntryPoint]) -> str:
    installed = ", ".join(found) or "none"
    return f"KICKSERVE_PLUGINS names '{name}', which is not installed (installed: {installed})"


def _installed(point: EntryPoint, *, required: bool) -> bool:
    missing = _missing_packages(point)
    if missing and required:
        raise MissingExtra(f"The plugin '{point.name}'", point.name, missing)
    if missing:
        _log.debug("plugin %s left out: %s not installed", point.name, ", ".join(missing))
    return not missing


def _missing_packages(point: EntryPoint) -> list[str]:
    """Return the packages of the plugin's extra that are not installed.

    The metadata is asked, and no import is tried: a bug inside a plugin must not pass for a missing package.
    """
    distribution: Distribution | None = point.dist
    if distribution is None:
        return []
    extras, requirements = _requirements(distribution)
    if point.name not in extras:
        return []
    return [each.name for each in requirements if _only_for(each, point.name) and not _present(each.name)]


@lru_cache(maxsize=8)  # metadata is long, and the plugins of one distribution share it
def _requirements(distribution: Distribution) -> tuple[frozenset[str], tuple[Requirement, ...]]:
    """Return the extras of a distribution, and its requirements, those of extras included."""
    extras = frozenset(distribution.metadata.get_all("Provides-Extra") or ())
    return extras, tuple(map(Requirement, distribution.requires or ()))


def _only_for(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _present(package: str) -> bool:
    try:
        Distribution.from_name(package)
    except PackageNotFoundError:
        return False
    return True


def _make(point: EntryPoint, settings: Settings) -> Plugin:
    plugin = point.load()(settings)
    if isinstance(plugin, Plugin):
        return plugin
    if isinstance(plugin, InitPlugin | CLIPlugin):
        return _LitestarPlugin(settings, plugin)
    raise ConfigurationError(
        f"the plugin '{point.name}' ({point.value}) returned {type(plugin).__name__}:"
        " its factory must return a kickserve.plugins.Plugin"
    )
