"""Finds plugins by entry point and makes them. The core knows plugins by this file alone."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points
from typing import TYPE_CHECKING, Final

from litestar.plugins import CLIPlugin, InitPlugin
from packaging.requirements import Requirement

from kickserve.errors import ConfigurationError, MissingExtra, StoreMisconfigured, UnknownPlugin
from kickserve.store import StoreProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kickserve.settings import Settings
    from kickserve.store import Store

GROUP: Final = "kickserve.plugins"
STANDARD: Final = "kickserve.standard"
"""Entry points of what every kickserve has, whatever `KICKSERVE_PLUGINS` picks."""
Plugin = InitPlugin | CLIPlugin

_log = logging.getLogger(__name__)


def load_plugins(settings: Settings) -> list[Plugin]:
    """Make the plugins that the settings ask for, by default all whose requirements are installed.

    A plugin is an entry point in the group `kickserve.plugins`: a factory that takes the settings and
    returns a Litestar `InitPlugin` or `CLIPlugin` (or both in one). A plugin whose name is also an extra
    of its distribution needs what that extra lists.

    Raises:
        UnknownPlugin: a plugin was asked for by name that is not installed.
        MissingExtra: a plugin was asked for by name whose extra is not installed.
        ConfigurationError: a factory returned something that is no plugin.
        Exception: whatever a plugin itself raises goes through as it is, with its own traceback.
    """
    found = {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda each: each.name)}
    asked = settings.plugins
    for name in asked or ():
        if name not in found:
            raise UnknownPlugin(_unknown(name, found))
    standard = sorted(entry_points(group=STANDARD), key=lambda each: each.name)
    return [_make(point, settings) for point in standard] + [
        _make(point, settings)
        for name, point in found.items()
        if (asked is None or name in asked) and _installed(point, asked_for=asked is not None)
    ]


def create_store(plugins: Sequence[Plugin], url: str) -> Store:
    """Make the store for a database URL with the plugin that knows its scheme.

    Raises:
        StoreMisconfigured: no loaded plugin knows the scheme, or the URL can't be understood.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    providers = [plugin for plugin in plugins if isinstance(plugin, StoreProvider)]
    for provider in providers:
        if scheme in provider.schemes:
            return provider.create_store(url)
    known = ", ".join(sorted({f"{name}:" for provider in providers for name in provider.schemes}))
    raise StoreMisconfigured(
        f"DATABASE_URL starts with '{scheme}:', which no loaded plugin can store to"
        f" (known: {known or 'none; is the plugin storage left out of KICKSERVE_PLUGINS?'})"
    )


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the store that the settings name, for a command that works without a server.

    Raises:
        StoreError: it can't be opened.
        ConfigurationError: plugins or URL can't be used.
    """
    store = create_store(load_plugins(settings), settings.database_url)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def _unknown(name: str, found: dict[str, EntryPoint]) -> str:
    installed = ", ".join(found) or "none"
    return f"KICKSERVE_PLUGINS names '{name}', which is not installed (installed: {installed})"


def _installed(point: EntryPoint, *, asked_for: bool) -> bool:
    missing = _missing_packages(point)
    if missing and asked_for:
        raise MissingExtra(f"The plugin '{point.name}'", point.name, missing)
    if missing:
        _log.debug("plugin %s left out: %s not installed", point.name, ", ".join(missing))
    return not missing


def _missing_packages(point: EntryPoint) -> list[str]:
    """Return the packages of the plugin's extra that are not installed.

    Asking the metadata, and not trying the import, keeps a real bug inside a plugin from being taken
    for a missing package.
    """
    distribution: Distribution | None = point.dist
    if distribution is None:
        return []
    extras, requirements = _described(distribution)
    if point.name not in extras:
        return []
    return [each.name for each in requirements if _only_for(each, point.name) and not _present(each.name)]


@lru_cache(maxsize=8)  # a description is long, and the plugins of one distribution share it
def _described(distribution: Distribution) -> tuple[frozenset[str], tuple[Requirement, ...]]:
    """Return the extras of a distribution, and what it requires, with any of them or without."""
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
    if not isinstance(plugin, InitPlugin | CLIPlugin):
        raise ConfigurationError(
            f"the plugin '{point.name}' ({point.value}) returned {type(plugin).__name__}:"
            " its factory must return a litestar.plugins.InitPlugin or CLIPlugin"
        )
    return plugin
