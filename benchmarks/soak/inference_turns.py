"""Turns of users that wait for a whole response: plain requests, streams, several models, invalid requests."""

import asyncio
import base64
import functools
import io
import random
from typing import Any

import msgpack
from PIL import Image

from benchmarks.canned_responses import RESPONSE_TEXT
from benchmarks.soak.client import REQUEST, SSE, Client, check, receive_until

# By Accept: bytes that occur once in each chunk.
CHUNK_MARKERS = {
    SSE: b"event: chunk\n",
    "application/x-ndjson": b'"type":"chunk"',
    "application/vnd.forgeline.events+msgpack": msgpack.packb("type") + msgpack.packb("chunk"),
}

INVALID_REQUESTS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("/api/models/plain", 400, {"data": b'{"text": ', "headers": {"Content-Type": "application/json"}}),
    ("/api/models/plain", 400, {"json": REQUEST | {"temprature": 1}}),
    ("/api/models/plain", 400, {"json": REQUEST | {"frames": ["bm8gcGljdHVyZQ=="]}}),
    ("/api/models/plain", 415, {"data": b"text=hello", "headers": {"Content-Type": "text/plain"}}),
    ("/api/models/nobody", 404, {"json": REQUEST}),
    ("/api/models/gone", 503, {"json": REQUEST}),
    ("/api/multi-inference", 404, {"json": REQUEST | {"models": ["plain", "nobody"]}}),
    ("/api/models", 405, {"json": REQUEST}),
    ("/nowhere", 404, {"json": REQUEST}),
    ("/api/hyperpod/deploy", 400, {"json": {"preset": "talks", "overrides": {"PATH": "/"}}}),
    ("/api/hyperpod/jobs/none/cancel", 404, {}),
)


async def plain_request(client: Client) -> None:
    body = await client.request("POST", "/api/models/plain", json=REQUEST)
    check(RESPONSE_TEXT in body["response"]["content"][0]["text"], body)


async def openai_chat(client: Client) -> None:
    body = {"model": "plain", "max_tokens": 100, "messages": [{"role": "user", "content": REQUEST["text"]}]}
    response = await client.request("POST", "/v1/chat/completions", json=body)
    check(RESPONSE_TEXT in response["choices"][0]["message"]["content"], response)


async def picture_request(client: Client) -> None:
    body = await client.request("POST", "/api/models/picky", json=REQUEST | {"frames": [noise_png()]})
    check(RESPONSE_TEXT in body["response"]["content"][0]["text"], body)


async def multi_model_request(client: Client) -> None:
    body = REQUEST | {"models": ["plain", "burst-200", "gone"]}
    response = await client.request("POST", "/api/multi-inference", json=body)
    check([result["status"] for result in response["results"]] == ["success", "success", "error"], response)


async def http_stream(client: Client) -> None:
    accept = client.rng.choice(list(CHUNK_MARKERS))
    async with client.stream("burst-200", accept) as response:
        body = await response.read()
    check(body.count(CHUNK_MARKERS[accept]) == 200 and b"complete" in body[-100:], body[-500:])


async def socket_streams(client: Client) -> None:
    async with client.socket() as socket:
        for number in range(4):
            await socket.send_json(REQUEST | {"op": "infer", "id": str(number), "model": "burst-200"})
        messages = await receive_until(socket, "complete", times=4)
    check(sum(message["type"] == "chunk" for message in messages) == 800, messages[-4:])


async def invalid_request(client: Client) -> None:
    path, status, options = client.rng.choice(INVALID_REQUESTS)
    await client.request("POST", path, status, **options)


async def malformed_http(client: Client) -> None:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(client.rng.choice((client.rng.randbytes(300) + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: ")))
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


@functools.cache
def noise_png(side: int = 200) -> str:
    """A picture in base64, as clients send it."""
    pixels = random.Random(1).randbytes(3 * side * side)  # noqa: S311 - no secret
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
