"""Between settings and variables: what the environment and `.env` say, and a value as a variable has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from kickserve.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from dataclasses import Field


def surroundings() -> dict[str, str]:
    """Return the process's variables, and behind them those of the file `.env` in the current folder.

    Raises:
        SettingsError: the file can't be read.
    """
    file = Path(".env")
    try:
        said = dotenv_values(file) if file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file {file.absolute()} can't be read: {error}") from error
    return {**{name: value for name, value in said.items() if value is not None}, **os.environ}


def values_of(settings: Iterable[Field[Any]], environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings that variables are there for.

    Args:
        settings: whose metadata name the variable, and what reads it.
        environment: the variables.

    Returns:
        Values by the setting's name; its default where its variable is empty.

    Raises:
        SettingsError: a variable has a value that can't be used; the message names both.
    """
    present = [each for each in settings if each.metadata["variable"] in environment]
    return {each.name: _value(each, environment[each.metadata["variable"]]) for each in present}


def _value(setting: Field[Any], text: str) -> Any:
    if not text.strip():
        return setting.default
    try:
        return setting.metadata["parse"](text)
    except ValueError as error:
        shown = "(hidden)" if setting.metadata["secret"] else repr(text)
        raise SettingsError(f"{setting.metadata['variable']}={shown} can't be used: it {error}") from None


def written(value: Any) -> str:
    """Write a value as its variable has it: a text, a path, a number, a switch or nothing."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
