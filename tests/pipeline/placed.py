"""Streams over real preset files, for the tests of what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.messages import Failure, InferenceRequest, Message, Result
from pipeline.plugins import PROVIDERS, STAGES, Plugins
from pipeline.providers.scripted import Scripted
from pipeline.runtime import Runtime
from pipeline.streams import Record, Stream, Streams
from tests.pipeline.making import Broken, until
from tests.serving import says, write_presets

MODELS = {
    "echo": says("echo; usage:1,2"),
    "long": says("chunks:5000"),
    "hang": says("hang"),
    "half": says("say:a b c; hang"),
    "cut": says("say:a b; fail:model_error"),
    "busy": says("fail:rate_limited"),
}


class Place:
    """Streams over presets, and the scripted provider that answers."""

    def __init__(self, runtime: Runtime, streams: Streams) -> None:
        self.runtime = runtime
        self.streams = streams

    @property
    def scripted(self) -> Scripted:
        provider = self.runtime.providers["scripted"]
        assert isinstance(provider, Scripted)
        return provider

    async def called(self, count: int) -> None:
        """Returns when the models have been called so often."""
        await until(lambda: self.scripted.calls >= count)

    def open(self, *models: str, text: str = "Hi there", **more: Any) -> Stream:
        return self.streams.open(InferenceRequest((Message("user", (text,)),), request_id="r"), models, **more)


@asynccontextmanager
async def place(
    folder: Path, *, stages: list[Any] | None = None, max_streams: int = 99, keep: float = 60.0, grace: float = 60.0
) -> AsyncIterator[Place]:
    write_presets(folder, MODELS, stages)
    runtime = Runtime(Plugins({**STAGES, "broken": Broken.create}, PROVIDERS), [folder])
    await runtime.start()
    streams = Streams(runtime, max_streams=max_streams, keep=keep, grace=grace)
    try:
        yield Place(runtime, streams)
    finally:
        await streams.drain(0)
        await runtime.close()


async def read(stream: Stream, after: int = -1) -> list[Record]:
    records: list[Record] = []
    with stream.attach(after) as cursor:
        while not cursor.ended:
            records += await cursor.read()
    return records


def results(records: list[Record]) -> Mapping[str, Any]:
    """The text of every result by its model."""
    return {
        record.model: record.envelope["response"]["content"][0]["text"]
        for record in records
        if isinstance(record, Result)
    }


def failures(records: list[Record]) -> dict[str, str]:
    return {record.model: record.error.code for record in records if isinstance(record, Failure)}


async def ended(stream: Stream) -> None:
    assert stream.task is not None
    await asyncio.wait([stream.task])
