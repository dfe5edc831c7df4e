"""The settings of the plugin `access`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kickserve.plugins import SettingsTable, kinds, setting
from kickserve_access.rates import Rate
from kickserve_access.rates import rate as parse_rate

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings(SettingsTable):
    """The settings of keys and rate limits."""

    keys: Path | None = setting(
        "KICKSERVE_KEYS",
        "",
        kinds.perhaps(kinds.path),
        "File of further keys, each with a name and scopes; `kickserve key new` adds a key without a"
        " restart.",
    )
    rate: Rate | None = setting(
        "KICKSERVE_RATE",
        "",
        parse_rate,
        "Limit of requests for each key, such as 100/s, 5000/m or 100000/h; in a batch, 100 kicks count as"
        " one request. Empty: no limit.",
    )
    rate_address: Rate | None = setting(
        "KICKSERVE_RATE_ADDRESS",
        "",
        parse_rate,
        "Limit of requests for each client address, such as 100/s; IPv6 addresses of a /64 network share a"
        " limit. Empty: no limit.",
    )
    rate_failures: Rate | None = setting(
        "KICKSERVE_RATE_FAILURES",
        "20/m",
        parse_rate,
        "Limit of wrong keys for each client address; beyond the limit wrong keys get 429. A valid key always"
        " passes. 0: no limit.",
    )
