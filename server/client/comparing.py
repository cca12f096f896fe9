"""Answers as they come: bare, with the model's name before each line, or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from server.client.api import Event
from server.client.output import Output, harmless

NARROWEST = 30  # columns in which text can still be read; with less for each, models stand one under the other


class Painter(Protocol):
    """Shows a stream. A context manager: leaving it shows what is left to be shown."""

    def show(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class Single:
    """The bare text of one model; or, as JSON, every event."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._ends_line = True

    def show(self, event: Event) -> None:
        if self._output.json:
            self._output.document(event)
        elif event["type"] == "chunk":
            self._output.write(event["delta"])
            self._ends_line = event["delta"].endswith("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *rest: object) -> None:
        if not self._ends_line and (kind is not BrokenPipeError):
            self._output.write("\n")


class Labelled:
    """Whole lines, each after the name of its model: for pipes."""

    def __init__(self, output: Output, models: Sequence[str]) -> None:
        self._output = output
        self._width = max(map(len, models))
        self._rest = dict.fromkeys(models, "")

    def show(self, event: Event) -> None:
        if event["type"] == "chunk":
            model = event["model"]
            *lines, self._rest[model] = (self._rest[model] + event["delta"]).split("\n")
            self._write(model, lines)
        elif event["type"] in ("result", "error"):
            self._finish(event["model"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *rest: object) -> None:
        if kind is not BrokenPipeError:
            for model in self._rest:
                self._finish(model)

    def _finish(self, model: str) -> None:
        if self._rest[model]:
            self._write(model, [self._rest[model]])
            self._rest[model] = ""

    def _write(self, model: str, lines: Sequence[str]) -> None:
        if lines:
            self._output.write("".join(f"{model:{self._width}} | {line}\n" for line in lines))


class SideBySide:
    """A panel for each model, drawn anew as they answer; at the end, all of it once."""

    def __init__(self, output: Output, models: Sequence[str]) -> None:
        self._console = output.console
        self._texts = dict.fromkeys(models, "")
        self._outcomes: dict[str, str] = {}
        self._live = Live(
            _Cropped(self), console=self._console, refresh_per_second=12, transient=True, vertical_overflow="crop"
        )

    def show(self, event: Event) -> None:
        if event["type"] == "chunk":
            self._texts[event["model"]] += harmless(event["delta"])
        elif event["type"] in ("result", "error"):
            self._outcomes[event["model"]] = event["type"]

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()
        self._console.print(self.render(self._console.width))

    def render(self, width: int, height: int | None = None) -> RenderableType:
        """All panels; with a `height`, only the last lines, so that they fit a screen of so many."""
        beside = width // len(self._texts) >= NARROWEST
        inner = (width // len(self._texts) if beside else width) - 4
        fitting = 0 if height is None else max(1, height - 3 if beside else height // len(self._texts) - 2)
        panels = [self._panel(model, inner, fitting) for model in self._texts]
        grid = Table.grid(expand=True)
        for _ in panels if beside else panels[:1]:
            grid.add_column(ratio=1)
        for row in [panels] if beside else [[panel] for panel in panels]:
            grid.add_row(*row)
        return grid

    def _panel(self, model: str, width: int, lines: int) -> Panel:
        text = self._texts[model]
        if lines:
            text = text[-lines * width :]
            text = "\n".join(line.plain for line in Text(text).wrap(self._console, width)[-lines:])
        style = {"result": "green", "error": "red"}.get(self._outcomes.get(model, ""), "cyan")
        return Panel(Text(text), title=Text(model), border_style=style)


class _Cropped:
    """What fits the screen, measured whenever it is drawn."""

    def __init__(self, view: SideBySide) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._view.render(options.max_width, options.size.height)
