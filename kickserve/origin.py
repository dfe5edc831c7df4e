"""Where a model came from, and the words for one that can't be used."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from kickserve.errors import MissingExtra, ModelUnusable
from kickserve.features import INDEX, NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Origin(NamedTuple):
    """Where a model came from.

    Attributes:
        source: for messages and the card: a path, or `hf:owner/name@commit`.
        name: what predictions call the model where it doesn't name itself.
        commit: of the hub; None for a file.
    """

    source: str
    name: str
    commit: str | None = None

    def revision(self, data: bytes) -> str:
        """Return the hub's commit, or 12 hexadecimal digits (SHA-256) of the file."""
        return self.commit or fingerprint_of(data)

    def unusable(self, reason: str) -> ModelUnusable:
        """Make the error for a model that can't be used: `reason` is a clause, such as "it is empty"."""
        return ModelUnusable(f"the model {self.source} can't be used: {reason}")


def fingerprint_of(data: bytes) -> str:
    """Return 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:12]


def need_extra(what: str, extra: str, modules: Mapping[str, str]) -> None:
    """Make sure that what an extra brings is installed.

    Args:
        what: what needs it, as the subject of a sentence.
        extra: its name.
        modules: the modules it brings, each with the package that holds it.

    Raises:
        MissingExtra: a module is not there; it names the extra.
    """
    # Asked for by name, not by trying: an error inside a package must not look like the package missing.
    missing = [package for module, package in modules.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(what, extra, missing)


def wrong_inputs(names: Sequence[str]) -> str:
    """Say what is wrong with the names of a model's inputs, as a clause; empty where nothing is."""
    missing = [name for name in NAMES if name not in names]
    too_many = [name for name in names if name not in INDEX]
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"asks for {', '.join(too_many)}, which kickserve doesn't have"] if too_many else []
    return f"it must take the eleven features of a kick, and {' and '.join(parts)}" if parts else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
