"""What all pages have in common while an application serves them: the service, and who may see what."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from kickserve.addresses import identity
from kickserve.errors import ConfigurationError
from kickserve.plugins import NO_KEY
from kickserve_ui.heat import Maps
from kickserve_ui.leftovers import Leftovers
from kickserve_ui.secret import pass_for
from kickserve_ui.shared_quality import SharedQuality

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import Request

    from kickserve.auth import Authenticator
    from kickserve.plugins import Key, Scope
    from kickserve.service import Service

_ADMITTED: Final = "admitted"


@dataclass(eq=False)
class Site:
    """The page of an application.

    Attributes:
        service: what it shows.
        gate: knows the keys.
        secret: what sessions are signed with.
        reports: folder of the full reports of drift.
        maps: those that were made.
        leftovers: what is left of pages.
    """

    service: Service
    gate: Authenticator
    secret: str
    reports: Path
    maps: Maps = field(default_factory=Maps)
    leftovers: Leftovers = field(default_factory=Leftovers)

    @cached_property
    def quality(self) -> SharedQuality:
        """How good the predictions were."""
        return SharedQuality(self.service)

    def key_of(self, request: Request) -> Key | None:
        """Return the key that this visitor has signed in with, where it still opens something."""
        if not self.gate.guarded:
            return NO_KEY
        shown = str(request.session.get(_ADMITTED, ""))
        passes = ((key, pass_for(key.digest, self.secret)) for key in self.gate.keys)
        found = (key for key, expected in passes if secrets.compare_digest(shown, expected))
        return next((key for key in found if self.gate.keys.holds(key)), None)

    def admits(self, request: Request, scope: Scope) -> bool:
        """Say whether this visitor may do what this scope says."""
        key = self.key_of(request)
        return key is not None and scope in key.scopes

    def sign_in(self, request: Request, key: str) -> None:
        """Remember in the session that this visitor has a key.

        Raises:
            Unauthorized: it is none that opens anything.
            TooManyRequests: too many wrong ones came from where it comes from.
        """
        address = identity(request.client.host) if request.client else b""
        found = self.gate.identify(key.encode(), address)
        request.session[_ADMITTED] = pass_for(found.digest, self.secret)

    def sign_out(self, request: Request) -> None:
        """Forget it."""
        request.session.pop(_ADMITTED, None)


_sites: list[Site] = []  # one, or none: NiceGUI knows pages by their process alone


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """Have the pages of this process show a site until the block ends.

    Raises:
        ConfigurationError: they show another one.
    """
    if _sites:
        raise ConfigurationError("another application of this process serves the page: run each in its own")
    _sites.append(site)
    try:
        yield
    finally:
        _sites.remove(site)


def current() -> Site:
    """Return the site that the pages of this process show."""
    return _sites[0]
