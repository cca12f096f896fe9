"""What a request leaves behind is given back at once: nothing of it holds itself in a circle, for a collector to find.

`run.py` lets the collector look seldom, which is only right as long as that is so.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.messages import InferenceRequest
from tests.aio import asynchronous
from tests.serving import Server, says, serving

MODELS = {
    "short": says("say:Hello there; usage:3,2"),
    "long": says("chunks:300; usage:3,300"),
    "falls": says("fail:unavailable", fallback=["fails", "short"]),
    "fails": says("fail:unavailable"),
    "hangs": says("say:Hello; hang"),
}
STAGES = ["decode_frames", "fallback", "route_model", "fit_frames", "limit", "circuit_breaker", "retry", "invoke"]
REQUESTS = 3


@pytest.fixture
def collector() -> Iterator[None]:
    """It keeps what it finds, and comes only when it is called."""
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def garbage_of(server: Server, path: str, body: object, **headers: str) -> Counter[str]:
    """The kinds of objects, of ours and of Tornado's, that requests leave for the collector."""
    for number in range(REQUESTS + 1):
        if number == 1:  # what the first request makes once for all is there now
            await server.ended()
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
        answer = await server.post(path, body, **headers)
        assert answer.status == 200
    await server.ended()
    gc.collect()
    names = [f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage]
    return Counter(name for name in names if name.startswith(("pipeline", "server", "tornado")))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/models/short", {"text": "Hi"}),
        ("/api/models/falls", {"text": "Hi"}),
        ("/api/stream/long", {"text": "Hi"}),
        ("/api/multi-inference", {"text": "Hi", "models": ["short", "long"]}),
        ("/v1/chat/completions", {"model": "long", "messages": [{"role": "user", "content": "Hi"}], "stream": True}),
    ],
)
@asynchronous
async def test_requests_leave_nothing_for_the_collector(
    tmp_path: Path, collector: None, path: str, body: object
) -> None:
    stages = [*STAGES, "normalize_envelope"]
    async with serving(tmp_path, "--stream-keep", "0", models=MODELS, stages=stages) as server:
        assert await garbage_of(server, path, body) == {}


@asynchronous
async def test_a_stream_whose_client_has_left_keeps_its_text_and_not_its_request(
    tmp_path: Path, collector: None
) -> None:
    async with serving(tmp_path, models=MODELS) as server:
        async with server.live("/api/stream/hangs", {"text": "Asked by who leaves"}) as live:
            await live.next()
        await server.ended()
        gc.collect()
        requests = [one for one in gc.get_objects() if isinstance(one, InferenceRequest)]
        assert "Asked by who leaves" not in [request.messages[-1].text for request in requests]
