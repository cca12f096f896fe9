#!/usr/bin/env python3
"""Starts Forgeline: options, services, start, stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import structlog
import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from infraforge_runner.rendering import HYPERPOD
from infraforge_runner.runner import DataInUse, Home, JobRunner
from infraforge_runner.watch import Watch, Watcher
from pipeline import plugins, tracing
from pipeline.errors import Unavailable
from pipeline.presets import MODELS, UnusablePipeline, pipeline_kind
from pipeline.runtime import Runtime
from pipeline.store import PresetStore
from pipeline.streams import Streams
from server import logs
from server.access import Access
from server.app import make_app
from server.handlers.base import LARGE_READ, READ
from server.memory import keep_freed_memory, spare_the_collector
from server.options import Options, parse
from server.served import ServedModels
from server.services import Services

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger("forgeline")

# For the headers of a request to come, and for an idle connection to ask again: longer than the 60 s that proxies keep
# one, or they would send a request into a connection that is just being closed.
HEADER_SECONDS = 75
MAX_HEADERS = 65_536  # bytes
GENERATED_PRESETS = "presets"  # the folder, under --data, of the models that deploys have made available
LAST_WORDS = 2.0  # seconds for what has been answered to be written


class CannotStart(Exception):
    """Why the server can't start, as a sentence for the person who started it. Exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    logs.configure(options.log_format)
    try:
        if options.check is not None:
            return check_presets(options.check)
        traces = tracing.configure()
        keep_freed_memory()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options, traces))
        if traces is not None:
            traces.close()
    except (CannotStart, plugins.PluginError, UnusablePipeline) as error:
        print(f"forgeline: {error}", file=sys.stderr)
        return 2
    return 0


def check_presets(folder: Path) -> int:
    """Says every fault of a folder of presets, with file and line. 1 where there is one."""
    if not folder.is_dir():
        raise CannotStart(f"{folder} is no folder")
    store = PresetStore([folder], [MODELS, pipeline_kind(plugins.load().check_stage), HYPERPOD])
    store.reload()
    for fault in store.snapshot.faults:
        print(fault)
    if store.snapshot.faults:
        return 1
    print(f"{sum(map(len, store.snapshot.presets.values()))} presets, no fault")
    return 0


async def serve(options: Options, traces: Tracing | None) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options, traces) as (services, address):
        spare_the_collector()
        print(f"listening on {address}", flush=True)
        await stop.wait()
        log.info("shutting down", streams=services.streams.running)


@asynccontextmanager
async def running(options: Options, traces: Tracing | None = None) -> AsyncIterator[tuple[Services, str]]:
    """A server that serves, and its address; at the end it drains. Raises what `main` tells as exit code 2."""
    watcher = Watcher()
    services = make_services(options, watcher, traces)
    watched = [options.presets, options.data / GENERATED_PRESETS, *filter(None, [options.api_keys_file])]
    watch = Watch(watcher, watched, services.look_at_files)
    try:
        await services.runtime.start()
        start_jobs(services.jobs, options)
        sockets = listen(options)
        server = HTTPServer(
            make_app(services),
            # The base handler measures bodies itself: Tornado would answer a large one with a bare 400.
            max_body_size=2**62,
            max_header_size=MAX_HEADERS,
            idle_connection_timeout=HEADER_SECONDS,
            chunk_size=LARGE_READ,
        )
        server.read_chunk_size = READ  # of a new connection
        server.add_sockets(sockets)
        watch.start()
        services.put_models_right()
        services.ready = True
        try:
            yield services, address_of(sockets[0])
        finally:
            await watch.close()
            await drain(server, services)
    finally:
        await services.served.close()
        await services.jobs.close()
        watcher.close()
        await services.runtime.close()


def make_services(options: Options, watcher: Watcher, traces: Tracing | None = None) -> Services:
    if not options.presets.is_dir():
        raise CannotStart(f"--presets {options.presets} is no folder")
    try:
        access = Access(options.keys, options.api_keys_file, options.allow_host, options.allow_origin)
    except OSError as error:
        raise CannotStart(f"--api-keys-file {options.api_keys_file} can't be read: {error.strerror}") from error
    generated = options.data / GENERATED_PRESETS
    runtime = Runtime(plugins.load(), [options.presets, generated], [HYPERPOD], traces)
    jobs = JobRunner(home_of(options), watcher, lambda: runtime.store.snapshot.of(HYPERPOD), traces)
    return Services(
        options,
        access,
        runtime,
        Streams(runtime, max_streams=options.max_streams, keep=options.stream_keep, grace=options.grace),
        jobs,
        ServedModels(generated, jobs.stacks, runtime),
        traces,
    )


def home_of(options: Options) -> Home:
    return Home(
        options.data,
        options.presets,
        options.infraforge,
        at_once=options.jobs_at_once,
        keep_jobs=options.keep_jobs,
        keep_days=options.keep_days,
    )


def start_jobs(jobs: JobRunner, options: Options) -> None:
    try:
        jobs.start()
    except DataInUse as error:
        raise CannotStart(f"--data: {error}") from error
    except OSError as error:
        raise CannotStart(f"--data {options.data} can't be used: {error.strerror}") from error


def listen(options: Options) -> list[socket]:
    try:
        return bind_sockets(options.port, options.address, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"port {options.port} of {options.address} is taken; --port chooses another") from error
        raise CannotStart(f"can't listen on {options.address}:{options.port}: {error.strerror}") from error


def address_of(listening: socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def drain(server: HTTPServer, services: Services) -> None:
    """Takes no more work, lets streams end, and closes what is left."""
    services.ready = False
    await services.streams.drain(services.options.drain)
    services.jobs.cut_followers(Unavailable("The server is shutting down; follow on from your offset once it is back."))
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS):
            await services.answering.none_left()
    server.stop()
    for open_socket in list(services.sockets):
        open_socket.go_away()
    await server.close_all_connections()


if __name__ == "__main__":
    sys.exit(main())
