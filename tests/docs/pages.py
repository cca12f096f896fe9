"""Parse the pages of the documentation: fenced blocks with their directives, and tables.

A directive is a comment right above a block; it says how the block is checked:

    <!-- example: RUNNER -->   run by RUNNERS (run_examples.py); a block under `<!-- output -->` is its expected output
    <!-- preset: NAME -->      a file in a presets folder, checked by the product's own validation
    <!-- file: NAME -->        a file of the package on PLUGINS.md
    <!-- terminal: N -->       of GETTING-STARTED.md, as is <!-- save: NAME -->
    <!-- run: NAME -->         of OPERATION.md: tests/deploy run it
    <!-- checked by TEST -->   another test runs it
    <!-- not run: REASON -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
COMMENT = re.compile(r"<!-- (.*?) -->\s*", re.DOTALL)
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block. `output` is its documented output."""

    page: str
    line: int
    language: str
    directive: str
    code: str
    output: str | None = None

    @property
    def kind(self) -> str:
        return self.directive.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.directive.partition(":")[2].strip()

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Table:
    """`heading` is the heading above it. Cells are Markdown."""

    page: str
    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, number: int = 0) -> list[str]:
        return [row[number] for row in self.rows]

    def code_names(self, number: int = 0) -> list[str]:
        """All code spans of a column."""
        return [name for cell in self.column(number) for name in code_spans(cell)]


def code_spans(cell: str) -> list[str]:
    return [name.replace("\\|", "|") for name in re.findall(r"`([^`]+)`", cell)]


def page_paths() -> list[str]:
    """The paths of all pages, relative to the root."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def _tokens(page: str) -> Sequence[Token]:
    return PARSER.parse(read_page(page))


@cache
def blocks_of(page: str) -> list[Block]:
    parsed: list[Block] = []
    directive = ""
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            _append_block(parsed, page, token, directive)
        comment = COMMENT.fullmatch(token.content) if token.type == "html_block" else None
        directive = comment[1] if comment else ""
    return parsed


def _append_block(parsed: list[Block], page: str, token: Token, directive: str) -> None:
    line = (token.map or [0])[0] + 1
    if directive == "output":
        last = parsed.pop()
        parsed.append(Block(last.page, last.line, last.language, last.directive, last.code, token.content))
    else:
        parsed.append(Block(page, line, token.info.strip(), directive, token.content))


def all_blocks(kind: str | None = None) -> Iterator[Block]:
    """The blocks of all pages, or those whose directive is of this kind."""
    yield from (block for page in page_paths() for block in blocks_of(page) if kind is None or block.kind == kind)


@cache
def tables_of(page: str) -> list[Table]:
    parsed: list[Table] = []
    heading, cells, rows = "", list[str](), list[tuple[str, ...]]()
    for number, token in enumerate(_tokens(page)):
        match token.type:
            case "heading_open":
                heading = _tokens(page)[number + 1].content
            case "th_open" | "td_open":
                cells.append(_tokens(page)[number + 1].content)
            case "tr_close":
                rows.append(tuple(cells))
                cells = []
            case "table_close":
                parsed.append(Table(page, heading, rows[0], tuple(rows[1:])))
                rows = []
    return parsed


def find_table(page: str, first_header: str, heading: str | None = None) -> Table:
    """The only table of a page with this first header cell (and under this heading)."""
    (match,) = (
        table for table in tables_of(page) if table.header[0] == first_header and heading in (None, table.heading)
    )
    return match
