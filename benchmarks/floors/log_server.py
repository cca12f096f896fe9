"""The floors for logs: a bare Tornado server that sends each new line of a file to all its sockets.

From a named pipe, it encodes one frame for each line and writes it to every socket: the minimum of a fan-out.
From a plain file, watched by watchdog, it sends new lines by `write_message`: the minimum of following a file.
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

from benchmarks.upstream import wait_until_stdin_closes

TEXT_FRAME = 0x81  # a final frame of text (RFC 6455, 5.2)


class LogSocket(WebSocketHandler):
    sockets: set[LogSocket]

    def initialize(self, sockets: set[LogSocket]) -> None:
        self.sockets = sockets

    def open(self, *args: str) -> None:
        self.set_nodelay(True)
        self.sockets.add(self)

    def on_close(self) -> None:
        self.sockets.discard(self)

    def write_frame(self, frame: bytes) -> None:
        cast(WebSocketProtocol13, self.ws_connection).stream.write(frame)


class ChangeHandler(FileSystemEventHandler):
    """Calls `on_change` on the event loop when watchdog's thread reports a change."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change

    def on_any_event(self, event: object) -> None:
        self._loop.call_soon_threadsafe(self._on_change)


def fan_out(sockets: set[LogSocket], data: bytes) -> None:
    for line in data.splitlines(keepends=True):
        frame = struct.pack("!BBH", TEXT_FRAME, 126, len(line)) + line
        for log_socket in sockets:
            log_socket.write_frame(frame)


def send_messages(sockets: set[LogSocket], data: bytes) -> None:
    if data:
        for log_socket in sockets:
            log_socket.write_message(data)


def follow(path: Path, sockets: set[LogSocket]) -> Callable[[], None]:
    """Follow a file. Returns a function that stops it."""
    loop = asyncio.get_running_loop()
    if path.is_fifo():
        # Also for writing, so that there is no end of file when the writer closes the pipe.
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        loop.add_reader(fd, lambda: fan_out(sockets, os.read(fd, 65_536)))
        return lambda: None
    fd, observer = os.open(path, os.O_RDONLY), Observer()
    handler = ChangeHandler(loop, lambda: send_messages(sockets, os.read(fd, 65_536)))
    observer.schedule(handler, str(path.parent), event_filter=[FileModifiedEvent])
    observer.start()
    return observer.stop


async def serve(path: Path) -> None:
    sockets: set[LogSocket] = set()
    server = HTTPServer(Application([(r"/.*", LogSocket, {"sockets": sockets})]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    server.add_socket(listener)
    stop = follow(path, sockets)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await wait_until_stdin_closes()
    stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
