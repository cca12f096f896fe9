"""Clients of AWS's services: one for each service and region goes out, however many ask.

No provider of its own: all that talk to AWS share this and `aws_errors`. Credentials, profiles, roles, endpoints and
AWS_BEARER_TOKEN_BEDROCK are the SDK's to find.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import Unavailable
from pipeline.providers.aws_errors import NO_CREDENTIALS, harmless, masked, translate, translating

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

    from pipeline.otel import Tracing

__all__ = ["NO_CREDENTIALS", "Clients", "harmless", "masked", "translate", "translating"]

CONNECT: Final = 5.0  # seconds; a client serves many models, so this is no preset's to say
SILENCE: Final = 3600.0  # seconds between two reads, as AWS advises; `invoke` holds each model to its own times

_DATA: Final = ("_retry", "endpoints", "partitions", "sdk-default-configuration")
_RUNTIMES: Final = {"bedrock-runtime", "sagemaker-runtime"}  # the services that ask models
_SERVICE_DATA: Final = ("service-2", "endpoint-rule-set-1")


class Clients:
    """Long-lived aiobotocore clients. A failure is not kept: the next who asks tries again."""

    def __init__(
        self,
        max_connections: int = 4000,
        prepare: Callable[[Any], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`max_connections` bounds a client's calls at once; further ones would wait without an error.

        `prepare` is given every client that is made. With `tracing`, what asks a model carries its context.
        """
        self._max_connections = max_connections
        self._prepare = prepare
        self._tracing = tracing
        self._session: AioSession | None = None
        self._made: dict[tuple[str, str | None], asyncio.Task[Any]] = {}

    async def get(self, service: str, region: str | None) -> Any:
        """The client; None leaves the region to the SDK. Raises Unavailable, without credentials or a region."""
        key = (service, region)
        making = self._made.get(key)
        if making is None:
            making = self._made[key] = asyncio.create_task(self._make(service, region), name=f"AWS client {service}")
            making.add_done_callback(partial(self._forget_failed, key))
        return await asyncio.shield(making)  # one who leaves takes it from nobody

    async def close(self) -> None:
        """Closes every client, and with it its connections."""
        made, self._made, self._session = [*self._made.values()], {}, None
        for making in made:
            making.cancel()
        for client in await asyncio.gather(*made, return_exceptions=True):
            if not isinstance(client, BaseException):
                await client.close()

    async def _make(self, service: str, region: str | None) -> Any:
        with translating(f"AWS's {service}"):
            session, config = await asyncio.to_thread(_load, self._session, service, self._max_connections)
            self._session = self._session or session
            session = self._session
            client = await session.create_client(service, region_name=region, config=config).__aenter__()
            # Asked now: a client that was made without credentials would never get any.
            if not os.environ.get("AWS_BEARER_TOKEN_BEDROCK") and await session.get_credentials() is None:
                await client.close()
                raise Unavailable(NO_CREDENTIALS)
            if self._prepare is not None:
                self._prepare(client)
            # Not of the others: they are asked by tasks that live on, long after the request which began them.
            if self._tracing is not None and service in _RUNTIMES:
                client.meta.events.register(f"before-send.{service}", self._tracing.before_send)
        return client

    def _forget_failed(self, key: tuple[str, str | None], making: asyncio.Task[Any]) -> None:
        if making.cancelled() or making.exception() is not None:
            if self._made.get(key) is making:
                del self._made[key]
            if not self._made:
                self._session = None  # it keeps what it has read of AWS's files


def _load(session: AioSession | None, service: str, max_connections: int) -> tuple[AioSession, Any]:
    """The SDK, imported, with the service's description in its cache; and how its client is to be.

    In a thread, once for each client: import and JSON would hold the loop for 0.3 s, and must not slow the start of a
    server that uses no AWS.
    """
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - as said
    from aiobotocore.session import get_session  # noqa: PLC0415

    # It would log tracebacks that name the account; what they say comes out of the call as well.
    logging.getLogger("botocore").setLevel(logging.CRITICAL)
    session = session or get_session()
    loader = session.get_component("data_loader")
    for path in _DATA:
        loader.load_data_with_path(path)
    for kind in _SERVICE_DATA:
        loader.load_service_model(service, kind)
    config = AioConfig(
        connect_timeout=CONNECT,
        read_timeout=SILENCE,
        max_pool_connections=max_connections,
        # The SDK would ask again after a timeout too, and what it asks again is billed again, unseen by our limits,
        # times and counts: the stage `retry` does it, and only before the first token.
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra="forgeline",
    )
    return session, config
