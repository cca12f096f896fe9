"""What is printed, and how: for a person at a terminal, for a pipe, or as JSON for a program.

Standard output carries what was asked for, standard error what is said about it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.client.api import to_json
from server.client.errors import ClientError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

GAP = "  "  # between two columns
NARROWEST = 20  # columns in which a folded text can still be read

STYLES = {
    "succeeded": "green",
    "available": "green",
    "running": "cyan",
    "in_progress": "cyan",
    "failed": "red",
    "interrupted": "red",
    "unavailable": "red",
    "cancelled": "yellow",
    "unknown": "yellow",
    "not_deployed": "yellow",
}
"""Of the words that say how something stands."""


def harmless(text: str) -> str:
    """Text from elsewhere, for a terminal: without what would move its cursor, or worse."""
    return CONTROL.sub("", text)


class Output:
    """`json`: what goes to standard output is JSON, one document, or one a line where it comes as it happens."""

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @cached_property
    def console(self) -> Console:
        # A pipe has no width: tables there are as wide as they need to be, for grep and awk.
        wide = None if sys.stdout is not None and sys.stdout.isatty() else 1000
        return _Console(highlight=False, width=wide)

    @cached_property
    def aside(self) -> Console:
        return _Console(stderr=True, highlight=False)

    @property
    def is_live(self) -> bool:
        """Whether standard output is a terminal on which lines can be drawn over."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def write(self, text: str) -> None:
        """A piece of text, at once. Raises BrokenPipeError where nobody reads any more."""
        self.write_bytes((harmless(text) if self.console.is_terminal else text).encode("utf-8", "replace"))

    def write_bytes(self, content: bytes) -> None:
        if sys.stdout is not None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    def document(self, value: Any) -> None:
        """A value as one line of JSON."""
        self.write_bytes(to_json(value) + b"\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under their columns; where those don't fit, one block for each row. Only a last column is folded."""
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        left = self.console.width - sum(widths[:-1]) - len(GAP) * len(widths[:-1])
        if left < min(widths[-1], NARROWEST):
            self._blocks(columns, cells)
            return
        table = Table(box=None, padding=(0, len(GAP), 0, 0), pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, no_wrap=column is not columns[-1], overflow="fold")
        for row in cells:
            table.add_row(*row)
        self.console.print(table)

    def _blocks(self, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        table = Table.grid(padding=(0, len(GAP), 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for number, row in enumerate(rows):
            if number:
                table.add_row()
            for column, value in zip(columns, row, strict=True):
                if value:
                    table.add_row(column, value)
        self.console.print(table)

    def say(self, sentence: str) -> None:
        """A remark, on standard error."""
        if sys.stderr is not None:
            print(f"forgeline: {harmless(sentence)}", file=sys.stderr, flush=True)

    def remark(self, text: str) -> None:
        """What only a person wants to know, and only where one is looking."""
        if self.aside.is_terminal:
            self.aside.print(Text(harmless(text), "dim"))

    def fail(self, error: ClientError) -> None:
        if self.json:
            self.document(error.described())
        sentence = Text.assemble(("forgeline: ", "bold red"), harmless(str(error)))
        self.aside.print(sentence, soft_wrap=True)

    def hush(self) -> None:
        """After a reader has left: nothing more can be written, not even at exit."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program here, with a code of its own."""
        raise BrokenPipeError


def _cell(value: object) -> Text:
    text = "" if value is None else harmless(str(value))
    return Text(text, STYLES.get(text, ""))
