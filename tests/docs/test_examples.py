"""Every fenced block of the documentation is run, checked, or excused with a reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraforge_runner.infraforge.rendering import HYPERPOD_PRESETS
from pipeline import plugins
from pipeline.presets.store import PresetStore
from server.client import batch_lines
from tests.docs import run_examples
from tests.docs.pages import ROOT, Block, all_blocks, blocks_of, read_page

DIRECTIVES = {
    "example": {*run_examples.RUNNERS, "terminal"},
    "preset": None,
    "file": None,
    "save": None,
    "terminal": None,
    "run": {"install", "start", "backup", "restore", "upgrade"},
    "not run": None,
}
"""The kinds of directives, and the arguments of those that have a fixed set."""

DIRECTIVE_PAGES = {
    "file": "docs/PLUGINS.md",
    "save": "docs/GETTING-STARTED.md",
    "terminal": "docs/GETTING-STARTED.md",
    "run": "docs/OPERATION.md",
}
"""Directives that only one page may have, since only its test handles them."""


def directive_error(block: Block) -> str | None:
    """Return what is wrong with a block's directive, or None."""
    if block.language == "text" and not block.directive:
        return None  # a drawing or a protocol example
    if block.directive.startswith("checked by "):
        path = ROOT / block.directive.removeprefix("checked by ")
        is_there = path.is_file() and block.page in path.read_text()
        return None if is_there else "there is no such test, or it does not name this page"
    if block.kind not in DIRECTIVES:
        return "nobody runs or checks this block: say above it what is to be done with it (tests/docs/pages.py)"
    known = DIRECTIVES[block.kind]
    if not block.argument or (known is not None and block.argument not in known):
        return f"{block.argument!r} is not known here"
    return (
        f"only {DIRECTIVE_PAGES[block.kind]} has these"
        if DIRECTIVE_PAGES.get(block.kind, block.page) != block.page
        else None
    )


def test_every_docs_block_is_run_checked_or_excused() -> None:
    assert [f"{block.location}: {error}" for block in all_blocks() if (error := directive_error(block))] == []


@pytest.mark.parametrize(
    ("language", "mark"),
    [("sh", ""), ("", ""), ("yaml", "example: nobody"), ("sh", "not run:"), ("sh", "checked by tests/docs/pages.py")],
)
def test_unchecked_docs_block_is_reported(language: str, mark: str) -> None:
    assert directive_error(Block("README.md", 1, language, mark, "echo hello"))


@pytest.mark.parametrize("block", list(all_blocks("preset")), ids=lambda block: block.location)
def test_preset_in_docs_is_valid(tmp_path: Path, block: Block) -> None:
    path = tmp_path / block.argument
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.code)
    installed = plugins.load_plugins()
    store = PresetStore([tmp_path], [installed.model_presets, installed.pipeline_presets, HYPERPOD_PRESETS])
    store.reload()
    assert [str(error) for error in store.snapshot.errors] == []
    assert sum(map(len, store.snapshot.presets.values())) >= 1


def test_batch_lines_in_cli_docs_parse() -> None:
    (block,) = (block for block in blocks_of("docs/CLI.md") if block.language == "json")
    for line in block.code.splitlines():
        batch_lines.parse_line(line.encode(), "smollm2")


def test_signatures_in_architecture_docs_match_code() -> None:
    (block,) = (block for block in blocks_of("docs/ARCHITECTURE.md") if block.language == "python")
    for line in block.code.splitlines():
        assert line.partition("#")[0].strip() in read_page("pipeline/stage.py")


# --- with the embedded model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the embedded model is not installed")
    with run_examples.start_server(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("block", list(all_blocks("example")), ids=lambda block: block.location)
def test_example_in_docs_prints_documented_output(block: Block, address: str, tmp_path: Path) -> None:
    run_examples.check_example(block, address, tmp_path)
