"""Streams that exist already: read one again from any event, or stop it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pipeline.errors import Cancelled, InvalidRequest
from server.handlers.inference import EVENT_ANSWERS, EVENTS_DESCRIPTION, STREAM_HEADERS, InferenceHandler
from server.inference import encoders
from server.openapi.operation import ApiOperation, ApiParameter, count_parameter

NO_CONTENT = 204
StreamId = Annotated[str, Meta(min_length=1, description="what `X-Stream-Id` and the `start` event said")]


class StreamsHandler(InferenceHandler):
    """GET and DELETE /api/streams/{stream_id}."""

    @ApiOperation(
        tag="Streams",
        summary="A stream from any event on, then live",
        description=EVENTS_DESCRIPTION,
        parameters=(
            count_parameter("after", "the seq of the last event that you have"),
            ApiParameter("Last-Event-ID", "the same, as browsers send it", "header"),
        ),
        answers={**EVENT_ANSWERS, encoders.TEXT: str},
        headers=STREAM_HEADERS,
        errors=(404, 406),
    )
    async def get(self, stream_id: StreamId) -> None:
        stream = self.services.streams.get(stream_id, self.owner)
        offered = [encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS]
        if len(stream.models) == 1:
            offered.append(encoders.TEXT)
        content_type, after = self.negotiate(*offered), self._parse_after()
        stream.validate_resume_position(after)
        await self.send_events(stream, content_type, after=after, commit=True)

    @ApiOperation(tag="Streams", summary="Stops a stream for all its readers", status=NO_CONTENT, errors=(404,))
    def delete(self, stream_id: StreamId) -> None:
        self.services.streams.get(stream_id, self.owner).stop(Cancelled("This stream was stopped."))
        self.set_status(NO_CONTENT)

    def _parse_after(self) -> int:
        """The seq of the last event that the client has; -1 for none."""
        argument = self.get_query_argument("after", None)
        name = "Last-Event-ID" if argument is None else "after"
        value = self.request.headers.get("Last-Event-ID") if argument is None else argument
        if value is None:
            return -1
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise InvalidRequest(f"{name}: expected the seq of the last event that you have.")
        return int(value)
