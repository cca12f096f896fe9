"""A harness for tests of streams: `Streams` over real preset files and the scripted provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.messages import Failure, InferenceRequest, Message, Result
from pipeline.plugins import PROVIDERS, STAGES, Plugins
from pipeline.providers.scripted import ScriptedProvider
from pipeline.runtime import Runtime
from pipeline.streams import Stream, StreamRecord, Streams
from tests.async_tests import wait_until
from tests.pipeline.factories import BrokenStage
from tests.running_server import scripted_model, write_presets

MODELS = {
    "echo": scripted_model("echo; usage:1,2"),
    "long": scripted_model("chunks:5000"),
    "hang": scripted_model("hang"),
    "half": scripted_model("say:a b c; hang"),
    "cut": scripted_model("say:a b; fail:model_error"),
    "busy": scripted_model("fail:rate_limited"),
}


class StreamsHarness:
    """Streams, their runtime, and the provider that answers."""

    def __init__(self, runtime: Runtime, streams: Streams) -> None:
        self.runtime = runtime
        self.streams = streams

    @property
    def scripted(self) -> ScriptedProvider:
        provider = self.runtime.providers["scripted"]
        assert isinstance(provider, ScriptedProvider)
        return provider

    async def wait_for_calls(self, count: int) -> None:
        """Return once the models have been called `count` times."""
        await wait_until(lambda: self.scripted.calls >= count)

    def open(self, *models: str, text: str = "Hi there", **more: Any) -> Stream:
        return self.streams.open(InferenceRequest((Message("user", (text,)),), request_id="r"), models, **more)


@asynccontextmanager
async def streams_harness(
    folder: Path,
    *,
    stages: list[Any] | None = None,
    max_streams: int = 99,
    retention: float = 60.0,
    grace: float = 60.0,
) -> AsyncIterator[StreamsHarness]:
    write_presets(folder, MODELS, stages)
    runtime = Runtime(Plugins({**STAGES, "broken": BrokenStage.create}, PROVIDERS), [folder])
    await runtime.start()
    streams = Streams(runtime, max_streams=max_streams, retention=retention, grace=grace)
    try:
        yield StreamsHarness(runtime, streams)
    finally:
        await streams.drain(0)
        await runtime.close()


async def read_records(stream: Stream, after: int = -1) -> list[StreamRecord]:
    records: list[StreamRecord] = []
    with stream.attach(after) as cursor:
        while not cursor.ended:
            records += await cursor.read()
    return records


def result_texts(records: list[StreamRecord]) -> Mapping[str, Any]:
    """Return the text of every result by its model."""
    return {
        record.model: record.envelope["response"]["content"][0]["text"]
        for record in records
        if isinstance(record, Result)
    }


def failure_codes(records: list[StreamRecord]) -> dict[str, str]:
    return {record.model: record.error.code for record in records if isinstance(record, Failure)}


async def wait_until_ended(stream: Stream) -> None:
    assert stream.task is not None
    await asyncio.wait([stream.task])
