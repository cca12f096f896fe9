"""Users who stop a stream, leave it without a word, or leave and come back."""

import socket as sockets

from benchmarks.soak.asking import MARKS
from benchmarks.soak.client import ASKED, Client, check, heard

LONG = "paced-1000-10ms"  # ten seconds, to be left in the middle of, also by a client that is slow
SHORT, CHUNKS = "paced-100-10ms", 100  # a second, to be read to its end by whoever comes back


async def stopped_by_delete(client: Client) -> None:
    async with client.stream(LONG) as answer:
        await answer.content.readuntil(b"event: chunk")
        await client.answer("DELETE", f"/api/streams/{answer.headers['X-Stream-Id']}", 204)
        rest = await answer.content.read()
    check(b'"code":"cancelled"' in rest and b"event: complete" in rest, rest[-500:])


async def stopped_on_a_socket(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send_json(ASKED | {"op": "infer", "id": "a", "model": LONG})
        await heard(socket, "chunk")
        await socket.send_json({"op": "cancel", "id": "b", "target": "a"})
        told = await heard(socket, "complete", id="a")
    check(told[-2].get("code") == "cancelled", told)


async def vanished(client: Client) -> None:
    async with client.stream(LONG, client.rng.choice(list(MARKS))) as answer:
        await answer.content.readany()
        answer.close()


async def vanished_from_a_socket(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send_json(ASKED | {"op": "infer", "id": "a", "model": LONG})
        await heard(socket, "chunk")
        # The line goes dead below the WebSocket, which says no goodbye.
        socket.get_extra_info("socket").shutdown(sockets.SHUT_RDWR)


async def resumed(client: Client) -> None:
    async with client.stream(SHORT, resumable=True) as answer:
        stream, begun = answer.headers["X-Stream-Id"], await answer.content.readuntil(b"event: chunk\n")
        answer.close()
    after = begun.count(b"event: ") - 1
    rest = await client.answer("GET", f"/api/streams/{stream}?after={after}")
    check(rest.count(b"event: chunk\n") == CHUNKS - after and b"event: complete" in rest[-100:], rest[-500:])
