"""The settings of the plugin `access`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kickserve.plugins import SettingsTable, kinds, setting
from kickserve_access import rates

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
    rate: rates.Rate | None = setting(
        "KICKSERVE_RATE",
        "",
        rates.rate,
        "How often each key may ask, such as 100/s, 5000/m or 100000/h. Of a batch, 100 kicks count as one"
        " request. Empty: as often as it likes.",
    )
    rate_address: rates.Rate | None = setting(
        "KICKSERVE_RATE_ADDRESS", "", rates.rate, "The same for each address of clients; of IPv6, each /64."
    )
    rate_failures: rates.Rate | None = setting(
        "KICKSERVE_RATE_FAILURES",
        "20/m",
        rates.rate,
        "How many wrong keys an address may send before it is not listened to for a while; 0: any number.",
    )
