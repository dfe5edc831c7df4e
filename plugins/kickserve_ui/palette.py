"""The colours of a probability: their lightness rises with it, so that every eye can order them."""

from __future__ import annotations

from typing import Final

STOPS: Final = ("#2c2a63", "#34518f", "#2b7b94", "#359f88", "#7cc06c", "#d9d65b")
GRADIENT: Final = f"linear-gradient(90deg, {', '.join(STOPS)})"


def colour_of(share: float) -> str:
    """Return the colour of a probability, 0 to 1, as CSS has it."""
    place = min(max(share, 0.0), 1.0) * (len(STOPS) - 1)
    at = min(int(place), len(STOPS) - 2)
    low, high = (bytes.fromhex(stop[1:]) for stop in STOPS[at : at + 2])
    mixed = (round(a + (b - a) * (place - at)) for a, b in zip(low, high, strict=True))
    return f"#{bytes(mixed).hex()}"
