"""Discovery of plugins, and the surface of the core that a plugin imports: this one module.

`kickserve.hooks.Plugin` is the base class. `kickserve.features` (the eleven features), `kickserve.schemas`
(what goes in and out) and `kickserve.errors` are open to plugins too.
"""
# ruff: noqa: F401 - imported for plugins

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager, suppress
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points
from typing import TYPE_CHECKING, Any, Final

from litestar.plugins import CLIPlugin, InitPlugin
from packaging.requirements import Requirement

from kickserve import __version__, kinds, problems
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
    credential,
    default_keys,
    requires,
)
from kickserve.batching import cancel_task, yield_to_loop
from kickserve.documents import NORMAL_975, expit, header_of, mean_shrink
from kickserve.errors import (
    ConfigurationError,
    Forbidden,
    InvalidInput,
    KickserveError,
    MalformedBody,
    MissingExtra,
    ModelUnusable,
    PredictionFailed,
    RecordNotFound,
    RecordUnfit,
    RequestError,
    SettingsError,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    UnknownPlugin,
)
from kickserve.hooks import Metric, Plugin
from kickserve.ids import canonical, first_id_at, first_id_in, instant
from kickserve.learner import Learner
from kickserve.limited import LimitedThread, call_within
from kickserve.linear import (
    POSTS_APART,
    SURFACE,
    SURFACE_ANGLES,
    SURFACE_DISTANCES,
    LinearDocument,
    LinearModel,
    expand,
    fingerprint,
    load_default,
)
from kickserve.loading import fetch_model, load_file, load_model, load_source, profile_of, source_of
from kickserve.metrics import BINS, BOUNDS, Metrics, Reading
from kickserve.middleware import (
    REQUEST_ID,
    SAFE,
    SANDBOX,
    App,
    SecurityHeaders,
    app_of,
    nonce_of,
    request_context,
    with_nonce,
)
from kickserve.model import (
    SMOKE_KICKS,
    TYPICAL,
    Answer,
    AnswersOne,
    Cancellable,
    HasProfile,
    Model,
    ModelFile,
    Origin,
    Profile,
    cancel_of,
    predict,
    predict_checked,
    wrong_name,
)
from kickserve.openapi import EXAMPLE, TakesKick, refusals, takes
from kickserve.parameters import (
    Before,
    Limit,
    Since,
    ThePredictor,
    TheRecorder,
    Until,
    format_query,
    parse_cursor,
    parse_instant,
    preferred,
    read_body,
)
from kickserve.predictor import Predictor, Scorer, ServedModel
from kickserve.process import ProcessSampler
from kickserve.record import (
    LEARNED_WIDTH,
    NOTHING_LEARNED,
    NUMBER,
    EncodedLearned,
    Forget,
    RecordBatch,
    SetOutcome,
    ShadowAnswers,
    decode_learned,
    encode_learned,
    numbers_of,
)
from kickserve.recorder import Recorder
from kickserve.settings import Settings, SettingsTable, setting
from kickserve.shared import find_slot, integers, shared_array, sum_by_label
from kickserve.store import (
    ALL,
    BEGINNING,
    KnownOutcome,
    LabelledPrediction,
    Order,
    OutcomeChanges,
    Selection,
    Store,
)
from kickserve.terminal import (
    AUTO,
    FiniteRange,
    Instant,
    ServiceUrl,
    print_facts,
    print_json,
    print_table,
    progress,
    say,
    stdout,
)
from kickserve.validation import kicker_fault, out_of_range, read_kick
from kickserve.wholefile import atomic_write, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from click import Group
    from litestar.config.app import AppConfig

    from kickserve.schemas import DriftSummary

__all__ = [  # the stable names; the others are imported for the plugins of kickserve itself
    "API",
    "NOTHING_LEARNED",
    "App",
    "Authenticator",
    "EncodedLearned",
    "Learner",
    "Metric",
    "Model",
    "ModelFile",
    "Plugin",
    "RecordBatch",
    "Scope",
    "Settings",
    "SettingsTable",
    "Since",
    "Store",
    "ThePredictor",
    "TheRecorder",
    "Until",
    "app_of",
    "encode_learned",
    "kinds",
    "numbers_of",
    "parse_instant",
    "problems",
    "refusals",
    "requires",
    "setting",
    "shared_array",
]

API: Final = "/api/v1"
GROUP: Final = "kickserve.plugins"
"""Entry points that `KICKSERVE_PLUGINS` picks from."""
STANDARD: Final = "kickserve.standard"
"""Entry points that every service loads, whatever `KICKSERVE_PLUGINS` picks."""

_PREFIX: Final = "KICKSERVE_"
_NEAR: Final = 0.75  # similarity of names from which one is taken for a misspelt other (`difflib`)
# Variables of compose.yaml, and those that Kubernetes sets for Services whose names begin with kickserve.
_FOREIGN: Final = re.compile(
    r"KICKSERVE_(ADDRESS|EXTRAS|IMAGE|(\w+_)?SERVICE_(HOST|PORT\w*)|(\w+_)?PORT_\d+_\w+)"
)

_log = logging.getLogger(__name__)


