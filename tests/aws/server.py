"""The server: finds the service of a request, checks the signature, and passes the request to its handler."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl

from aiohttp import ClientConnectionResetError, web

from tests.aws import bedrock, bedrock_models, errors, moto_backend, router, sagemaker, sigv4
from tests.aws.emd import DeployedModel, EmdAccount, stack_name
from tests.aws.scripted_responses import ErrorResponse, RecordedRequest, Responder, ResponseScript, ScriptedResponse
from tests.aws.sigv4 import Key, SignatureRejected

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
"""Variables that must not be in the environment of a client."""

ResponseWriter = Callable[[ScriptedResponse], Awaitable[web.StreamResponse]]


class EnvironPatch(Protocol):
    """The part of pytest's MonkeyPatch that is used here."""

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
        self.models = bedrock_models.served_models()
        self.page_size = 100
        self.emd = EmdAccount(region)
        self.calls: Counter[str] = Counter()
        self.requests: list[RecordedRequest] = []
        self.in_flight = 0
        self.open_streams = 0
        self.aborted = 0
        self._script = ResponseScript()
        self._moto = moto_backend.MotoBackend()
        self._runners: list[web.AppRunner] = []
        self._changed = asyncio.Condition()

    # --- for tests ---------------------------------------------------------------------------------

    @property
    def response(self) -> Responder:
        return self._script.default

    @response.setter
    def response(self, responder: Responder) -> None:
        self._script.default = responder

    @property
    def responses(self) -> dict[str, Responder]:
        return self._script.by_target

    def enqueue(self, target: str, *responders: Responder) -> None:
        self._script.enqueue(target, *responders)

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

    def isolated_environ(self) -> dict[str, str]:
        """This process's environment, with this endpoint as the only AWS."""
        return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | self.environ

    def apply_environ(self, patch: EnvironPatch) -> None:
        """Make this endpoint the only AWS in the environment of this process."""
        for name in {*UNSET, *(name for name in os.environ if name.startswith("AWS_"))}:
            patch.delenv(name, raising=False)
        for name, value in self.environ.items():
            patch.setenv(name, value)

    @property
    def connection_count(self) -> int:
        """How many connections are open now."""
        return sum(len(runner.server.connections) for runner in self._runners if runner.server)

    async def wait_until_idle(self) -> None:
        """Return when no inference is being answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight == 0)

    async def wait_for_calls(self, count: int, operation: str) -> None:
        """Return when this many calls of the operation have been received."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.calls[operation] >= count)

    async def bootstrap_emd(self) -> None:
        await self._moto.run(self.emd.bootstrap)

    async def deploy_emd(  # noqa: PLR0913 - the options of `emd deploy`
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
    ) -> DeployedModel:
        stack = stack_name(model_id, tag)
        deployment = DeployedModel(
            model_id, tag, service, status, stack, endpoint or f"{stack}-endpoint", instance, key
        )
        await self._moto.run(self.emd.deploy, deployment, stage)
        return deployment

    async def undeploy_emd(self, model_id: str, tag: str = "dev") -> None:
        await self._moto.run(self.emd.undeploy, f"{model_id}/{tag}")

    async def add_unrelated(self, stacks: int = 0, executions: int = 0) -> None:
        await self._moto.run(self.emd.add_unrelated, stacks, executions)

    # --- the server --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._moto.reset()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.url = await self._listen(app)
        self.router_url = self.emd.router_url = await self._listen(router.create_app(self.emd, self._infer))
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
        recorded, protocol = _parse_request(request, body)
        failure = self._check_signature(request, recorded, body, protocol)
        failure = failure or self._script.next_failure(recorded)
        if failure is None and recorded.service == "bedrock" and recorded.target:
            return await self._converse(request, recorded)
        if failure is None and recorded.service == "sagemaker" and recorded.target:
            return await self._invoke(request, recorded, len(body))
        await self._record(recorded)
        if failure is not None:
            if failure.after is not None:
                await failure.after.wait()
            return errors.error_response(failure, protocol)
        return await self._control_plane(request, recorded, body)

    def _check_signature(
        self, request: web.Request, recorded: RecordedRequest, body: bytes, protocol: str
    ) -> ErrorResponse | None:
        authorization = request.headers.get("Authorization", "")
        if authorization.startswith("Bearer ") and recorded.service == "bedrock":
            text = "Authentication failed: Please make sure your API Key is valid."
            return None if authorization == f"Bearer {self.bearer}" else ErrorResponse("AccessDeniedException", text)
        if recorded.operation in UNSIGNED:
            return None
        try:
            sigv4.check_signature(request.method, request.raw_path, request.headers, body, self.keys)
        except SignatureRejected as rejection:
            return errors.key_error(rejection.kind, rejection.message, protocol)
        return None

    async def _converse(self, request: web.Request, recorded: RecordedRequest) -> web.StreamResponse:
        rejection = bedrock.reject(recorded.operation, recorded.target, recorded.body, self.models)

        async def write(response: ScriptedResponse) -> web.StreamResponse:
            return await bedrock.respond(request, recorded.operation, response)

        return await self._infer(request, recorded, write, rejection)

    async def _invoke(self, request: web.Request, recorded: RecordedRequest, size: int) -> web.StreamResponse:
        in_service = await self._moto.run(self.emd.is_in_service, recorded.target, recorded.region)
        rejection = sagemaker.reject(recorded.target, size, moto_backend.ACCOUNT, in_service=in_service)
        deployment = self.emd.find_by_endpoint(recorded.target)

        async def write(response: ScriptedResponse) -> web.StreamResponse:
            return await sagemaker.respond(
                request, recorded.operation, response, deployment.model_id if deployment else recorded.target
            )

        return await self._infer(request, recorded, write, rejection, *([deployment.name] if deployment else []))

    async def _infer(
        self,
        request: web.Request,
        recorded: RecordedRequest,
        write: ResponseWriter,
        rejection: ErrorResponse | None = None,
        *names: str,
    ) -> web.StreamResponse:
        """Respond to an inference as scripted, and count it."""
        is_stream = recorded.operation in STREAMS or (
            recorded.service == "router" and bool(recorded.body.get("stream"))
        )
        await self._record(recorded, answering=1, streams=is_stream)
        try:
            response = rejection or self._script.next_response(recorded, recorded.target, *names)
            if isinstance(response, ErrorResponse) and response.after is not None:
                await response.after.wait()
            return await write(response)
        except (asyncio.CancelledError, ClientConnectionResetError):
            self.aborted += 1
            raise
        finally:
            await self._count(-1, -is_stream)

    async def _record(self, recorded: RecordedRequest, answering: int = 0, streams: int = 0) -> None:
        self.requests.append(recorded)
        self.calls[recorded.operation] += 1
        await self._count(answering, streams)

    async def _count(self, answering: int, streams: int) -> None:
        async with self._changed:
            self.in_flight += answering
            self.open_streams += streams
            self._changed.notify_all()

    async def _control_plane(self, request: web.Request, recorded: RecordedRequest, body: bytes) -> web.StreamResponse:
        if recorded.service == "codepipeline" and recorded.region == self.region:
            self.emd.pipeline.page_size = self.page_size
            response_body = self.emd.pipeline.respond(recorded.operation, recorded.body)
            if isinstance(response_body, ErrorResponse):
                return errors.error_response(response_body, errors.JSON)
            if response_body is not None:
                return web.json_response(response_body, content_type="application/x-amz-json-1.1")
        if recorded.operation == "ListStacks":
            page = await self._moto.run(self.emd.list_stacks, recorded.body, recorded.region, self.page_size)
            return web.Response(body=page, content_type="text/xml")
        response = await self._moto.forward(request, body)
        if (recorded.service == "sts" or recorded.operation in UNSIGNED) and isinstance(response.body, bytes):
            self.keys |= moto_backend.read_temporary_keys(response.body)
        return response


def _parse_request(request: web.Request, body: bytes) -> tuple[RecordedRequest, str]:
    """The request and its protocol."""
    path = request.raw_path.partition("?")[0]
    scope = sigv4.read_scope(request.headers) or sigv4.Scope("", "", "", "bedrock" if bedrock.match_path(path) else "")
    headers = request.headers
    inference_call = {"bedrock": bedrock.match_path, "sagemaker": sagemaker.match_path}.get(
        scope.service, lambda _: None
    )(path)
    if inference_call:
        operation, target = inference_call
        recorded = RecordedRequest(
            operation, scope.service, scope.region, headers, _decode_json(body), target, scope.key
        )
        return recorded, errors.REST
    if "X-Amz-Target" in request.headers:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        return RecordedRequest(
            operation, scope.service, scope.region, headers, _decode_json(body), key=scope.key
        ), errors.JSON
    form = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    form = form if "Action" in form else dict(request.query)
    protocol = errors.QUERY if "Action" in form else errors.REST
    operation = form.get("Action", f"{request.method} {path}")
    content: Mapping[str, Any] = form
    return RecordedRequest(operation, scope.service, scope.region, headers, content, key=scope.key), protocol


def _decode_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
