"""How Sphinx makes the site: `make docs`. The pages are plain Markdown that reads well without it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LINK_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]*)\)")
LINK_TO_PAGE = re.compile(r"\]\(([a-z0-9-]+)\.md\)")

project = "spark-kfp"
author = "the contributors of spark-kfp"
project_copyright = author
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 4  # the same anchors as on GitHub
smartquotes = False  # what stands between quotation marks, and `--`, is typed as it is shown
html_theme = "furo"
html_title = f"spark-kfp {release}"
html_show_sphinx = False
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|[^/]*example\.com)"]
linkcheck_timeout = 20


def adapt(app: Any, name: str, source: list[str]) -> None:
    """Makes of a page that reads well on GitHub one that reads well in the site.

    A file outside docs/ is no page of the site, so its link becomes its path. The index gets the list of pages from its own links. GitHub
    draws a Mermaid diagram, the site shows its text.
    """
    del app
    text = LINK_OUTSIDE.sub(path_of, source[0]).replace("```mermaid\n", "```text\n")
    if name == "index":
        pages = dict.fromkeys(LINK_TO_PAGE.findall(text))
        text += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
    source[0] = text


def path_of(link: re.Match[str]) -> str:
    """The text of a link and the path to which it leads; only the path, if the text is the path."""
    text, path = link[1], link[2].partition("#")[0]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("source-read", adapt)
