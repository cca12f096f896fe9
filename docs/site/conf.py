"""How Sphinx makes the site (`make docs`): the README, what stands in docs/, and their place in the navigation.

The source is the whole checkout, so that a link means the same here and on a code host.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]

NAVIGATION = {
    "Begin": ["docs/GETTING-STARTED", "docs/CONSOLE", "docs/CLI"],
    "Look up": ["docs/API", "docs/API-SHAPES", "docs/ERRORS", "docs/PRESETS", "docs/OPTIONS", "docs/METRICS"],
    "On AWS": ["docs/CLUSTERS", "docs/EMD"],
    "Run it": [
        "docs/OPERATION",
        "docs/RUNBOOK",
        "docs/TRACES",
        "docs/SECURITY",
        "docs/PERFORMANCE",
        "docs/LONG-TESTS",
        "benchmarks/README",
    ],
    "Extend it": ["docs/PLUGINS", "docs/CONTRIBUTING", "docs/ARCHITECTURE"],
    "About": ["docs/COMPARISON", "CHANGELOG"],
}
"""Every page, as Sphinx calls it: one that is in docs/ and not here fails the build."""

project = "Forgeline"
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "data", "node_modules", "tests"]
extensions = ["myst_parser"]
myst_heading_anchors = 3
smartquotes = False
html_theme = "furo"
html_title = "Forgeline"
html_extra_path = ["index.html"]
html_copy_source = False


def navigation() -> str:
    """The table of contents, as MyST has it."""
    trees = []
    for caption, pages in NAVIGATION.items():
        there = "\n".join(page for page in pages if (ROOT / f"{page}.md").exists())
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{there}\n```\n")
    return "\n".join(trees)


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts it at the end of the README, where a code host would show it as code."""
    if page == root_doc:
        source[0] += f"\n\n{navigation()}"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
