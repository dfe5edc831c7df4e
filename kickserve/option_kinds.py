"""What options of several commands may be: numbers that are some, and addresses of services."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import rich_click as click

if TYPE_CHECKING:
    from click import Context, Parameter

AUTO: Final = "auto"
"""What `--url` says for the service that the settings describe, if it answers."""
_SCHEMES: Final = ("http://", "https://")


class FiniteRange(click.FloatRange):
    """A number within a range, and none of `nan` and `inf`, which `float` reads too."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        """Read it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class ServiceUrl(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """The base URL of a running service.

    Args:
        auto: whether it may be `auto` instead.
    """

    name = "text"

    def __init__(self, *, auto: bool = False) -> None:
        self._auto = auto

    def convert(self, value: str, param: Parameter | None, ctx: Context | None) -> str:
        """Look at it; nothing is asked."""
        if self._auto and value == AUTO:
            return value
        try:
            address = urlsplit(value)
            usable = value.startswith(_SCHEMES) and bool(address.hostname) and address.port != 0
        except ValueError:
            usable = False
        if not usable:
            self.fail(f"{value!r} can't be used: it must read http://HOST:PORT or https://HOST.", param, ctx)
        return value
