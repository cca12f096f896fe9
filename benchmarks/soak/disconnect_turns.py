"""Turns of users that cancel a stream, drop its connection, or resume it."""

import socket as sockets

from benchmarks.soak.client import REQUEST, Client, check, receive_until
from benchmarks.soak.inference_turns import CHUNK_MARKERS

LONG_STREAM = "paced-1000-10ms"  # ten seconds: also a slow client leaves before its end
SHORT_STREAM, CHUNKS = "paced-100-10ms", 100  # one second: a client that resumes reads it to its end


async def cancel_by_delete(client: Client) -> None:
    async with client.stream(LONG_STREAM) as response:
        await response.content.readuntil(b"event: chunk")
        await client.request("DELETE", f"/api/streams/{response.headers['X-Stream-Id']}", 204)
        remaining = await response.content.read()
    check(b'"code":"cancelled"' in remaining and b"event: complete" in remaining, remaining[-500:])


async def cancel_on_socket(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send_json(REQUEST | {"op": "infer", "id": "a", "model": LONG_STREAM})
        await receive_until(socket, "chunk")
        await socket.send_json({"op": "cancel", "id": "b", "target": "a"})
        messages = await receive_until(socket, "complete", id="a")
    check(messages[-2].get("code") == "cancelled", messages)


async def drop_connection(client: Client) -> None:
    async with client.stream(LONG_STREAM, client.rng.choice(list(CHUNK_MARKERS))) as response:
        await response.content.readany()
        response.close()


async def drop_socket(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send_json(REQUEST | {"op": "infer", "id": "a", "model": LONG_STREAM})
        await receive_until(socket, "chunk")
        # The TCP connection ends without a close frame of the WebSocket.
        socket.get_extra_info("socket").shutdown(sockets.SHUT_RDWR)


async def resume_stream(client: Client) -> None:
    async with client.stream(SHORT_STREAM, resumable=True) as response:
        stream_id, first_bytes = response.headers["X-Stream-Id"], await response.content.readuntil(b"event: chunk\n")
        response.close()
    after = first_bytes.count(b"event: ") - 1
    remaining = await client.request("GET", f"/api/streams/{stream_id}?after={after}")
    check(
        remaining.count(b"event: chunk\n") == CHUNKS - after and b"event: complete" in remaining[-100:],
        remaining[-500:],
    )
