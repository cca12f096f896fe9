"""Users who ask and wait for the end: plain answers, streams, several models, and requests that are wrong."""

import asyncio
import base64
import functools
import io
import random
from typing import Any

import msgpack
from PIL import Image

from benchmarks.answers import ANSWER
from benchmarks.soak.client import ASKED, SSE, Client, check, heard

# What stands once in each chunk's event.
MARKS = {
    SSE: b"event: chunk\n",
    "application/x-ndjson": b'"type":"chunk"',
    "application/vnd.forgeline.events+msgpack": msgpack.packb("type") + msgpack.packb("chunk"),
}

WRONG: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("/api/models/plain", 400, {"data": b'{"text": ', "headers": {"Content-Type": "application/json"}}),
    ("/api/models/plain", 400, {"json": ASKED | {"temprature": 1}}),
    ("/api/models/plain", 400, {"json": ASKED | {"frames": ["bm8gcGljdHVyZQ=="]}}),
    ("/api/models/plain", 415, {"data": b"text=hello", "headers": {"Content-Type": "text/plain"}}),
    ("/api/models/nobody", 404, {"json": ASKED}),
    ("/api/models/gone", 503, {"json": ASKED}),
    ("/api/multi-inference", 404, {"json": ASKED | {"models": ["plain", "nobody"]}}),
    ("/api/models", 405, {"json": ASKED}),
    ("/nowhere", 404, {"json": ASKED}),
    ("/api/hyperpod/deploy", 400, {"json": {"preset": "talks", "overrides": {"PATH": "/"}}}),
    ("/api/hyperpod/jobs/none/cancel", 404, {}),
)


async def plain(client: Client) -> None:
    told = await client.answer("POST", "/api/models/plain", json=ASKED)
    check(ANSWER in told["response"]["content"][0]["text"], told)


async def in_openai_shape(client: Client) -> None:
    body = {"model": "plain", "max_tokens": 100, "messages": [{"role": "user", "content": ASKED["text"]}]}
    told = await client.answer("POST", "/v1/chat/completions", json=body)
    check(ANSWER in told["choices"][0]["message"]["content"], told)


async def with_a_picture(client: Client) -> None:
    told = await client.answer("POST", "/api/models/picky", json=ASKED | {"frames": [noise()]})
    check(ANSWER in told["response"]["content"][0]["text"], told)


async def several_models(client: Client) -> None:
    body = ASKED | {"models": ["plain", "burst-200", "gone"]}
    told = await client.answer("POST", "/api/multi-inference", json=body)
    check([one["status"] for one in told["results"]] == ["success", "success", "error"], told)


async def streamed(client: Client) -> None:
    accept = client.rng.choice(list(MARKS))
    async with client.stream("burst-200", accept) as answer:
        told = await answer.read()
    check(told.count(MARKS[accept]) == 200 and b"complete" in told[-100:], told[-500:])


async def on_a_socket(client: Client) -> None:
    async with client.socket() as socket:
        for number in range(4):
            await socket.send_json(ASKED | {"op": "infer", "id": str(number), "model": "burst-200"})
        told = await heard(socket, "complete", times=4)
    check(sum(message["type"] == "chunk" for message in told) == 800, told[-4:])


async def wrongly(client: Client) -> None:
    path, status, asked = client.rng.choice(WRONG)
    await client.answer("POST", path, status, **asked)


async def not_in_http(client: Client) -> None:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(client.rng.choice((client.rng.randbytes(300) + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: ")))
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


@functools.cache
def noise(side: int = 200) -> str:
    """A picture, as a client sends one."""
    pixels = random.Random(1).randbytes(3 * side * side)  # noqa: S311 - no secret
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
