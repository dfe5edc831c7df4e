"""The documents of ops/docs as a site: `just site` builds it, and fails where a link leads nowhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ROOT / "ops/docs"
REPOSITORY = os.environ.get("REPO_URL", ROOT.as_uri())
"""Where links to files that are no document lead; the workflow gives the address on GitHub."""

project = "kickserve"
extensions = ["myst_parser"]
root_doc = "README"
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", "file"]
html_theme = "furo"
html_title = "kickserve"
html_baseurl = os.environ.get("SITE_URL", "")
html_copy_source = False
html_show_copyright = False
suppress_warnings = ["misc.highlighting_failure"]  # of answers beside commands in a `console` block


def adapt(app: Any, name: str, source: list[str]) -> None:  # noqa: ARG001  as Sphinx calls it
    """Lead links out of ops/docs to the repository, and order the pages as the first page links them."""
    here = (DOCUMENTS / name).parent

    def outside(link: re.Match[str]) -> str:
        path = (here / link[2]).resolve()
        if path.is_relative_to(DOCUMENTS) or not path.exists():
            return link[0]  # Sphinx finds the document, or complains
        return f"{link[1]}({REPOSITORY}/{path.relative_to(ROOT)}"

    text = source[0]
    source[0] = re.sub(r"((?<!!)\[[^]]+\])\(([^):#]+)", outside, text)  # pictures are copied
    if name == root_doc:
        pages = dict.fromkeys(re.findall(r"\]\(([\w/-]+)\.md", text))
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Any) -> None:
    """Have Sphinx call `adapt` for each document that it reads."""
    app.connect("source-read", adapt)
