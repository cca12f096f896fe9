"""Progress bars, where somebody looks: of a job, above it its log; of a batch."""

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

from server.client.output import Output, harmless


class JobBar:
    """A job's log, and below it, on a terminal, its phase and how much is done. A context manager."""

    def __init__(self, output: Output) -> None:
        self.is_shown = output.is_live and not output.json
        self._output = output
        self._rest = ""
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

    def write(self, text: str) -> None:
        """The next piece of the log."""
        if self.is_shown:  # the bar stands below whole lines
            *lines, self._rest = (self._rest + text).split("\n")
            self._print(lines)
        elif not self._output.json:
            self._output.write_bytes(text.encode())

    def update(self, job: Mapping[str, Any]) -> None:
        progress = job.get("progress") or {}
        self._progress.update(
            self._task,
            description=harmless(job.get("phase") or job["status"]),
            completed=progress.get("done") or 0,
            total=progress.get("total"),
        )

    def __enter__(self) -> Self:
        if self.is_shown:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.is_shown:
            self._print([self._rest] if self._rest else [])
            self._progress.stop()

    def _print(self, lines: list[str]) -> None:
        if lines:
            self._progress.console.print(Text("\n").join(map(Text.from_ansi, lines)), soft_wrap=True)


class BatchBar:
    """How many lines of a batch are done, how fast, how many failed, and how long the rest will take.

    A context manager. Drawn on standard error, and only on a terminal.
    """

    def __init__(self, output: Output, total: int, done: int, failed: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("[red]{task.fields[failed]} failed", justify="right"),
            TimeRemainingColumn(),
            console=output.aside,
            disable=not output.aside.is_terminal,
        )
        self._task = self._progress.add_task("lines", total=total, completed=done, failed=failed)
        self._failed = failed

    def advance(self, *, failed: bool) -> None:
        self._failed += failed
        self._progress.update(self._task, advance=1, failed=self._failed)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()


class _Rate(ProgressColumn):
    """Lines a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", "cyan")
