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

    reports: Path = setting(
        "KICKSERVE_REPORTS",
        "data/drift_reports",
        kinds.path,
        "Folder of the reports of drift.",
    )
    psi: float = setting(
        "KICKSERVE_DRIFT_PSI",
        "0.1",
        kinds.number,
        "Population stability index from which a feature counts as drifted; with few kicks, a higher one.",
    )
    share: float = setting(
        "KICKSERVE_DRIFT_SHARE",
        "0.5",
        kinds.part,
        "Share of drifted features from which the kicks as a whole count as drifted.",
    )
    window: int = setting(
        "KICKSERVE_DRIFT_WINDOW",
        "500",
        kinds.count,
        "Number of newest kicks in the live figures of drift, and at least the kicks of a minute.",
    )
    every: timedelta | None = setting(
        "KICKSERVE_DRIFT_EVERY",
        "",
        kinds.duration,
        "How often a full report of drift is made, such as 1d, 12h or 30m. Empty: when it is asked for.",
    )
    webhook: str | None = setting(
        "KICKSERVE_DRIFT_WEBHOOK",
        "",
        kinds.web_address,
        "Address that gets a message when drift starts, and one when it ends.",
        secret=True,  # it often holds a token
    )
    secret: str | None = setting(
        "KICKSERVE_DRIFT_SECRET",
        "",
        kinds.text,
        "Signs messages to `KICKSERVE_DRIFT_WEBHOOK` (HMAC-SHA256), so that the receiver can trust them.",
        secret=True,
    )
    evidently_url: str | None = setting(
        "KICKSERVE_EVIDENTLY_URL",
        "",
        kinds.text,
        "Evidently workspace that reports are uploaded to: an address or a folder. Empty: none.",
    )
    evidently_project: str = setting(
        "KICKSERVE_EVIDENTLY_PROJECT",
        "kickserve",
        str.strip,
        "Project in that workspace; made where it is missing.",
    )
    evidently_key: str | None = setting(
        "KICKSERVE_EVIDENTLY_KEY",
        "",
        kinds.text,
        "Secret of that workspace, or API key of Evidently Cloud.",
        secret=True,
    )
