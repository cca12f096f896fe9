"""repeater: a provider that answers with the request's text, several times."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from pipeline.messages import Finish, Inference, ModelResponse, ModelTarget, ResponsePart
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import PositiveInt
from pipeline.stage import Availability, Context, Measurement


class Repeater:
    class Options(Struct, forbid_unknown_fields=True):
        separator: str = " "

    class ModelOptions(Struct, frozen=True):
        times: PositiveInt

    def __init__(self, options: Options, context: Context) -> None:
        self._separator = options.separator
        self.calls = 0
        with Path(os.environ["SAMPLE_PLUGINS_JOURNAL"]).open("a") as journal:
            journal.write(f"repeater {options.separator}\n")

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        self.calls += 1
        times = target.preset.options_of(self.ModelOptions).times
        return ModelResponse(_repeat(self._separator.join([inference.messages[-1].text] * times)), streamed=True)

    async def availability(self, preset: ModelPreset) -> Availability:
        return Availability("available")

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        yield Measurement("repeater_calls", "Calls of this provider.", self.calls, {"separator": self._separator})

    def describe(self, target: ModelTarget) -> Mapping[str, int]:
        return {"times": target.preset.options_of(self.ModelOptions).times}


async def _repeat(text: str) -> AsyncGenerator[Sequence[ResponsePart], None]:
    yield [text]
    yield [Finish("end_turn")]
