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

    folder: Path = setting("KICKSERVE_PROFILE_DIR", "profiles", kinds.path, "Folder of request profiles.")
    every: int | None = setting(
        "KICKSERVE_PROFILE_EVERY",
        "",
        kinds.perhaps(kinds.whole),
        "Profile every n-th request; 0: none. Empty: every request with `DEBUG`, otherwise none.",
    )
    keep: int = setting(
        "KICKSERVE_PROFILE_KEEP",
        "200",
        kinds.count,
        "Number of request profiles to keep; the oldest are deleted first.",
    )
    limit: int = setting(
        "KICKSERVE_PROFILE_MAX", "50MB", kinds.size, "Disk space for all request profiles together."
    )
