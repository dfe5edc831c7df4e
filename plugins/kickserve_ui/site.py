"""What all pages have in common while an application serves them: the service, and who may see what."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kickserve.errors import ConfigurationError
from kickserve_ui.heat import Maps
from kickserve_ui.secret import pass_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastapi import Request

    from kickserve.service import Service

_ADMITTED: Final = "admitted"


@dataclass(eq=False)
class Site:
    """The page of an application.

    Attributes:
        service: what it shows.
        key: what the API's clients send; None where they need none.
        secret: what sessions are signed with.
        reports: folder of the full reports of drift.
        maps: those that were made.
    """

    service: Service
    key: str | None
    secret: str
    reports: Path
    maps: Maps = field(default_factory=Maps)

    def admits(self, request: Request) -> bool:
        """Say whether this visitor may see and change what is kept."""
        if self.key is None:
            return True
        shown = str(request.session.get(_ADMITTED, ""))
        return secrets.compare_digest(shown, pass_for(self.key, self.secret))

    def sign_in(self, request: Request, key: str) -> bool:
        """Remember in the session that this visitor knows the key; say whether it is the right one."""
        if self.key is None or not secrets.compare_digest(key.encode(), self.key.encode()):
            return False
        request.session[_ADMITTED] = pass_for(self.key, self.secret)
        return True

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
