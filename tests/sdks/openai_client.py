"""OpenAI's Python client for tests: connected to a running server."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam

from tests.running_server import RunningServer, running_server

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi there"}]
WEATHER: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "How it is outside",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@asynccontextmanager
async def start_client(
    folder: Path, *flags: str, retries: int = 0, key: str = "none", **models: Mapping[str, Any]
) -> AsyncIterator[tuple[RunningServer, AsyncOpenAI]]:
    async with (
        running_server(folder, *flags, models=models) as server,
        AsyncOpenAI(base_url=server.url + "/v1", api_key=key, max_retries=retries) as client,
    ):
        yield server, client


async def join_text(chunks: AsyncIterator[ChatCompletionChunk]) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
