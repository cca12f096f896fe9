"""What a command prints: for a person at a terminal, for a pipe, or as JSON for a program.

Standard output carries results, standard error carries messages about them.
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

from server.client.api import encode_json
from server.client.errors import ClientError

CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

COLUMN_GAP = "  "
MIN_FOLDED_WIDTH = 20  # characters in which a folded text can still be read

STATUS_STYLES = {
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


def strip_control_characters(text: str) -> str:
    """Make text from elsewhere safe for a terminal: it can't move the cursor, set a title, or worse."""
    return CONTROL_CHARACTERS.sub("", text)


class Output:
    """Standard output and standard error of one command.

    `json`: standard output is JSON: one document, or one a line where results arrive one by one.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @cached_property
    def console(self) -> Console:
        # A pipe has no width: tables there are as wide as they need to be, for grep and awk.
        width = None if sys.stdout is not None and sys.stdout.isatty() else 1000
        return _Console(highlight=False, width=width)

    @cached_property
    def stderr_console(self) -> Console:
        return _Console(stderr=True, highlight=False)

    @property
    def is_live(self) -> bool:
        """Whether standard output is a terminal on which lines can be redrawn."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def write(self, text: str) -> None:
        """Write and flush text. Raises BrokenPipeError if nobody reads any more."""
        self.write_bytes(
            (strip_control_characters(text) if self.console.is_terminal else text).encode(errors="replace")
        )

    def write_bytes(self, content: bytes) -> None:
        if sys.stdout is not None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    def write_json(self, value: Any) -> None:
        """Write a value as one line of JSON."""
        self.write_bytes(encode_json(value) + b"\n")

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows under their headings; one block for each row if they don't fit. Only the last column is folded."""
        cells = [[_styled_cell(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        remaining_width = self.console.width - sum(widths[:-1]) - len(COLUMN_GAP) * len(widths[:-1])
        if remaining_width < min(widths[-1], MIN_FOLDED_WIDTH):
            self._print_blocks(columns, cells)
            return
        table = Table(box=None, padding=(0, len(COLUMN_GAP), 0, 0), pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, no_wrap=column is not columns[-1], overflow="fold")
        for row in cells:
            table.add_row(*row)
        self.console.print(table)

    def _print_blocks(self, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        table = Table.grid(padding=(0, len(COLUMN_GAP), 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for number, row in enumerate(rows):
            if number:
                table.add_row()
            for column, value in zip(columns, row, strict=True):
                if value:
                    table.add_row(column, value)
        self.console.print(table)

    def print_message(self, sentence: str) -> None:
        """Print a sentence to standard error."""
        if sys.stderr is not None:
            print(f"forgeline: {strip_control_characters(sentence)}", file=sys.stderr, flush=True)

    def print_dimmed(self, text: str) -> None:
        """Print a line to standard error if that is a terminal; scripts don't get it."""
        if self.stderr_console.is_terminal:
            self.stderr_console.print(Text(strip_control_characters(text), "dim"))

    def print_error(self, error: ClientError) -> None:
        """Print an error to standard error, and with `json` to standard output too."""
        if self.json:
            self.write_json(error.as_dict())
        sentence = Text.assemble(("forgeline: ", "bold red"), strip_control_characters(str(error)))
        self.stderr_console.print(sentence, soft_wrap=True)

    def silence_stdout(self) -> None:
        """Discard all further output, at exit too: Python would print a traceback for a broken pipe."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; Rich's own method exits the process with code 1."""
        raise BrokenPipeError


def _styled_cell(value: object) -> Text:
    text = "" if value is None else strip_control_characters(str(value))
    return Text(text, STATUS_STYLES.get(text, ""))
