"""Streams that exist already: read one again from any event, or stop it."""

from __future__ import annotations

from pipeline.errors import Cancelled, InvalidRequest
from server.handlers.inference import InferenceHandler
from server.inference import encoders


class StreamsHandler(InferenceHandler):
    """GET and DELETE /api/streams/{stream_id}."""

    route_template = "/api/streams/{stream_id}"

    async def get(self, stream_id: str) -> None:
        stream = self.services.streams.get(stream_id, self.owner)
        offered = [encoders.SSE, encoders.NDJSON, encoders.MSGPACK_EVENTS]
        if len(stream.models) == 1:
            offered.append(encoders.TEXT)
        content_type, after = self.negotiate(*offered), self._parse_after()
        stream.validate_resume_position(after)
        await self.send_events(stream, content_type, after=after, commit=True)

    def delete(self, stream_id: str) -> None:
        self.services.streams.get(stream_id, self.owner).stop(Cancelled("This stream was stopped."))
        self.set_status(204)

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
