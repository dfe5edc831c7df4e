"""The settings of the plugin `drift`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kickserve.plugins import SettingsTable, kinds, setting

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSettings(SettingsTable):
    """The settings of drift."""

    reports: Path = setting("KICKSERVE_REPORTS", "data/drift_reports", kinds.path, "Folder of drift reports.")
    psi: float = setting(
        "KICKSERVE_DRIFT_PSI",
        "0.1",
        kinds.number,
        "Population stability index from which a feature counts as drifted; few kicks raise the limit.",
    )
    share: float = setting(
        "KICKSERVE_DRIFT_SHARE",
        "0.5",
        kinds.part,
        "Share of drifted features from which the kicks as a whole count as drifted; drifted predictions"
        " always do.",
    )
    window: int = setting(
        "KICKSERVE_DRIFT_WINDOW",
        "500",
        kinds.whole,
        "Number of newest kicks that live drift figures cover; kicks of the last minute always count. 0: no"
        " live figures of kicks.",
    )
    every: timedelta | None = setting(
        "KICKSERVE_DRIFT_EVERY",
        "",
        kinds.duration,
        "Interval between full drift reports, such as 1d, 12h or 30m. Empty: only on request.",
    )
    webhook: str | None = setting(
        "KICKSERVE_DRIFT_WEBHOOK",
        "",
        kinds.web_address,
        "URL that receives a message when drift starts and when drift ends.",
        secret=True,  # it often holds a token
    )
    secret: str | None = setting(
        "KICKSERVE_DRIFT_SECRET",
        "",
        kinds.text,
        "Secret that signs messages to `KICKSERVE_DRIFT_WEBHOOK` (HMAC-SHA256), so that the receiver can"
        " verify them.",
        secret=True,
    )
    evidently_url: str | None = setting(
        "KICKSERVE_EVIDENTLY_URL",
        "",
        kinds.text,
        "Evidently workspace to which reports are uploaded: a URL or a folder. Empty: none.",
    )
    evidently_project: str = setting(
        "KICKSERVE_EVIDENTLY_PROJECT",
        "kickserve",
        str.strip,
        "Evidently project for uploaded reports; created if missing.",
    )
    evidently_key: str | None = setting(
        "KICKSERVE_EVIDENTLY_KEY",
        "",
        kinds.text,
        "Secret of the Evidently workspace, or API key of Evidently Cloud.",
        secret=True,
    )
