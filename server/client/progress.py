"""Progress bars at a terminal: of a job, below its log, and of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from server.client.output import Output, strip_control_characters


class JobProgressBar:
    """A job's log; at a terminal, a line with the job's phase and progress below it. A context manager."""

    def __init__(self, output: Output) -> None:
        self.is_visible = output.is_live and not output.json
        self._output = output
        self._partial_line = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=output.console,
            transient=True,
        )
        self._task = self._progress.add_task("queued", total=None)

    def write_log(self, text: str) -> None:
        """Print the next part of the log."""
        if self.is_visible:  # above the bar only whole lines can be printed
            *lines, self._partial_line = (self._partial_line + text).split("\n")
            self._print_lines(lines)
        elif not self._output.json:
            self._output.write_bytes(text.encode())

    def update(self, job: Mapping[str, Any]) -> None:
        """Show the state of a job, as the API returned it."""
        progress = job.get("progress") or {}
        self._progress.update(
            self._task,
            description=strip_control_characters(job.get("phase") or job["status"]),
            completed=progress.get("done") or 0,
            total=progress.get("total"),
        )

    def __enter__(self) -> Self:
        if self.is_visible:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.is_visible:
            self._print_lines([self._partial_line] if self._partial_line else [])
            self._progress.stop()

    def _print_lines(self, lines: list[str]) -> None:
        if lines:
            self._progress.console.print(Text("\n").join(map(Text.from_ansi, lines)), soft_wrap=True)


class BatchProgressBar:
    """Completed lines of a batch, their rate, failures and the remaining time. A context manager.

    Drawn on standard error, and only at a terminal.
    """

    def __init__(self, output: Output, total: int, completed: int, failed: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TextColumn("[red]{task.fields[failed]} failed", justify="right"),
            TimeRemainingColumn(),
            console=output.stderr_console,
            disable=not output.stderr_console.is_terminal,
        )
        self._task = self._progress.add_task("lines", total=total, completed=completed, failed=failed)
        self._failed = failed

    def advance(self, *, failed: bool) -> None:
        """Count one more line."""
        self._failed += failed
        self._progress.update(self._task, advance=1, failed=self._failed)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Lines per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", "cyan")
