"""A chat completion goes to a SageMaker endpoint that EMD made, and its reply comes back in PayloadParts.

No provider of its own. The parts hold bare JSON lines, split anywhere; one that does not stream is one JSON object.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from pipeline.errors import ForgelineError, InvalidRequest, ModelError
from pipeline.messages import Reply
from pipeline.providers.aws import harmless, masked, translate, translating
from pipeline.providers.chat_answer import AnswerReader, begin_answer
from pipeline.providers.chat_errors import message_in_body

MAX_BODY: Final = 6_291_456  # bytes; what InvokeEndpoint's model allows (BodyBlob)

_CLIENTS_FAULT: Final = {400, 413, 422}


class Gone(Exception):
    """What is to answer is not there any more."""


async def invoke(  # noqa: PLR0913 - each is a part of the call
    client: Any, endpoint: str, body: bytes, stops: Collection[str], *, stream: bool, what: str
) -> Reply:
    """Asks, and returns with the first chunk in hand. `what` names the model in errors.

    Raises Gone where there is no such endpoint, otherwise what `aws_errors` makes of a failure.
    """
    if len(body) > MAX_BODY:
        raise InvalidRequest(
            f"The request to {what} has {len(body):,} bytes, its pictures in base64; SageMaker takes {MAX_BODY:,}. "
            "Send fewer or smaller pictures, or lower limits.frame_bytes or limits.frames in the model's preset."
        )
    call = client.invoke_endpoint_with_response_stream if stream else client.invoke_endpoint
    try:
        answer = await call(EndpointName=endpoint, Body=body, ContentType="application/json", Accept="application/json")
    except Exception as error:  # whatever the SDK makes of what it can't read
        raise _failure(error, what) from harmless(error)
    read = _Parts(answer["Body"], what) if stream else _Whole(answer["Body"], what)
    reader = AnswerReader(stops=stops, whole_json=True)
    try:
        parts = await begin_answer(read, reader)
    except BaseException:
        answer["Body"].close()
        raise
    return Reply(parts, answer["Body"].close, id=reader.id, model=reader.model, streamed=reader.streamed)


class _Parts:
    """Gives the bytes of PayloadParts as they come, the SDK's errors translated."""

    def __init__(self, body: Any, what: str) -> None:
        self._events = aiter(body)
        self._what = what

    async def __call__(self) -> bytes:
        with translating(self._what):
            async for event in self._events:
                data: bytes = event.get("PayloadPart", {}).get("Bytes", b"")
                if data:  # an empty one is not the end
                    return data
        return b""


class _Whole:
    """Gives the bytes of an answer that does not stream."""

    def __init__(self, body: Any, what: str) -> None:
        self._read = body.read
        self._what = what

    async def __call__(self) -> bytes:
        with translating(self._what):
            data: bytes = await self._read(65536)
        return data


def _failure(error: Exception, what: str) -> Exception:
    """What it means that the call failed before its answer."""
    said: Any = getattr(error, "response", None)
    said = said if isinstance(said, dict) else {}
    told = said.get("Error", {})
    if told.get("Code") == "ValidationError" and "not found" in str(told.get("Message")):
        return Gone()
    if told.get("Code") == "ModelError" and said.get("OriginalMessage"):
        return _containers(said, what)
    return translate(error, what)


def _containers(said: dict[str, Any], what: str) -> ForgelineError:
    """What the model's container itself said: what SageMaker makes of it names the account and its logs."""
    words = masked(message_in_body(str(said["OriginalMessage"]).encode()))
    status = said.get("OriginalStatusCode")
    if status in _CLIENTS_FAULT:
        return InvalidRequest(f"{what} refused the request: {words}")
    # As with Bedrock, and as AWS's own SDK does: it may have worked on the answer.
    return ModelError(f"{what} failed ({status}): {words}", retryable=False)
