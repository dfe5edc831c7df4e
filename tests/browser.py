"""A real Chromium for tests: the machine's own, or Debian's, which is installed where one may."""

from __future__ import annotations

import os
import shutil

import debian

PLACE = "CHROMIUM"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Find Chromium.

    Raises:
        debian.Missing: there is none.
    """
    found = _installed() or (debian.install("chromium") and _installed())
    if not found:
        raise debian.Missing(f"no browser: name one with {PLACE}, or install Debian's package chromium")
    return found


def _installed() -> str | None:
    named = os.environ.get(PLACE)
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
