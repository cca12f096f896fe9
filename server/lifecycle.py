"""Start and shutdown of the server."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from socket import socket
from typing import TYPE_CHECKING

import structlog
import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from infraforge_runner.infraforge.rendering import HYPERPOD_PRESETS
from infraforge_runner.jobs.model import Job
from infraforge_runner.jobs.watch import Watch, Watcher
from infraforge_runner.runner import DataInUse, JobRunner, RunnerConfig
from pipeline import plugins
from pipeline.errors import Unavailable
from pipeline.messages import Failure, Result
from pipeline.runtime import Runtime
from pipeline.streams import Streams
from pipeline.telemetry import config
from pipeline.telemetry.spans import trace_outcomes
from server import fast
from server.app import ROUTES, make_app
from server.auth.hosts import HostPolicy
from server.auth.keys import ApiKeys
from server.config import ServerOptions
from server.inference.recent_answers import RecentAnswers
from server.jobs.deployed_models import DeployedModels
from server.openapi.route import Route
from server.services import Services
from server.websocket.feed_publisher import FeedPublisher

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)

# How long a connection may be idle, and how long the headers of a request may take: longer than the 60 s that proxies
# keep an idle connection, or they would send a request into one that is just being closed.
IDLE_CONNECTION_SECONDS = 75
MAX_HEADER_BYTES = 65_536
GENERATED_PRESETS = "presets"  # the folder, under --data, with the presets of deployed models
FLUSH_SECONDS = 2.0  # for answers that are complete to be written


class StartupError(Exception):
    """Why the server can't start, as a sentence for the person who started it. Exit code 2."""


