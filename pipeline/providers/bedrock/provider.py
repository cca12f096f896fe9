"""bedrock: Claude, Nova and every other model that Amazon Bedrock serves by Converse."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from pipeline.aws.clients import AwsClients
from pipeline.aws.errors import translate_errors
from pipeline.errors import Unavailable, before_upstream_call
from pipeline.masking import mask_identifiers
from pipeline.messages import Inference, ModelResponse, ModelTarget, ResponsePart
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.providers.bedrock import media
from pipeline.providers.bedrock.converse import encode_request, read_response, read_stream
from pipeline.stage import Availability, Context

_NOT_CALLED_YET: Final = Availability(
    "unknown", "it has not been asked yet: AWS's credentials are looked up when it is"
)


class BedrockProvider:
    """One AWS client per region, shared by all models of the region."""

    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        """`region`: the AWS region; None for the one that AWS's own settings name."""

        region: str | None = None

    supported_features = frozenset({"tools"})
    telemetry_name = "aws.bedrock"
    excludes_cached_tokens = True

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._clients = AwsClients(prepare=media.register_hooks, tracing=context.tracing)
        self._availability: dict[tuple[str, str | None], Availability] = {}  # by model id and region

    async def close(self) -> None:
        """Close every connection, including those of open responses."""
        await self._clients.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """The result of the last call, without a request to AWS."""
        return self._availability.get((preset.model, preset.options_of(self.ModelOptions).region), _NOT_CALLED_YET)

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Call the model, and return when the first chunk has arrived.

        Raises the errors of `pipeline.aws.errors`, also for an exception inside a stream that has started.
        """
        preset = target.preset
        region = preset.options_of(self.ModelOptions).region
        try:
            with before_upstream_call():
                client = await self._clients.get("bedrock-runtime", region)
                request = encode_request(preset.model, inference)
            converse = _converse_stream if "stream" in preset.capabilities else _converse
            response = await converse(client, request, target.model)
        except Unavailable as error:
            if not error.retryable:
                self._availability[preset.model, region] = Availability("unavailable", error.message)
            raise
        self._availability[preset.model, region] = Availability("available")
        return response


async def _converse_stream(client: Any, request: dict[str, Any], model: str) -> ModelResponse:
    with translate_errors(model):
        output = await client.converse_stream(**request)
    stream = output["stream"]
    try:
        batches = read_stream(stream, model)
        first = await anext(batches)
    except BaseException:
        stream.close()
        raise
    # `stream.close` awaits nothing: it closes the connection, unless the stream has been read to its end.
    return ModelResponse(
        _prepend(first, batches), batches.aclose, stream.close, **_upstream_names(output, request), streamed=True
    )


async def _converse(client: Any, request: dict[str, Any], model: str) -> ModelResponse:
    with translate_errors(model):
        output = await client.converse(**request)
        parts = [*read_response(output)]
    return ModelResponse(_single_batch(parts), **_upstream_names(output, request), streamed=False)


def _upstream_names(output: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    """AWS's request id, and the model id, masked: the ARN of an inference profile names the account."""
    return {"id": output["ResponseMetadata"].get("RequestId", ""), "model": mask_identifiers(request["modelId"])}


async def _prepend(
    first: Sequence[ResponsePart], rest: AsyncGenerator[Sequence[ResponsePart], None]
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    yield first
    async for batch in rest:
        yield batch


async def _single_batch(parts: Sequence[ResponsePart]) -> AsyncGenerator[Sequence[ResponsePart], None]:
    yield parts
