"""The floor: a bare Tornado passthrough with one long-lived aiohttp session, which parses nothing."""

import asyncio
import socket
import sys

import aiohttp
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from benchmarks.upstream import until_stdin_closes

COPIED = ("Content-Type", "Content-Length")


class Passthrough(RequestHandler):
    session: aiohttp.ClientSession
    url: str

    def initialize(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(self) -> None:
        # Tornado sets it only when an answer ends: without it a small flush waits for the client's delayed ACK.
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        connection.stream.set_nodelay(True)
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url, data=self.request.body, headers=headers) as answer:
            self.set_status(answer.status)
            for name in COPIED:
                if name in answer.headers:
                    self.set_header(name, answer.headers[name])
            async for data in answer.content.iter_any():
                self.write(data)
                await self.flush()


async def serve(upstream: str) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
    ) as session:
        settings = {"session": session, "url": f"{upstream}/v1/chat/completions"}
        server = HTTPServer(Application([(r"/.*", Passthrough, settings)]))
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        server.add_socket(listener)
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await until_stdin_closes()
        server.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
