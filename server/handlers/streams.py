"""A stream that exists already: read it again from any event, or stop it."""

from __future__ import annotations

from pipeline.errors import Cancelled, InvalidRequest
from server import wire
from server.handlers.inference import InferenceHandler


class StreamsHandler(InferenceHandler):
    """GET and DELETE /api/streams/{stream_id}."""

    address = "/api/streams/{stream_id}"

    async def get(self, stream_id: str) -> None:
        stream = self.services.streams.get(stream_id, self.owner)
        kinds = [wire.SSE, wire.NDJSON, wire.MSGPACK_EVENTS]
        if len(stream.models) == 1:
            kinds.append(wire.TEXT)
        kind, after = self.negotiate(*kinds), self._after()
        stream.check_told(after)
        await self.send_events(stream, kind, after=after, commit=True)

    def delete(self, stream_id: str) -> None:
        self.services.streams.get(stream_id, self.owner).stop(Cancelled("This stream was stopped."))
        self.set_status(204)

    def _after(self) -> int:
        """The seq of the last event that the client has; -1 for none."""
        asked = self.get_query_argument("after", None)
        name = "Last-Event-ID" if asked is None else "after"
        value = self.request.headers.get("Last-Event-ID") if asked is None else asked
        if value is None:
            return -1
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise InvalidRequest(f"{name}: expected the seq of the last event that you have.")
        return int(value)
