"""The server: whose request it is, whether its signature is right, and who answers it."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl

from aiohttp import ClientConnectionResetError, web

from tests.aws import bedrock, errors, models, motoside, router, sagemaker, sigv4
from tests.aws.emd import Deployed, Emd, stack_name
from tests.aws.script import Answer, Asked, Fails, Said, Script
from tests.aws.sigv4 import Key, Refused

MAX_BODY = 64 * 1024 * 1024
STREAMS = {"ConverseStream", "InvokeEndpointWithResponseStream"}
UNSIGNED = {"AssumeRoleWithWebIdentity", "AssumeRoleWithSAML"}
UNSET = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_RETRY_MODE",
    "AWS_MAX_ATTEMPTS",
    "AWS_CA_BUNDLE",
)
"""What must not be in the environment of a client."""

Write = Callable[[Said], Awaitable[web.StreamResponse]]


class Patch(Protocol):
    """What we need of pytest's monkeypatch."""

    def setenv(self, name: str, value: str) -> None: ...
    def delenv(self, name: str, raising: bool = True) -> None: ...


class Aws:
    """The endpoint. `tests.aws` describes it."""

    def __init__(self, region: str = "us-west-2") -> None:
        self.region = region
        self.url = ""
        self.router_url = ""
        self.keys = {"AKIAFORGELINETEST000": Key("forgeline/secret+for/tests")}
        self.bearer = "bedrock-api-key-forgeline"
        self.models = models.served()
        self.page = 100
        self.emd = Emd(region)
        self.calls: Counter[str] = Counter()
        self.requests: list[Asked] = []
        self.answering = 0
        self.streams = 0
        self.aborted = 0
        self._script = Script()
        self._moto = motoside.Moto()
        self._runners: list[web.AppRunner] = []
        self._changed = asyncio.Condition()

    # --- for who uses it ---------------------------------------------------------------------------

    @property
    def answer(self) -> Answer:
        return self._script.answer

    @answer.setter
    def answer(self, answer: Answer) -> None:
        self._script.answer = answer

    @property
    def answers(self) -> dict[str, Answer]:
        return self._script.answers

    def next(self, target: str, *answers: Answer) -> None:
        self._script.next(target, *answers)

    @property
    def environ(self) -> dict[str, str]:
        access, key = next(iter(self.keys.items()))
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def only(self) -> dict[str, str]:
        """This process's environment, with nothing of AWS but this endpoint."""
        return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | self.environ

    def apply(self, patch: Patch) -> None:
        """Makes it the environment of this process."""
        for name in {*UNSET, *(name for name in os.environ if name.startswith("AWS_"))}:
            patch.delenv(name, raising=False)
        for name, value in self.environ.items():
            patch.setenv(name, value)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(runner.server.connections) for runner in self._runners if runner.server)

    async def idle(self) -> None:
        """Returns when no inference is being answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.answering == 0)

    async def asked(self, count: int, operation: str) -> None:
        """Returns when so many calls of this operation have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.calls[operation] >= count)

    async def bootstrap_emd(self) -> None:
        await self._moto.run(self.emd.bootstrap)

    async def deploy_emd(  # noqa: PLR0913 - what EMD is told
        self,
        model_id: str,
        tag: str = "dev",
        service: str = "sagemaker_realtime",
        status: str = "CREATE_COMPLETE",
        *,
        stage: str = "Build",
        key: str | None = None,
        endpoint: str | None = None,
        instance: str = "g5.2xlarge",
    ) -> Deployed:
        stack = stack_name(model_id, tag)
        one = Deployed(model_id, tag, service, status, stack, endpoint or f"{stack}-endpoint", instance, key)
        await self._moto.run(self.emd.deploy, one, stage)
        return one

    async def undeploy_emd(self, model_id: str, tag: str = "dev") -> None:
        await self._moto.run(self.emd.undeploy, f"{model_id}/{tag}")

    async def fill(self, stacks: int = 0, executions: int = 0) -> None:
        await self._moto.run(self.emd.fill, stacks, executions)

    # --- the server --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._moto.emptied()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.url = await self._listen(app)
        self.router_url = self.emd.router_url = await self._listen(router.app(self.emd, self._infer))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, app: web.Application) -> str:
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked, protocol = _read(request, body)
        failure = self._unsigned(request, asked, body, protocol)
        failure = failure or self._script.failure(asked)
        if failure is None and asked.service == "bedrock" and asked.target:
            return await self._converse(request, asked)
        if failure is None and asked.service == "sagemaker" and asked.target:
            return await self._invoke(request, asked, len(body))
        await self._came(asked)
        if failure is not None:
            if failure.after is not None:
                await failure.after.wait()
            return errors.response(failure, protocol)
        return await self._control(request, asked, body)

    def _unsigned(self, request: web.Request, asked: Asked, body: bytes, protocol: str) -> Fails | None:
        given = request.headers.get("Authorization", "")
        if given.startswith("Bearer ") and asked.service == "bedrock":
            text = "Authentication failed: Please make sure your API Key is valid."
            return None if given == f"Bearer {self.bearer}" else Fails("AccessDeniedException", text)
        if asked.operation in UNSIGNED:
            return None
        try:
            sigv4.check(request.method, request.raw_path, request.headers, body, self.keys)
        except Refused as refused:
            return errors.of_key(refused.kind, refused.message, protocol)
        return None

    async def _converse(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        refused = bedrock.refused(asked.operation, asked.target, asked.body, self.models)

        async def write(said: Said) -> web.StreamResponse:
            return await bedrock.answer(request, asked.operation, said)

        return await self._infer(request, asked, write, refused)

    async def _invoke(self, request: web.Request, asked: Asked, size: int) -> web.StreamResponse:
        in_service = await self._moto.run(self.emd.is_in_service, asked.target, asked.region)
        refused = sagemaker.refused(asked.target, size, motoside.ACCOUNT, in_service=in_service)
        one = self.emd.at(asked.target)

        async def write(said: Said) -> web.StreamResponse:
            return await sagemaker.answer(request, asked.operation, said, one.model_id if one else asked.target)

        return await self._infer(request, asked, write, refused, *([one.name] if one else []))

    async def _infer(
        self, request: web.Request, asked: Asked, write: Write, refused: Fails | None = None, *names: str
    ) -> web.StreamResponse:
        """Answers an inference by the script, and counts it."""
        is_stream = asked.operation in STREAMS or (asked.service == "router" and bool(asked.body.get("stream")))
        await self._came(asked, answering=1, streams=is_stream)
        try:
            said = refused or self._script.said(asked, asked.target, *names)
            if isinstance(said, Fails) and said.after is not None:
                await said.after.wait()
            return await write(said)
        except (asyncio.CancelledError, ClientConnectionResetError):
            self.aborted += 1
            raise
        finally:
            await self._count(-1, -is_stream)

    async def _came(self, asked: Asked, answering: int = 0, streams: int = 0) -> None:
        self.requests.append(asked)
        self.calls[asked.operation] += 1
        await self._count(answering, streams)

    async def _count(self, answering: int, streams: int) -> None:
        async with self._changed:
            self.answering += answering
            self.streams += streams
            self._changed.notify_all()

    async def _control(self, request: web.Request, asked: Asked, body: bytes) -> web.StreamResponse:
        if asked.service == "codepipeline" and asked.region == self.region:
            self.emd.pipeline.page = self.page
            answer = self.emd.pipeline.answer(asked.operation, asked.body)
            if isinstance(answer, Fails):
                return errors.response(answer, errors.JSON)
            if answer is not None:
                return web.json_response(answer, content_type="application/x-amz-json-1.1")
        if asked.operation == "ListStacks":
            listed = await self._moto.run(self.emd.list_stacks, asked.body, asked.region, self.page)
            return web.Response(body=listed, content_type="text/xml")
        response = await self._moto.answer(request, body)
        if (asked.service == "sts" or asked.operation in UNSIGNED) and isinstance(response.body, bytes):
            self.keys |= motoside.keys_in(response.body)
        return response


def _read(request: web.Request, body: bytes) -> tuple[Asked, str]:
    """What is asked, and in which protocol."""
    path = request.raw_path.partition("?")[0]
    scope = sigv4.scope_of(request.headers) or sigv4.Scope("", "", "", "bedrock" if bedrock.called(path) else "")
    headers = request.headers
    called = {"bedrock": bedrock.called, "sagemaker": sagemaker.called}.get(scope.service, lambda _: None)(path)
    if called:
        operation, target = called
        asked = Asked(operation, scope.service, scope.region, headers, _json(body), target, scope.key)
        return asked, errors.REST
    if "X-Amz-Target" in request.headers:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        return Asked(operation, scope.service, scope.region, headers, _json(body), key=scope.key), errors.JSON
    form = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    form = form if "Action" in form else dict(request.query)
    protocol = errors.QUERY if "Action" in form else errors.REST
    operation = form.get("Action", f"{request.method} {path}")
    content: Mapping[str, Any] = form
    return Asked(operation, scope.service, scope.region, headers, content, key=scope.key), protocol


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
