"""moto behind the endpoint: requests are passed on unchanged, in a thread, one at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from aiohttp import web
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client

from tests.aws.sigv4 import Key

P = ParamSpec("P")
T = TypeVar("T")

ACCOUNT = "123456789012"
CREDENTIALS = re.compile(
    rb"<AccessKeyId>(.*?)</AccessKeyId>\s*<SecretAccessKey>(.*?)</SecretAccessKey>\s*<SessionToken>(.*?)</SessionToken>",
    re.DOTALL,
)
HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "date", "server"}


class MotoBackend:
    """All services of moto. Its state is global to the process: call `reset` before each use."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = asyncio.Lock()

    async def reset(self) -> None:
        await self.run(lambda: Client(self._app).post("/moto-api/reset"))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses moto's state, in a thread."""
        async with self._lock:
            return await asyncio.to_thread(work, *args, **kwargs)

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        answered = await self.run(self._send, request.method, request.raw_path, dict(request.headers), body)
        status, headers, content = answered
        headers_to_client = {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}
        return web.Response(status=status, headers=headers_to_client, body=content)

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any, bytes]:
        environ = {"wsgi.url_scheme": "http"}
        client = Client(self._app)
        response = client.open(path, method=method, headers=dict(headers), data=body, environ_overrides=environ)
        return response.status_code, list(response.headers), response.get_data()


def get_moto_backend(service: Any, region: str) -> Any:
    return get_backend(service)[ACCOUNT][region]


def read_temporary_keys(content: bytes) -> dict[str, Key]:
    """The temporary credentials in a response of STS."""
    matches = (tuple(part.strip().decode() for part in parts) for parts in CREDENTIALS.findall(content))
    return {key: Key(secret, token) for key, secret, token in matches}
