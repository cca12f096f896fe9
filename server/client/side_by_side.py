"""Views of a stream: plain text of one model, lines labelled with the model, or one panel per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from server.client.api import EventFields
from server.client.output import Output, strip_control_characters

MIN_PANEL_WIDTH = 30  # characters; panels that would be narrower are stacked


class StreamView(Protocol):
    """Shows the events of a stream. A context manager: its exit prints what is still buffered."""

    def show(self, event: EventFields) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class PlainView:
    """The bare text of one model; with `--json`, every event of any number of models."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._is_at_line_start = True

    def show(self, event: EventFields) -> None:
        if self._output.json:
            self._output.write_json(event)
        elif event["type"] == "chunk":
            self._output.write(event["delta"])
            self._is_at_line_start = event["delta"].endswith("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: object = None, *exc_info: object) -> None:
        if not self._is_at_line_start and error_type is not BrokenPipeError:
            self._output.write("\n")


class LabelledView:
    """Whole lines, each after the name of its model: for pipes."""

    def __init__(self, output: Output, models: Sequence[str]) -> None:
        self._output = output
        self._label_width = max(map(len, models))
        self._partial_lines = dict.fromkeys(models, "")

    def show(self, event: EventFields) -> None:
        if event["type"] == "chunk":
            model = event["model"]
            *lines, self._partial_lines[model] = (self._partial_lines[model] + event["delta"]).split("\n")
            self._write_lines(model, lines)
        elif event["type"] in ("result", "error"):
            self._flush(event["model"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: object = None, *exc_info: object) -> None:
        if error_type is not BrokenPipeError:
            for model in self._partial_lines:
                self._flush(model)

    def _flush(self, model: str) -> None:
        if self._partial_lines[model]:
            self._write_lines(model, [self._partial_lines[model]])
            self._partial_lines[model] = ""

    def _write_lines(self, model: str, lines: Sequence[str]) -> None:
        if lines:
            self._output.write("".join(f"{model:{self._label_width}} | {line}\n" for line in lines))


class SideBySideView:
    """One panel per model, redrawn while the models answer; its exit prints the whole answers once."""

    def __init__(self, output: Output, models: Sequence[str]) -> None:
        self._console = output.console
        self._texts = dict.fromkeys(models, "")
        self._outcomes: dict[str, str] = {}
        self._live = Live(
            _ScreenSized(self), console=self._console, refresh_per_second=12, transient=True, vertical_overflow="crop"
        )

    def show(self, event: EventFields) -> None:
        if event["type"] == "chunk":
            self._texts[event["model"]] += strip_control_characters(event["delta"])
        elif event["type"] in ("result", "error"):
            self._outcomes[event["model"]] = event["type"]

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()
        self._console.print(self.render(self._console.width))

    def render(self, width: int, height: int | None = None) -> RenderableType:
        """Draw all panels; with a `height` in lines, only so many last lines of each text that they fit a screen."""
        is_side_by_side = width // len(self._texts) >= MIN_PANEL_WIDTH
        text_width = (width // len(self._texts) if is_side_by_side else width) - 4
        max_lines = (
            None if height is None else max(1, height - 3 if is_side_by_side else height // len(self._texts) - 2)
        )
        panels = [self._render_panel(model, text_width, max_lines) for model in self._texts]
        grid = Table.grid(expand=True)
        for _ in panels if is_side_by_side else panels[:1]:
            grid.add_column(ratio=1)
        for row in [panels] if is_side_by_side else [[panel] for panel in panels]:
            grid.add_row(*row)
        return grid

    def _render_panel(self, model: str, text_width: int, max_lines: int | None) -> Panel:
        text = self._texts[model]
        if max_lines is not None:
            text = text[-max_lines * text_width :]
            text = "\n".join(line.plain for line in Text(text).wrap(self._console, text_width)[-max_lines:])
        style = {"result": "green", "error": "red"}.get(self._outcomes.get(model, ""), "cyan")
        return Panel(Text(text), title=Text(model), border_style=style)


class _ScreenSized:
    """A view cropped to the screen, which is measured at each redraw."""

    def __init__(self, view: SideBySideView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._view.render(options.max_width, options.size.height)
