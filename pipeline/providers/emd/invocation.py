"""The two ways to call a model that EMD has deployed: its SageMaker endpoint, and EMD's OpenAI router on ECS.

Both receive the body of a chat completion. SageMaker returns the response in PayloadParts of bare JSON lines, cut
anywhere, or, without streaming, as one JSON object. The router is called over HTTP; it requires a key only for models
that have one, which EMD keeps in a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from yarl import URL

from pipeline.aws.clients import AwsClients
from pipeline.aws.errors import sanitize_exception, to_forgeline_error, translate_errors
from pipeline.errors import ForgelineError, InvalidRequest, ModelError, Unavailable
from pipeline.masking import mask_identifiers
from pipeline.messages import Inference, ModelResponse, ModelTarget
from pipeline.presets.models import ModelPreset
from pipeline.providers.emd.deployments import EmdModelOptions, model_key
from pipeline.providers.openai.errors import read_error_message
from pipeline.providers.openai.http import ChatCompletionsClient
from pipeline.providers.openai.request import encode_request
from pipeline.providers.openai.response import ChatResponseParser, read_chat_response

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

MAX_BODY_BYTES: Final = 6_291_456  # the limit of InvokeEndpoint (BodyBlob in its service model)
SECRET: Final = "EMD-APIKey-Secrets"  # noqa: S105 - its name

_REJECTED_STATUSES: Final = {400, 413, 422}


class DeploymentGone(Exception):
    """The endpoint, or the router's entry for the model, does not exist any more."""


# --- SageMaker -------------------------------------------------------------------------------------


async def invoke_endpoint(client: Any, endpoint: str, target: ModelTarget, inference: Inference) -> ModelResponse:
    """Invoke a SageMaker endpoint, and return when the first chunk has arrived.

    Raises DeploymentGone if there is no such endpoint, InvalidRequest if the body is too large, otherwise the errors of
    `pipeline.aws.errors`.
    """
    model, stream = target.model, "stream" in target.preset.capabilities
    body = encode_request(None, inference, stream=stream)
    if len(body) > MAX_BODY_BYTES:
        raise InvalidRequest(
            f"The request to {model} has {len(body):,} bytes, its pictures in base64; SageMaker takes"
            f" {MAX_BODY_BYTES:,}. Send fewer or smaller pictures, or lower limits.frame_bytes or limits.frames in the"
            " model's preset.",
            before_call=True,
        )
    invoke = client.invoke_endpoint_with_response_stream if stream else client.invoke_endpoint
    try:
        output = await invoke(
            EndpointName=endpoint, Body=body, ContentType="application/json", Accept="application/json"
        )
    except Exception as error:  # botocore raises anything for a response that it can't parse
        raise _invocation_error(error, model) from sanitize_exception(error)
    read = _PayloadReader(output["Body"], model) if stream else _WholeBodyReader(output["Body"], model)
    parser = ChatResponseParser(stop_sequences=inference.parameters.stop, may_be_json=True)
    try:
        batches = await read_chat_response(read, parser)
    except BaseException:
        output["Body"].close()
        raise
    return ModelResponse(batches, output["Body"].close, id=parser.id, model=parser.model, streamed=parser.streamed)


class _PayloadReader:
    """Returns the bytes of PayloadParts as they arrive, and translates the SDK's errors."""

    def __init__(self, body: Any, model: str) -> None:
        self._events = aiter(body)
        self._model = model

    async def __call__(self) -> bytes:
        with translate_errors(self._model):
            async for event in self._events:
                data: bytes = event.get("PayloadPart", {}).get("Bytes", b"")
                if data:  # an empty part is not the end
                    return data
        return b""


class _WholeBodyReader:
    """Returns the bytes of a response that is not streamed, and translates the SDK's errors."""

    def __init__(self, body: Any, model: str) -> None:
        self._read = body.read
        self._model = model

    async def __call__(self) -> bytes:
        with translate_errors(self._model):
            data: bytes = await self._read(65536)
        return data


