"""The settings of the plugin `profiling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kickserve.plugins import SettingsTable, kinds, setting

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilingSettings(SettingsTable):
    """The settings of profiles of requests."""

    folder: Path = setting(
        "KICKSERVE_PROFILE_DIR", "profiles", kinds.path, "Folder for the profiles of requests."
    )
    every: int | None = setting(
        "KICKSERVE_PROFILE_EVERY",
        "",
        kinds.perhaps(kinds.whole),
        "Profiles every n-th request; 0 none. Empty: each where `DEBUG` is on, none otherwise.",
    )
    keep: int = setting(
        "KICKSERVE_PROFILE_KEEP",
        "200",
        kinds.count,
        "Profiles of requests that are kept; the oldest go first.",
    )
    limit: int = setting(
        "KICKSERVE_PROFILE_MAX", "50MB", kinds.size, "What they may take on the disk altogether."
    )