def run_server(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError, PluginError, UnusablePipeline."""
    tracing = config.configure_tracing()
    fast.keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, tracing))
    if tracing is not None:
        tracing.close()


async def _serve(options: ServerOptions, tracing: Tracing | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options, tracing) as (services, url):
        fast.relax_collector()
        print(f"listening on {url}", flush=True)
        await stop.wait()
        log.info("shutdown_started", streams=services.streams.running_count)


@asynccontextmanager
async def running(
    options: ServerOptions, tracing: Tracing | None = None, routes: Sequence[Route] = ROUTES
) -> AsyncIterator[tuple[Services, str]]:
    """A running server's services and its URL. At the end it shuts down. Raises like `run_server`."""
    async with AsyncExitStack() as stack:  # one close that fails does not skip the others
        watcher = Watcher()
        services = make_services(options, watcher, tracing)
        stack.push_async_callback(services.runtime.close)
        stack.callback(watcher.close)
        stack.push_async_callback(services.jobs.close)
        stack.push_async_callback(services.deployed_models.close)
        await services.runtime.start()
        _start_jobs(services.jobs, options)
        sockets = _listen(options)
        server = _make_http_server(services, routes)
        server.add_sockets(sockets)
        watched = [options.presets, options.data / GENERATED_PRESETS, *filter(None, [options.api_keys_file])]
        watch = Watch(watcher, watched, lambda: reload_files(services))
        watch.start()
        _reconcile_models(services)
        services.ready = True
        stack.push_async_callback(shut_down, server, services)
        stack.push_async_callback(watch.close)
        yield services, _url_of(sockets[0])


def make_services(options: ServerOptions, watcher: Watcher, tracing: Tracing | None = None) -> Services:
    """Raises StartupError, PluginError."""
    if not options.presets.is_dir():
        raise StartupError(f"--presets {options.presets} is no folder")
    try:
        api_keys = ApiKeys(options.keys, options.api_keys_file)
    except OSError as error:
        raise StartupError(f"--api-keys-file {options.api_keys_file} can't be read: {error.strerror}") from error
    generated = options.data / GENERATED_PRESETS
    runtime = Runtime(plugins.load_plugins(), [options.presets, generated], [HYPERPOD_PRESETS], tracing)
    jobs = JobRunner(_runner_config(options), watcher, lambda: runtime.store.snapshot.get(HYPERPOD_PRESETS), tracing)
    recent_answers = RecentAnswers()
    services = Services(
        options,
        api_keys,
        HostPolicy(options.allow_host, options.allow_origin),
        runtime,
        Streams(runtime, max_streams=options.max_streams, retention=options.stream_keep, grace=options.grace),
        jobs,
        DeployedModels(generated, jobs.stacks, runtime),
        FeedPublisher(runtime, jobs, recent_answers),
        recent_answers,
        tracing,
    )
    _connect_listeners(services)
    return services


def _runner_config(options: ServerOptions) -> RunnerConfig:
    return RunnerConfig(
        options.data,
        options.presets,
        options.infraforge,
        max_running=options.jobs_at_once,
        keep_jobs=options.keep_jobs,
        keep_days=options.keep_days,
    )


def _connect_listeners(services: Services) -> None:
    """Have metrics, feed and deployed models follow what streams, jobs and stages report."""
    metrics, runtime, publisher = services.metrics, services.runtime, services.feed_publisher

    def on_outcome(outcome: Result | Failure) -> None:
        metrics.observe_outcome(outcome)
        services.recent_answers.record(outcome)

    def on_job_change(job: Job) -> None:
        metrics.observe_job(job)
        if job.is_finished and not job.spec.dry_run:
            _reconcile_models(services)
        publisher.publish_job(job)

    metrics.register_state(runtime, services.streams, services.websockets, services.jobs)
    services.jobs.on_change = on_job_change
    tracing = services.tracing
    services.streams.on_outcome = on_outcome if tracing is None else trace_outcomes(on_outcome)
    runtime.context.notify_model_changed = publisher.publish_model_soon


def _reconcile_models(services: Services) -> None:
    try:
        services.deployed_models.reconcile()
    except OSError as error:
        log.warning("deployed_models_not_reconciled", error=str(error))


async def reload_files(services: Services) -> None:
    """Apply changes of API keys and presets on disk, and publish those of presets."""
    services.api_keys.reload()
    for change in await services.runtime.reload():
        services.metrics.count_preset_change(change.kind, change.change)
        services.feed_publisher.publish_preset_change(change)
        if change.kind == services.runtime.plugins.model_presets.name and change.change != "rejected":
            await services.feed_publisher.publish_model(change.name)


def _start_jobs(jobs: JobRunner, options: ServerOptions) -> None:
    try:
        jobs.start()
    except DataInUse as error:
        raise StartupError(f"--data: {error}") from error
    except OSError as error:
        raise StartupError(f"--data {options.data} can't be used: {error.strerror}") from error


def _listen(options: ServerOptions) -> list[socket]:
    try:
        return bind_sockets(options.port, options.address, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"port {options.port} of {options.address} is taken; --port chooses another") from error
        raise StartupError(f"can't listen on {options.address}:{options.port}: {error.strerror}") from error


def _make_http_server(services: Services, routes: Sequence[Route]) -> HTTPServer:
    server = HTTPServer(
        make_app(services, routes),
        # The base handler limits bodies itself: Tornado would answer a large one with a bare 400.
        max_body_size=2**62,
        max_header_size=MAX_HEADER_BYTES,
        idle_connection_timeout=IDLE_CONNECTION_SECONDS,
        chunk_size=fast.LARGE_READ_SIZE,
    )
    server.read_chunk_size = fast.READ_SIZE  # of a new connection
    return server


def _url_of(listening: socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def shut_down(server: HTTPServer, services: Services) -> None:
    """Accept no more work, let streams end, and close all connections."""
    services.ready = False
    await services.streams.drain(services.options.drain)
    error = Unavailable("The server is shutting down; follow on from your offset once it is back.")
    services.jobs.disconnect_log_readers(error)
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            await services.in_flight.wait_until_empty()
    server.stop()
    for websocket in list(services.websockets):
        websocket.close_for_shutdown()
    await server.close_all_connections()
