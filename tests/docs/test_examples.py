"""Every fenced block of every page is run, checked, or says why not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraforge_runner.rendering import HYPERPOD
from pipeline import plugins
from pipeline.presets import MODELS, pipeline_kind
from pipeline.store import PresetStore
from server.client import batchline
from tests.docs import running
from tests.docs.pages import ROOT, Block, all_blocks, blocks, text_of

MARKS = {
    "example": {*running.RUNNERS, "terminal"},
    "preset": None,
    "file": None,
    "save": None,
    "terminal": None,
    "run": {"install", "start", "backup", "restore", "upgrade"},
    "not run": None,
}
"""What a mark may begin with; and what may follow, where that is one of a few."""

ONLY_ON = {
    "file": "docs/PLUGINS.md",
    "save": "docs/GETTING-STARTED.md",
    "terminal": "docs/GETTING-STARTED.md",
    "run": "docs/OPERATION.md",
}
"""The pages whose tests know what to do with these."""


def fault(block: Block) -> str | None:
    """What is wrong with a block's mark."""
    if block.language == "text" and not block.mark:
        return None  # a drawing, or a protocol's words
    if block.mark.startswith("checked by "):
        path = ROOT / block.mark.removeprefix("checked by ")
        is_there = path.is_file() and block.page in path.read_text()
        return None if is_there else "there is no such test, or it does not name this page"
    if block.kind not in MARKS:
        return "nobody runs or checks this block: say above it what is to be done with it (tests/docs/pages.py)"
    known = MARKS[block.kind]
    if not block.argument or (known is not None and block.argument not in known):
        return f"{block.argument!r} is not known here"
    return f"only {ONLY_ON[block.kind]} has these" if ONLY_ON.get(block.kind, block.page) != block.page else None


def test_every_block_is_run_or_checked_or_says_why_not() -> None:
    assert [f"{block.place}: {why}" for block in all_blocks() if (why := fault(block))] == []


@pytest.mark.parametrize(
    ("language", "mark"),
    [("sh", ""), ("", ""), ("yaml", "example: nobody"), ("sh", "not run:"), ("sh", "checked by tests/docs/pages.py")],
)
def test_a_block_that_nobody_runs_is_found(language: str, mark: str) -> None:
    assert fault(Block("README.md", 1, language, mark, "echo hello"))


@pytest.mark.parametrize("block", list(all_blocks("preset")), ids=lambda block: block.place)
def test_a_preset_of_the_pages_has_no_fault(tmp_path: Path, block: Block) -> None:
    path = tmp_path / block.argument
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.code)
    store = PresetStore([tmp_path], [MODELS, pipeline_kind(plugins.load().check_stage), HYPERPOD])
    store.reload()
    assert [str(fault) for fault in store.snapshot.faults] == []
    assert sum(map(len, store.snapshot.presets.values())) >= 1


def test_the_lines_of_a_batch_on_the_page_can_be_sent() -> None:
    (block,) = (block for block in blocks("docs/CLI.md") if block.language == "json")
    for line in block.code.splitlines():
        batchline.read(line.encode(), "smollm2")


def test_the_signatures_on_the_page_are_those_of_the_code() -> None:
    (block,) = (block for block in blocks("docs/ARCHITECTURE.md") if block.language == "python")
    for line in block.code.splitlines():
        assert line.partition("#")[0].strip() in text_of("pipeline/stage.py")


# --- with the embedded model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the embedded model is not installed")
    with running.server(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("block", list(all_blocks("example")), ids=lambda block: block.place)
def test_an_example_does_what_the_page_says(block: Block, address: str, tmp_path: Path) -> None:
    running.check_example(block, address, tmp_path)
