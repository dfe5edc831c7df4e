"""The settings of the plugin `lane`."""

from __future__ import annotations

from dataclasses import dataclass

from kickserve.plugins import SettingsTable, kinds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings(SettingsTable):
    """The settings of the lane and of connections."""

    client_timeout: float = setting(
        "KICKSERVE_CLIENT_TIMEOUT",
        "30",
        kinds.seconds,
        "Seconds for a client to send the head of a request, to send the body and to read the answer; each"
        " 500 bytes of body or answer add a second. 0: no limit.",
    )
    connections_max: int = setting(
        "KICKSERVE_CONNECTIONS_MAX",
        "10000",
        kinds.count,
        "Largest number of open connections of a process; a lower limit of open files lowers it. Further"
        " connections receive 503.",
    )
    fastlane: bool = setting(
        "KICKSERVE_FASTLANE",
        "1",
        kinds.switch,
        "Whether `POST /predict` takes the fast lane past the framework's router. The answers are the same"
        " either way.",
    )
