"""Parsers: each turns the text of a setting, an option or a parameter into a value.

All of them raise ValueError, with a clause that begins with "must".
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})
_SIZES: Final = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9}
_DURATIONS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?!\d)", re.ASCII)
# A + that was not escaped in a query arrives as a space.
_UNESCAPED: Final = re.compile(r"([\d-]+[T ][\d:.,]+) (\d\d:?\d\d)", re.ASCII)
_ROOT_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_ORIGIN: Final = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:\d+)?")
# What a browser may send as Origin, an app's own scheme too; * stands for anything.
_PORTS: Final = {"http": ":80", "https": ":443"}
_ASKING: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://([A-Za-z0-9.*-]+|\[[0-9A-Fa-f:.]+\])(:(\d+|\*))?")
_HIGHEST_PORT: Final = 65_535
_LONGEST: Final = timedelta(days=365_000)  # what is older than that, no calendar holds
_MOST_DIGITS: Final = 18


def text(value: str) -> str | None:
    """Read a text; None where it is empty."""
    return value.strip() or None


def switch(value: str) -> bool:
    """Read a switch."""
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("must be 1, true, yes or on, or else 0, false, no or off")
    return word in _TRUE


def names(value: str) -> tuple[str, ...] | None:
    """Read names between commas or spaces; None where there are none."""
    return tuple(name for name in value.replace(",", " ").split() if name) or None


def port(value: str) -> int:
    """Read a port, 0 to 65535."""
    if not 0 <= (number := _whole(value)) <= _HIGHEST_PORT:
        raise ValueError(f"must be a whole number from 0 to {_HIGHEST_PORT}; 0 picks a free port")
    return number


def _whole(text: str) -> int:
    """Read a whole number from 0; -1 where it is none, or longer than any that makes sense."""
    word = text.strip()
    return int(word) if word.isdecimal() and len(word) <= _MOST_DIGITS else -1


def path(value: str) -> Path:
    """Read a path; `~` is the folder of its user."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("must be a path; there is no user whose folder it could begin with") from None


def root_path(value: str) -> str:
    """Read the path under which a proxy serves, without a slash at its end; empty where there is none."""
    path = value.strip().rstrip("/")
    if _ROOT_PATH.fullmatch(path) is None:
        raise ValueError("must be a path such as /kicks")
    return path


def seconds(value: str) -> float:
    """Read seconds from 0."""
    if not 0 <= (seconds := _real(value)) < float("inf"):
        raise ValueError("must be a number of seconds, 0 or more")
    return seconds


def limit(value: str) -> float:
    """Read seconds above 0."""
    if not 0 < (seconds := _real(value)) < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _real(text: str) -> float:
    """Read a number; -1 where it is none."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def size(value: str) -> int:
    """Read a size in bytes, such as 10MB: powers of ten."""
    word = value.strip().lower().replace("_", "")
    digits = word.rstrip("bkmg ")
    unit = word[len(digits) :].strip()
    if (number := _whole(digits)) <= 0 or unit not in _SIZES:
        raise ValueError("must be a size such as 500kB, 10MB or 1GB")
    return number * _SIZES[unit]


def room(value: str) -> int:
    """Read a size in bytes, of 1 MB or more."""
    if (found := size(value)) < _SIZES["mb"]:
        raise ValueError("must be 1MB or more, or a batch finds no room")
    return found


def whole(value: str, least: int = 0) -> int:
    """Read a whole number from `least`."""
    if (number := _whole(value.replace("_", ""))) < least:
        raise ValueError(f"must be a whole number, {least} or more")
    return number


def count(value: str) -> int:
    """Read a whole number from 1."""
    return whole(value, 1)


def duration(value: str) -> timedelta | None:
    """Read a time such as 90d; None where it is empty."""
    word = value.strip().lower()
    if not word:
        return None
    number, unit = _whole(word[:-1]), _DURATIONS.get(word[-1])
    if unit is None or not 0 < number <= _LONGEST / unit:
        raise ValueError("must be a time such as 90d, 12h or 30m")
    return number * unit


def instant(value: str) -> datetime:
    """Read an instant: a date, a date with a time, or an age such as 7d. A time without a zone is UTC.

    Returns:
        The instant, in UTC but in the years 1 and 9999: of a date its first moment, of an age the moment so
        long ago.
    """
    word = value.strip().upper()
    try:
        if _DATE.match(word):
            found = datetime.fromisoformat(_UNESCAPED.sub(r"\1+\2", word))
            if found.tzinfo is None:
                return found.replace(tzinfo=UTC)
            # At the ends of the calendar an instant of another zone may have no name in UTC.
            return found if found.year in {MINYEAR, MAXYEAR} else found.astimezone(UTC)
        return datetime.now(UTC) - (duration(word) or timedelta.max)
    except (ValueError, OverflowError):
        raise ValueError(
            "must be an instant such as 2026-11-25T10:00:00Z or 2026-11-25, or an age such as 7d"
        ) from None


def number(value: str) -> float:
    """Read a number from 0."""
    if not 0 <= (number := _real(value)) < float("inf"):
        raise ValueError("must be a number, 0 or more")
    return number


def part(value: str) -> float:
    """Read a number above 0 and at most 1."""
    if not 0 < (part := _real(value)) <= 1:
        raise ValueError("must be a number above 0, and at most 1")
    return part


def web_address(value: str) -> str | None:
    """Read an address of the web; None where it is empty."""
    address = value.strip()
    if address and not (address.startswith(("http://", "https://")) and address.partition("//")[2]):
        raise ValueError("must be an address that begins with http:// or https://")
    return address or None


def origins(value: str) -> tuple[str, ...] | None:
    """Read origins of the web between commas or spaces; None where there are none."""
    found = names(value)
    if not all(_ORIGIN.fullmatch(each) for each in found or ()):
        raise ValueError("must be origins such as https://huggingface.co, separated by commas")
    return found


def asking_origins(value: str) -> tuple[str, ...] | None:
    """Read origins whose pages may ask, or `*`, between commas or spaces; None where there are none.

    Browsers send an origin without a path, so one with a path would never match.
    """
    found = names(value)
    if not all(_ASKING.fullmatch(each) for each in found or ()):
        raise ValueError("must be origins such as https://example.org, with no / behind the host, or *")
    return found and tuple(map(origin, found))


def origin(text: str) -> str:
    """Return an origin as browsers send it: in small letters, without the port of its scheme."""
    scheme, mark, authority = text.lower().partition("://")
    return f"{scheme}{mark}{authority.removesuffix(_PORTS.get(scheme, ''))}"


def hosts(value: str) -> tuple[str, ...] | None:
    """Read names of hosts, or `*`, between commas or spaces; None where there are none."""
    found = names(value.lower())
    if any(each != "*" and {*each} & {*"/:*"} for each in found or ()):
        raise ValueError("must be names such as kicks.example.org, without scheme and port, or *")
    return found


def perhaps(read: Callable[[str], T]) -> Callable[[str], T | None]:
    """Wrap a parser so that an empty text gives None."""
    return lambda value: read(value) if value.strip() else None


def one_of(*words: str) -> Callable[[str], str]:
    """Return what reads one of some words, in small letters."""

    def read(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return word

    return read
