"""Gives PyPI the README without its front matter, which is for Hugging Face's hub: a hook of hatchling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)


class Readme(MetadataHookInterface):
    """Fills in `readme`, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set what PyPI shows."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": FRONT_MATTER.sub("", text)}
