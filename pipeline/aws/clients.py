"""Clients of AWS's services, for providers and the runner: the only place that imports aiobotocore.

`AwsClients` holds long-lived clients, one for each service and region, however many ask. `open_client` opens one for a
single query. Credentials, profiles, roles, endpoints and AWS_BEARER_TOKEN_BEDROCK are the SDK's to find.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from pipeline.aws.errors import NO_CREDENTIALS, translate_errors
from pipeline.errors import Unavailable

if TYPE_CHECKING:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    from pipeline.telemetry.otel import Tracing

_SHARED_DATA: Final = ("_retry", "endpoints", "partitions", "sdk-default-configuration")
_SERVICE_DATA: Final = ("service-2", "endpoint-rule-set-1")
_MODEL_SERVICES: Final = {"bedrock-runtime", "sagemaker-runtime"}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Timeouts in seconds; `max_connections` bounds a client's calls at once, further ones wait without an error."""

    connect_timeout: float
    read_timeout: float  # between two reads
    max_attempts: int
    max_connections: int = 10


def _model_settings(max_connections: int) -> ClientSettings:
    """For clients that serve many models, so that no preset's numbers are theirs.

    The read timeout is as AWS advises; `invoke` holds each model to its own. One attempt: the SDK would also retry
    after a timeout, and a retry is billed again, unseen by our limits, times and counts. The stage `retry` retries, and
    only before the first token.
    """
    return ClientSettings(connect_timeout=5.0, read_timeout=3600.0, max_attempts=1, max_connections=max_connections)


class AwsClients:
    """Long-lived clients. A failure is not kept: the next caller tries again."""

    def __init__(
        self,
        max_connections: int = 4000,
        prepare: Callable[[Any], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`prepare` gets every new client. With `tracing`, a request to a model carries its trace's context."""
        self._settings = _model_settings(max_connections)
        self._prepare = prepare
        self._tracing = tracing
        self._session: AioSession | None = None
        self._tasks: dict[tuple[str, str | None], asyncio.Task[Any]] = {}

    async def get(self, service: str, region: str | None) -> Any:
        """The client; None leaves the region to the SDK. Raises Unavailable, without credentials or a region."""
        key = (service, region)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._create(service, region), name=f"AWS client {service}")
            task.add_done_callback(partial(self._forget_failed, key))
        return await asyncio.shield(task)  # a caller who leaves takes it from nobody

    async def close(self) -> None:
        """Close every client, and with it its connections."""
        tasks, self._tasks, self._session = [*self._tasks.values()], {}, None
        for task in tasks:
            task.cancel()
        for client in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(client, BaseException):
                await client.close()

    async def _create(self, service: str, region: str | None) -> Any:
        with translate_errors(f"AWS's {service}"):
            session, config = await asyncio.to_thread(_load, self._session, service, self._settings)
            self._session = self._session or session
            session = self._session
            client = await session.create_client(service, region_name=region, config=config).__aenter__()
            # Checked now: a client that was created without credentials would never get any.
            if not os.environ.get("AWS_BEARER_TOKEN_BEDROCK") and await session.get_credentials() is None:
                await client.close()
                raise Unavailable(NO_CREDENTIALS)
            if self._prepare is not None:
                self._prepare(client)
            # Of no other service: their callers are tasks that live on, long after the request which began them.
            if self._tracing is not None and service in _MODEL_SERVICES:
                client.meta.events.register(f"before-send.{service}", self._tracing.on_before_send)
        return client

    def _forget_failed(self, key: tuple[str, str | None], task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            if self._tasks.get(key) is task:
                del self._tasks[key]
            if not self._tasks:
                self._session = None  # it keeps what it has read of AWS's files


@asynccontextmanager
async def open_client(service: str, region: str, settings: ClientSettings) -> AsyncIterator[Any]:
    """A client for one query, with a session of its own. Errors are the SDK's."""
    session, config = await asyncio.to_thread(_load, None, service, settings)
    async with session.create_client(service, region_name=region, config=config) as client:
        yield client


async def has_credentials() -> bool:
    """Whether the SDK finds any; whether they are right, only AWS can say. Errors are the SDK's."""
    session = await asyncio.to_thread(_create_session)
    return await session.get_credentials() is not None


def _load(session: AioSession | None, service: str, settings: ClientSettings) -> tuple[AioSession, AioConfig]:
    """The SDK, imported, with the service's description in its cache; and how its client is to be.

    In a thread, once for each client: import and JSON would hold the loop, and must not slow the start of a server that
    uses no AWS.
    """
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - the import takes 0.1 s

    session = session or _create_session()
    loader = _data_loader()
    for path in _SHARED_DATA:
        loader.load_data_with_path(path)
    for data_type in _SERVICE_DATA:
        loader.load_service_model(service, data_type)
    config = AioConfig(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.max_connections,
        retries={"total_max_attempts": settings.max_attempts, "mode": "standard"},
        user_agent_extra="forgeline",
    )
    return session, config


def _create_session() -> AioSession:
    """A session keeps the credentials and settings that it has found."""
    from aiobotocore.session import get_session  # noqa: PLC0415 - the import takes 0.1 s

    # It would log tracebacks that name the account; what they say comes out of the call as well.
    logging.getLogger("botocore").setLevel(logging.CRITICAL)
    session = get_session()
    session.register_component("data_loader", _data_loader())
    return session


@cache
def _data_loader() -> Any:
    """Shared by all sessions: it keeps the descriptions of services that it has read."""
    from aiobotocore.session import get_session  # noqa: PLC0415 - the import takes 0.1 s

    return get_session().get_component("data_loader")
