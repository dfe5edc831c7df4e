"""The colours of a probability, from unlikely to likely: their lightness rises, so that every eye can order them."""

from __future__ import annotations

from typing import Final

STOPS: Final = ("#2c2a63", "#34518f", "#2b7b94", "#359f88", "#7cc06c", "#d9d65b")
GRADIENT: Final = f"linear-gradient(90deg, {', '.join(STOPS)})"
