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
        "Seconds that a client has for the head of a request, for its body (and one more for each 500 bytes)"
        " and for taking the answer (likewise). 0: no limit.",
    )
    connections_max: int = setting(
        "KICKSERVE_CONNECTIONS_MAX",
        "10000",
        kinds.count,
        "Open connections of a process, at most; fewer where the system allows fewer open files. Others are"
        " answered 503.",
    )
    fastlane: bool = setting(
        "KICKSERVE_FASTLANE",
        "1",
        kinds.switch,
        "Whether `/predict` goes around the framework's router. It answers the same either way.",
    )
