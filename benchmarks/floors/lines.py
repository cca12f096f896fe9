"""The floors for logs: a bare Tornado server that sends each new line of a file to all its sockets.

From a named pipe, one frame for each line, made once and written to every socket: what a fan-out takes at the least.
From a plain file, watched by watchdog, new lines by `write_message`: what following a file takes at the least.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornado.websocket import WebSocketHandler, WebSocketProtocol13
from watchdog.events import FileModifiedEvent, FileSystemEventHandler
from watchdog.observers import Observer

from benchmarks.upstream import until_stdin_closes

TEXT = 0x81  # a final frame of text (RFC 6455, 5.2)


class Follower(WebSocketHandler):
    followers: set[Follower]

    def initialize(self, followers: set[Follower]) -> None:
        self.followers = followers

    def open(self, *args: str) -> None:
        self.set_nodelay(True)
        self.followers.add(self)

    def on_close(self) -> None:
        self.followers.discard(self)

    def write_frame(self, frame: bytes) -> None:
        cast(WebSocketProtocol13, self.ws_connection).stream.write(frame)


class Changes(FileSystemEventHandler):
    """Tells the loop, from watchdog's thread, that the file has grown."""

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        self._loop = loop
        self._look = look

    def on_any_event(self, event: object) -> None:
        self._loop.call_soon_threadsafe(self._look)


def fan_out(followers: set[Follower], data: bytes) -> None:
    for line in data.splitlines(keepends=True):
        frame = struct.pack("!BBH", TEXT, 126, len(line)) + line
        for follower in followers:
            follower.write_frame(frame)


def tell(followers: set[Follower], data: bytes) -> None:
    if data:
        for follower in followers:
            follower.write_message(data)


def follow(path: Path, followers: set[Follower]) -> Callable[[], None]:
    """Begins to follow; what it returns ends that."""
    loop = asyncio.get_running_loop()
    if path.is_fifo():
        # For writing too: the pipe then has no end when its writer leaves.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        loop.add_reader(descriptor, lambda: fan_out(followers, os.read(descriptor, 65_536)))
        return lambda: None
    descriptor, observer = os.open(path, os.O_RDONLY), Observer()
    handler = Changes(loop, lambda: tell(followers, os.read(descriptor, 65_536)))
    observer.schedule(handler, str(path.parent), event_filter=[FileModifiedEvent])
    observer.start()
    return observer.stop


async def serve(path: Path) -> None:
    followers: set[Follower] = set()
    server = HTTPServer(Application([(r"/.*", Follower, {"followers": followers})]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    server.add_socket(listener)
    end = follow(path, followers)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await until_stdin_closes()
    end()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
