"""The pages as tests read them: their fenced blocks, with what is said of each, and their tables.

What is to be done with a block stands in a comment right above it:

    <!-- example: RUNNER -->   run by RUNNERS (running.py); a block under `<!-- output -->` is what it prints
    <!-- preset: NAME -->      a file of a folder of presets, held against the product's own checker
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
    """A fenced block. `mark` is the comment above it, `output` what is said to come of it."""

    page: str
    line: int
    language: str
    mark: str
    code: str
    output: str | None = None

    @property
    def kind(self) -> str:
        return self.mark.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.mark.partition(":")[2].strip()

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Table:
    """`heading` is the one that it stands under; cells are as they are written."""

    page: str
    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, number: int = 0) -> list[str]:
        return [row[number] for row in self.rows]

    def names(self, number: int = 0) -> list[str]:
        """What stands in backticks in a column, in all of its cells."""
        return [name for cell in self.column(number) for name in code_in(cell)]


def code_in(cell: str) -> list[str]:
    return [name.replace("\\|", "|") for name in re.findall(r"`([^`]+)`", cell)]


def pages() -> list[str]:
    """Every page, by its path from the root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def _tokens(page: str) -> Sequence[Token]:
    return PARSER.parse(text_of(page))


@cache
def blocks(page: str) -> list[Block]:
    found: list[Block] = []
    mark = ""
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            _add(found, page, token, mark)
        comment = COMMENT.fullmatch(token.content) if token.type == "html_block" else None
        mark = comment[1] if comment else ""
    return found


def _add(found: list[Block], page: str, token: Token, mark: str) -> None:
    line = (token.map or [0])[0] + 1
    if mark == "output":
        last = found.pop()
        found.append(Block(last.page, last.line, last.language, last.mark, last.code, token.content))
    else:
        found.append(Block(page, line, token.info.strip(), mark, token.content))


def all_blocks(kind: str | None = None) -> Iterator[Block]:
    """Those of every page, whose mark begins with this."""
    yield from (block for page in pages() for block in blocks(page) if kind is None or block.kind == kind)


@cache
def tables(page: str) -> list[Table]:
    found: list[Table] = []
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
                found.append(Table(page, heading, rows[0], tuple(rows[1:])))
                rows = []
    return found


def table(page: str, first: str, heading: str | None = None) -> Table:
    """The one table of this page whose first column is headed so (and which stands under this heading)."""
    (found,) = (one for one in tables(page) if one.header[0] == first and heading in (None, one.heading))
    return found
