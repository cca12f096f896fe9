"""Claude, Nova and whatever else Amazon Bedrock serves by Converse: inferences go out, replies stream back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from pipeline.errors import Unavailable
from pipeline.messages import Inference, Part, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.providers import converse_media
from pipeline.providers.aws import Clients, masked, translating
from pipeline.providers.converse import encode_request, read_answer, read_stream
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context

_UNTRIED: Final = Availability("unknown", "it has not been asked yet: AWS's credentials are looked up when it is")


def create(options: Mapping[str, Any], context: Context) -> Bedrock:
    """The provider. It takes no options: all it needs stands in the model's preset and in AWS's own settings."""
    check(options, NoOptions)
    return Bedrock(context)


class Bedrock:
    """One client for each region, shared by all its models."""

    takes = frozenset({"tools"})

    def __init__(self, context: Context) -> None:
        self._clients = Clients(prepare=converse_media.install, tracing=context.tracing)
        self._known: dict[tuple[str, str | None], Availability] = {}

    async def close(self) -> None:
        """Closes every connection, those of open replies as well."""
        await self._clients.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """What the last call showed: AWS is not asked."""
        return self._known.get((preset.model, preset.region), _UNTRIED)

    async def open(self, route: Route, inference: Inference) -> Reply:
        """Asks, and returns with the first chunk in hand. Raises what `aws_errors` makes of a failure, also of one
        that comes inside a stream that has begun.
        """
        preset, key = route.preset, (route.preset.model, route.preset.region)
        try:
            client = await self._clients.get("bedrock-runtime", preset.region)
            ask = _open_stream if "stream" in preset.capabilities else _ask
            reply = await ask(client, encode_request(preset.model, inference), route.model)
        except Unavailable as error:
            if not error.retryable:
                self._known[key] = Availability("unavailable", error.message)
            raise
        self._known[key] = Availability("available")
        return reply


async def _open_stream(client: Any, request: dict[str, Any], what: str) -> Reply:
    with translating(what):
        answer = await client.converse_stream(**request)
    stream = answer["stream"]
    try:
        batches = read_stream(stream, what)
        first = await anext(batches)
    except BaseException:
        stream.close()
        raise
    # At the close nothing is awaited: the connection is closed, unless it has been read to its end.
    return Reply(_after(first, batches), batches.aclose, stream.close, **_names(answer, request), streamed=True)


async def _ask(client: Any, request: dict[str, Any], what: str) -> Reply:
    with translating(what):
        answer = await client.converse(**request)
        parts = [*read_answer(answer)]
    return Reply(_whole(parts), **_names(answer, request), streamed=False)


def _names(answer: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    """AWS's id of the request, and the model: as an inference profile's ARN it would name the account."""
    return {"id": answer["ResponseMetadata"].get("RequestId", ""), "model": masked(request["modelId"])}


async def _after(
    first: Sequence[Part], rest: AsyncGenerator[Sequence[Part], None]
) -> AsyncGenerator[Sequence[Part], None]:
    yield first
    async for batch in rest:
        yield batch


async def _whole(parts: Sequence[Part]) -> AsyncGenerator[Sequence[Part], None]:
    yield parts