class _LitestarPlugin(Plugin):
    """A plain Litestar plugin as a `Plugin`.

    Args:
        settings: of the core.
        plugin: what the factory returned.
    """

    def __init__(self, settings: Settings, plugin: InitPlugin | CLIPlugin) -> None:
        super().__init__(settings)
        for hook in ("on_app_init", "on_cli_init"):
            if hasattr(plugin, hook):
                setattr(self, hook, getattr(plugin, hook))


def discover(settings: Settings) -> list[Plugin]:
    """Make the standard plugins, and those of `KICKSERVE_PLUGINS` or else all with their requirements met.

    A plugin whose name is also an extra of its distribution needs the packages of that extra.

    Raises:
        SettingsError: a variable is misspelt.
        UnknownPlugin: `KICKSERVE_PLUGINS` names a plugin that is not installed.
        MissingExtra: it names a plugin whose extra is not installed.
        ConfigurationError: a factory returned something else than a plugin, or two plugins share a name.
        Exception: an error inside a plugin passes as it is, with its own traceback.
    """
    standard, optional = _entry_points(STANDARD), _entry_points(GROUP)
    _check_names([*standard, *optional])
    found = {point.name: point for point in optional}
    wanted = settings.plugins
    for name in wanted or ():
        if name not in found and name not in {point.name for point in standard}:
            raise UnknownPlugin(_unknown(name, found))
    chosen = [
        point
        for name, point in found.items()
        if (wanted is None or name in wanted) and _installed(point, required=wanted is not None)
    ]
    plugins = [_make(point, settings) for point in [*standard, *chosen]]
    _check_variables(settings.environ, [*standard, *optional])
    return plugins


def create_store(plugins: Sequence[Plugin], url: str) -> Store:
    """Return the store for a database URL, by the first plugin that knows its scheme.

    Raises:
        StoreMisconfigured: no loaded plugin knows the scheme, or the URL can't be used.
    """
    for plugin in plugins:
        if (store := plugin.create_store(url)) is not None:
            return store
    scheme, colon, _ = url.partition("://")
    scheme = scheme.partition("+")[0]  # a driver may follow
    # Of a URL that can't be understood nothing is shown: a password may be anywhere in it.
    named = colon and scheme.isalnum()
    start = f"starts with '{scheme}:', which no loaded plugin supports" if named else "has no scheme"
    raise StoreMisconfigured(
        f"DATABASE_URL {start}: use sqlite: or postgresql:, or check that KICKSERVE_PLUGINS includes the"
        " plugin storage"
    )


@asynccontextmanager
async def open_store(settings: Settings, *, read_only: bool = False) -> AsyncIterator[Store]:
    """Open the store of the settings, for a command that works without a server.

    Args:
        settings: name the store.
        read_only: as in `Store.open`.

    Raises:
        StoreError: it can't be opened.
        ConfigurationError: plugins or URL can't be used.
    """
    store = create_store(discover(settings), settings.database_url)
    try:
        await store.open(read_only=read_only)
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


def create_learner(plugins: Sequence[Plugin]) -> Learner | None:
    """Return the learner of the first plugin that brings one."""
    return next(filter(None, (plugin.create_learner() for plugin in plugins)), None)


def plugins_of(app: App) -> list[Plugin]:
    """Return the plugins of an application."""
    return [plugin for plugin in app.plugins if isinstance(plugin, Plugin)]


def installed_names(plugins: Sequence[Plugin]) -> tuple[list[str], list[str]]:
    """Return the names of loaded plugins, and of those that lack the packages of their extra."""
    packages = {type(plugin).__module__.partition(".")[0] for plugin in plugins}
    standard, optional = _entry_points(STANDARD), _entry_points(GROUP)
    loaded = [each.name for each in [*standard, *optional] if each.module.partition(".")[0] in packages]
    return loaded, [each.name for each in optional if _missing_packages(each)]


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


def _check_variables(environ: Mapping[str, str], points: Sequence[EntryPoint]) -> None:
    """Refuse variables that are nearly settings, and warn of others that are none."""
    given = {
        name for name, value in environ.items() if name.startswith(_PREFIX) and not _is_foreign(name, value)
    }
    if not given - _variables_known():
        return
    for point in points:  # settings of plugins that are not loaded are no mistakes
        with suppress(ImportError):
            point.load()
    known = {name.removeprefix(_PREFIX): name for name in _variables_known()}  # API_KEY has no prefix
    for name in sorted(given - _variables_known()):
        if near := get_close_matches(name.removeprefix(_PREFIX), known, 1, _NEAR):
            raise SettingsError(f"{name} is no setting: did you mean {known[near[0]]}?")
        _warn_of(name)


def _is_foreign(name: str, value: str) -> bool:
    return _FOREIGN.fullmatch(name) is not None or value.startswith("tcp://")


def _variables_known() -> set[str]:
    return {name for table in SettingsTable.__subclasses__() for name in table.variables_known()}


@lru_cache  # once a process, however often plugins are discovered
def _warn_of(variable: str) -> None:
    _log.warning("the variable %s is no setting of kickserve or its plugins", variable)


def _entry_points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: point.name)


def _check_names(points: Sequence[EntryPoint]) -> None:
    known: dict[str, EntryPoint] = {}
    for point in points:
        if (other := known.setdefault(point.name, point)) is not point:
            raise ConfigurationError(
                f"two plugins are called '{point.name}' ({other.value} and {point.value}): uninstall one"
            )


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
