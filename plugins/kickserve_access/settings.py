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
        "File of more keys, each with a name and what it may do: `kickserve key new` adds one, without a"
        " restart.",
    )
    rate: Rate | None = setting(
        "KICKSERVE_RATE",
        "",
        parse_rate,
        "How often each key may ask, such as 100/s, 5000/m or 100000/h. Of a batch, 100 kicks count as one"
        " request. Empty: as often as it likes.",
    )
    rate_address: Rate | None = setting(
        "KICKSERVE_RATE_ADDRESS", "", parse_rate, "The same for each address of clients; of IPv6, each /64."
    )
    rate_failures: Rate | None = setting(
        "KICKSERVE_RATE_FAILURES",
        "20/m",
        parse_rate,
        "How many wrong keys an address may send before it is not listened to for a while; 0: any number.",
    )
