"""The floor of most scenarios: a bare Tornado proxy with one long-lived aiohttp session, which parses nothing."""

import asyncio
import socket
import sys

import aiohttp
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from benchmarks.upstream import wait_until_stdin_closes

COPIED_HEADERS = ("Content-Type", "Content-Length")


class Passthrough(RequestHandler):
    session: aiohttp.ClientSession
    url: str

    def initialize(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(self) -> None:
        # Tornado sets TCP_NODELAY only at the end of a response: a small flush would wait for the client's delayed ACK.
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        connection.stream.set_nodelay(True)
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url, data=self.request.body, headers=headers) as response:
            self.set_status(response.status)
            for name in COPIED_HEADERS:
                if name in response.headers:
                    self.set_header(name, response.headers[name])
            async for data in response.content.iter_any():
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
        await wait_until_stdin_closes()
        server.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