def _invocation_error(error: Exception, model: str) -> Exception:
    """Translate the error of a call that failed before its response."""
    response: Any = getattr(error, "response", None)
    response = response if isinstance(response, dict) else {}
    details = response.get("Error", {})
    if details.get("Code") == "ValidationError" and "not found" in str(details.get("Message")):
        return DeploymentGone()
    if details.get("Code") == "ModelError" and response.get("OriginalMessage"):
        return _container_error(response, model)
    return to_forgeline_error(error, model)


def _container_error(response: dict[str, Any], model: str) -> ForgelineError:
    """The error of the model's container in its own words: SageMaker's message names the account and its logs."""
    message = mask_identifiers(read_error_message(str(response["OriginalMessage"]).encode()))
    status = response.get("OriginalStatusCode")
    if status in _REJECTED_STATUSES:
        return InvalidRequest(f"{model} refused the request: {message}")
    # Not retryable, as with Bedrock and in AWS's own SDK: the container may have worked on the response.
    return ModelError(f"{model} failed ({status}): {message}", retryable=False)


# --- EMD's router ----------------------------------------------------------------------------------


class RouterClient:
    """One HTTP session for all models; the keys of each region are read once, and again after a 401."""

    def __init__(self, clients: AwsClients, tracing: Tracing | None = None) -> None:
        self._clients = clients
        self._http = ChatCompletionsClient(tracing)
        self._keys: dict[str | None, dict[str, str]] = {}  # by region, then by `<model id>/<tag>`

    async def close(self) -> None:
        """Close every connection, including those of open responses."""
        await self._http.close()

    async def complete(self, base_url: str, preset: ModelPreset, inference: Inference) -> ModelResponse:
        """Call the preset's model, and return when the first chunk has arrived.

        Raises DeploymentGone if the router does not know the model, Unavailable if it rejects the key, otherwise the
        errors of `openai.errors`.
        """
        model, connect_seconds = model_key(preset), preset.timeouts.connect
        body = encode_request(model, inference, stream="stream" in preset.capabilities)
        url = URL(base_url.rstrip("/") + "/v1/chat/completions")
        region = preset.options_of(EmdModelOptions).region
        key = await self._api_key(model, region)
        response = await self._http.post(url, key, body, connect_seconds)
        if response.status == 401:
            response.close()
            rejected_key, key = key, await self._api_key(model, region, refresh=True)
            if key == rejected_key:
                raise Unavailable(f"EMD's router refused the key that {SECRET} holds for {model}.")
            response = await self._http.post(url, key, body, connect_seconds)
        if response.status == 404:
            response.close()
            raise DeploymentGone
        return await self._http.read_response(response, key, inference.parameters.stop)

    async def _api_key(self, model: str, region: str | None, *, refresh: bool = False) -> str:
        """The model's key, "" if it has none. Raises Unavailable if the secret has to be read again and can't be."""
        if refresh or region not in self._keys:
            try:
                self._keys[region] = await self._read_keys(region)
            except ForgelineError as error:
                if refresh:
                    raise Unavailable(f"EMD's router wants a key for {model}, and {error.message}") from error
                return ""  # the model may need none
        return self._keys[region].get(model, "")

    async def _read_keys(self, region: str | None) -> dict[str, str]:
        label = f"the secret {SECRET}"
        client = await self._clients.get("secretsmanager", region)
        try:
            text: str = (await client.get_secret_value(SecretId=SECRET))["SecretString"]
            return msgspec.json.decode(text, type=dict[str, str])
        except client.exceptions.ResourceNotFoundException:
            return {}
        except (msgspec.DecodeError, KeyError):
            # Without its cause, which may show what the secret contains.
            raise Unavailable(f"{label} holds no JSON map of models to keys.") from None
        except Exception as error:  # botocore raises anything for a response that it can't parse
            raise to_forgeline_error(error, label) from sanitize_exception(error)
