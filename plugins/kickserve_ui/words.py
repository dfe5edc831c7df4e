"""What the pages say, in English and French, and how numbers are written there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, get_args

from kickserve_ui.phrases import TEXTS

Language = Literal["en", "fr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_MINUS: Final = "\N{MINUS SIGN}"
_BANDS: Final = ((0.9, "word_sure"), (0.7, "word_likely"), (0.55, "word_leaning"), (0.45, "word_even"))
_LOWER_BANDS: Final = ((0.25, "word_doubtful"), (0.1, "word_unlikely"), (0.0, "word_long_shot"))
_BEYOND: Final = re.compile(r"(\w+) (beyond|below) ([\d.]+)\s*(.*)")


class Words:
    """The words of one language.

    Args:
        language: `en` or `fr`.
    """

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._at = LANGUAGES.index(language)

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text, with values filled in.

        Raises:
            KeyError: there is no such text.
        """
        text = TEXTS[key][self._at]
        return text.format(**values) if values else text

    def number(self, value: float, digits: int = 0, *, signed: bool = False) -> str:
        """Write a number with so many decimals."""
        text = f"{value:{'+' if signed else ''},.{digits}f}".replace("-", _MINUS)
        if self.language == "fr":
            text = text.replace(",", _THIN).replace(".", ",")
        return text

    def percent(self, share: float, digits: int = 1) -> str:
        """Write a share from 0 to 1 as a percentage."""
        space = _THIN if self.language == "fr" else ""
        return f"{self.number(100 * share, digits)}{space}%"

    def moment(self, at: datetime) -> str:
        """Write an instant, in UTC."""
        return f"{at.astimezone(UTC):{'%d/%m/%Y %H:%M:%S' if self.language == 'fr' else '%d %b %Y %H:%M:%S'}}"

    def judgement(self, probability: float) -> str:
        """Put a probability in a word."""
        bands = (*_BANDS, *_LOWER_BANDS)
        return self(next(key for low, key in bands if probability >= low))

    def warning(self, text: str) -> str:
        """Say what the model warns of; a warning of an unknown form stays as it is."""
        found = _BEYOND.fullmatch(text)
        if found is None or f"feature_{found[1]}" not in TEXTS:
            return text
        name, side, value, unit = found.groups()
        decimals = len(value.partition(".")[2])
        limit = f"{self.number(float(value), decimals)} {unit}".strip()
        return self(f"warning_{side}", feature=self(f"feature_{name}"), limit=limit)


@cache
def words_in(language: Language) -> Words:
    """Return the words of a language."""
    return Words(language)


def language_of(chosen: str, accepted: str) -> Language:
    """Say which language to speak.

    Args:
        chosen: what the visitor has chosen here, or nothing.
        accepted: the header Accept-Language, which lists languages, most wanted first unless `q` says else.
    """
    weighed = [_weighed(each) for each in accepted.split(",")]
    for language in (chosen, *(name for _, name in sorted(weighed, key=lambda each: -each[0]))):
        if language in LANGUAGES:
            return language
    return "en"


def _weighed(part: str) -> tuple[float, str]:
    name, _, quality = part.partition(";")
    found = re.fullmatch(r"\s*q=([01](?:\.\d+)?)\s*", quality)
    return float(found[1]) if found else 1.0, name.strip().partition("-")[0].lower()
