"""watermark: a stage that adds a mark to the envelope of every n-th answer of a model."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from pipeline.messages import Event, EventStream, Inference, ModelTarget, Result
from pipeline.presets.schema import PositiveInt
from pipeline.stage import Context, Measurement, Proceed


class WatermarkPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Every how many answers of a model there is a mark."""

    every: PositiveInt = 1


@dataclass
class AnswerCount:
    """The answers of one model since the server started."""

    answers: int = 0


class Watermark:
    class Options(Struct, forbid_unknown_fields=True):
        mark: str

    class ModelOptions(Struct, frozen=True):
        watermark: WatermarkPolicy = WatermarkPolicy()

    def __init__(self, options: Options, context: Context) -> None:
        self._mark = options.mark
        self._context = context
        with Path(os.environ["SAMPLE_PLUGINS_JOURNAL"]).open("a") as journal:
            journal.write(f"watermark {options.mark}\n")

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        events = await proceed(inference)
        return EventStream(self._add_mark(events, inference.target), events.aclose)

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        yield Measurement("watermark_answers", "Answers counted.", self._count(target).answers, type="counter")

    def describe(self, target: ModelTarget) -> Mapping[str, str]:
        return {"watermark": self._mark}

    def _count(self, target: ModelTarget) -> AnswerCount:
        return self._context.state(target.model, AnswerCount)

    async def _add_mark(self, events: EventStream, target: ModelTarget) -> AsyncGenerator[Sequence[Event], None]:
        every, count = target.preset.options_of(self.ModelOptions).watermark.every, self._count(target)
        async for batch in events:
            for event in batch:
                if isinstance(event, Result):
                    count.answers += 1
                    if count.answers % every == 0:
                        event.add_metadata(watermark=f"{self._mark}{count.answers}")
            yield batch
