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
from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, scripted_model

MODELS = {
    "short": scripted_model("say:Hello there; usage:3,2"),
    "long": scripted_model("chunks:300; usage:3,300"),
    "falls": scripted_model("fail:unavailable", fallback=["fails", "short"]),
    "fails": scripted_model("fail:unavailable"),
    "retried": scripted_model(
        "fail:model_error", fallback=["short"], retry={"attempts": 3, "backoff": 0.001}, breaker={"failures": 1000}
    ),
    # The breaker is open when a call is repeated, and closed again at the next request.
    "retried-once": scripted_model(
        "fail:model_error",
        fallback=["short"],
        retry={"attempts": 2, "backoff": 1e-9},
        breaker={"failures": 1, "seconds": 0.001},
    ),
    "hangs": scripted_model("say:Hello; hang"),
}
STAGES = ["decode_frames", "fallback", "route_model", "fit_frames", "retry", "circuit_breaker", "limit", "invoke"]
REQUESTS = 3


@pytest.fixture
def manual_gc() -> Iterator[None]:
    """It keeps what it finds, and comes only when it is called."""
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def collect_garbage_of(server: RunningServer, path: str, body: object, **headers: str) -> Counter[str]:
    """The kinds of objects, of ours and of Tornado's, that requests leave for the collector."""
    for number in range(REQUESTS + 1):
        if number == 1:  # what the first request makes once for all is there now
            await server.wait_until_idle()
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
        answer = await server.post(path, body, **headers)
        assert answer.status == 200
    await server.wait_until_idle()
    gc.collect()
    names = [f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage]
    return Counter(name for name in names if name.startswith(("pipeline", "server", "tornado")))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/models/short", {"text": "Hi"}),
        ("/api/models/falls", {"text": "Hi"}),
        ("/api/models/retried", {"text": "Hi"}),
        ("/api/models/retried-once", {"text": "Hi"}),
        ("/api/stream/long", {"text": "Hi"}),
        ("/api/multi-inference", {"text": "Hi", "models": ["short", "long"]}),
        ("/v1/chat/completions", {"model": "long", "messages": [{"role": "user", "content": "Hi"}], "stream": True}),
    ],
)
@async_test
async def test_garbage_requests_leave_no_cycles(tmp_path: Path, manual_gc: None, path: str, body: object) -> None:
    stages = [*STAGES, "normalize_envelope"]
    async with running_server(tmp_path, "--stream-keep", "0", models=MODELS, stages=stages) as server:
        assert await collect_garbage_of(server, path, body) == {}


@async_test
async def test_garbage_disconnect_frees_request_of_stream(tmp_path: Path, manual_gc: None) -> None:
    async with running_server(tmp_path, models=MODELS) as server:
        async with server.open_stream("/api/stream/hangs", {"text": "From a client that leaves"}) as live:
            await live.next_event()
        await server.wait_until_idle()
        await wait_until(lambda: "From a client that leaves" not in texts_of_live_requests())


def texts_of_live_requests() -> list[str]:
    gc.collect()
    return [one.messages[-1].text for one in gc.get_objects() if isinstance(one, InferenceRequest)]
