"""The messages of the pages in English and French, and numbers and dates in the manner of each language."""

from __future__ import annotations

import math
import re
import tomllib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from litestar import Request as LitestarRequest
    from starlette.requests import Request

Language = Literal["en", "fr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

LANGUAGE_COOKIE: Final = "kickserve_language"
"""Name of the cookie of the language that the visitor has chosen."""

_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_MINUS: Final = "\N{MINUS SIGN}"
# The lowest probability that each word is for.
_WORDS: Final = {
    "word_sure": 0.9,
    "word_likely": 0.7,
    "word_leaning": 0.55,
    "word_even": 0.45,
    "word_doubtful": 0.25,
    "word_unlikely": 0.1,
    "word_long_shot": 0.0,
}
_NEAR: Final = 0.02  # to a quarter, which is said so
_RARE: Final = 0.05  # below, and as near to 1, tens would say never or always
_WARNING: Final = re.compile(r"(\w+) (beyond|below) ([\d.]+)\s*(.*)")
_QUALITY: Final = re.compile(r"\s*q=([01](?:\.\d+)?)\s*")


@cache
def texts() -> dict[str, list[str]]:
    """Return the texts of all languages by key."""
    return tomllib.loads(files("kickserve_ui").joinpath("static/messages.toml").read_text(encoding="utf-8"))


@cache
def texts_in(language: Language) -> dict[str, str]:
    """Return the texts of a language by key."""
    column = LANGUAGES.index(language)
    return {key: each[column] for key, each in texts().items()}


class Messages:
    """The messages of one language.

    Args:
        language: `en` or `fr`.
    """

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text, with values filled in.

        Raises:
            KeyError: there is no such text.
        """
        text = texts()[key][self._column]
        return text.format(**values) if values else text

    def number(self, value: float, digits: int = 0, *, signed: bool = False) -> str:
        """Write a number with so many decimals."""
        text = f"{value:{'+' if signed else ''},.{digits}f}".replace("-", _MINUS)
        if self.language == "fr":
            text = text.replace(",", _THIN).replace(".", ",")
        return text

    def percent(self, fraction: float) -> str:
        """Write a fraction from 0 to 1 in whole percents; only 0 and 1 are written as never and always."""
        space = _THIN if self.language == "fr" else ""
        percents = round(100 * fraction)
        if percents in {0, 100} and fraction not in {0, 1}:
            return f"<1{space}%" if percents == 0 else f">99{space}%"
        return f"{percents}{space}%"

    def often(self, probability: float) -> str:
        """Write a probability as people say it: "About 7 in 10"; static/words.js does the same."""
        is_quarter = abs(abs(probability - 0.5) - 0.25) < _NEAR
        of = 4 if is_quarter else 10 if _RARE <= probability < 1 - _RARE else 100
        return self("often", count=min(max(math.floor(of * probability + 0.5), 1), of - 1), of=of)

    def day(self, at: datetime) -> str:
        """Write a day, in UTC."""
        return at.astimezone(UTC).strftime("%d/%m/%Y" if self.language == "fr" else "%d %b %Y")

    def moment(self, at: datetime) -> str:
        """Write an instant, in UTC."""
        form = "%d/%m/%Y %H:%M:%S" if self.language == "fr" else "%d %b %Y %H:%M:%S"
        return at.astimezone(UTC).strftime(form)

    def likelihood(self, probability: float) -> str:
        """Put a probability in words."""
        return self(next(key for key, lowest in _WORDS.items() if probability >= lowest))

    def warning(self, text: str) -> str:
        """Translate a warning of the model; one in an unknown form stays as it is."""
        found = _WARNING.fullmatch(text)
        if found is None or f"feature_{found[1]}" not in texts():
            return text
        name, side, value, unit = found.groups()
        decimals = len(value.partition(".")[2])
        limit = f"{self.number(float(value), decimals)} {unit}".strip()
        return self(f"warning_{side}", feature=self(f"feature_{name}"), limit=limit)

    def reason(self, text: str) -> str:
        """Translate why a row or a file can't be read; one in an unknown form stays as it is."""
        for key, each in texts().items():
            if key.startswith("reason_") and (found := _pattern(each[0]).fullmatch(text)):
                return self(key, **{name: self.reason(part) for name, part in found.groupdict().items()})
        return text


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """Return what matches a text with values in braces, and has the values by their names."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(template)), re.DOTALL)


@cache
def messages_in(language: Language) -> Messages:
    """Return the messages of a language."""
    return Messages(language)


def messages_for(request: Request | LitestarRequest[Any, Any, Any]) -> Messages:
    """Return the messages in the language that the visitor has chosen, or else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return messages_in(language_of(chosen, request.headers.get("accept-language", "")))


def language_of(chosen: str, accepted: str) -> Language:
    """Return the language to use.

    Args:
        chosen: by the visitor on the page; empty where nothing has been chosen.
        accepted: the header Accept-Language, which lists languages, most wanted first unless `q` differs.
    """
    weighed = [_weighed(each) for each in accepted.split(",")]
    for language in (chosen, *(name for _, name in sorted(weighed, key=lambda each: -each[0]))):
        if language in LANGUAGES:
            return language
    return "en"


def _weighed(part: str) -> tuple[float, str]:
    name, _, quality = part.partition(";")
    found = _QUALITY.fullmatch(quality)
    return float(found[1]) if found else 1.0, name.strip().partition("-")[0].lower()
