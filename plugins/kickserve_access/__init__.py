"""The plugin `access`: several keys with scopes, and rate limits (standard)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kickserve.plugins import Metric, Plugin
from kickserve_access.settings import AccessSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from click import Group
    from litestar import Litestar
    from litestar.config.app import AppConfig

    from kickserve.plugins import Settings
    from kickserve_access.authenticator import AccessAuthenticator

__all__ = ["AccessPlugin", "create_plugin"]


def create_plugin(settings: Settings) -> AccessPlugin:
    """Make the plugin: the entry point names this function."""
    return AccessPlugin(settings)


class AccessPlugin(Plugin):
    """Authenticates by `API_KEY` and by the keys of a file, and limits how often a client may ask."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table: AccessSettings = AccessSettings.load(settings.environ)
        self._authenticator: AccessAuthenticator | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Follow the file of keys while the service runs."""
        app_config.lifespan.append(self._following)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add `kickserve key`."""
        from kickserve_access.command import command

        cli.add_command(command)

    def create_authenticator(self) -> AccessAuthenticator:
        """Return the authenticator: one, made before a fork, so that workers share its memory."""
        if self._authenticator is None:
            from kickserve_access.authenticator import AccessAuthenticator

            self._authenticator = AccessAuthenticator(self.settings, self.table)
        return self._authenticator

    def join_worker(self, number: int) -> None:
        """Count in the part of this worker from now on."""
        self.create_authenticator().counts.join_worker(number)

    def metrics(self) -> Iterable[Metric]:
        """Yield the requests by key, over all workers."""
        for name, count in sorted(self.create_authenticator().counts.read().items()):
            yield Metric(
                "kickserve_key_requests_total",
                "Admitted requests, by the name of the key.",
                count,
                {"key": name},
                "counter",
            )

    @asynccontextmanager
    async def _following(self, _: Litestar) -> AsyncIterator[None]:
        async with self.create_authenticator().following():
            yield
