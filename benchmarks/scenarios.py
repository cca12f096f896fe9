"""All scenarios: what is measured, against which floor, with which aims."""

from __future__ import annotations

from benchmarks.figures import (
    AtLeast,
    AtMost,
    Below,
    Beyond,
    Figure,
    Within,
    added_latency,
    chunks,
    cpu_per_100k,
    cpu_per_1000,
    first_chunk,
    latency,
    longest_gap,
    peak_memory,
    requests,
)
from benchmarks.measures.http_load import AddedLatency, CountedTogether, HttpLoad
from benchmarks.measures.job_logs import BareLog, FollowLoad, JobLog
from benchmarks.measures.startup import ImportTime, StartupTime
from benchmarks.measures.streaming import BedrockStreams, OpenStreams, WebSocketStreams
from benchmarks.scenario import Scenario, request_scenario
from benchmarks.targets import RequestSpec

PLAIN = RequestSpec("plain")
PICTURE = RequestSpec("plain", picture=True)
BURST = RequestSpec("burst-2000", chunks=2000)
UNBATCHED = RequestSpec("burst-2000-by-1", chunks=2000)
PACED = RequestSpec("paced-50-20ms", chunks=50)
FIRST_CHUNK = RequestSpec("paced-2-2ms", chunks=2)
HELD_OPEN = RequestSpec("held-50-at-50", chunks=50)
BEDROCK = RequestSpec("burst-2000", chunks=2000, provider="bedrock")
THREE_STAGGERED = RequestSpec("plain-20ms", more_models=("plain-10ms", "plain"))
THREE_MODELS = RequestSpec("plain", more_models=("plain-1", "plain-2"))

PLAIN_32 = HttpLoad("forgeline", PLAIN, clients=32, seconds=1.2)
FAN_OUT = FollowLoad(followers=1000, seconds=1.5)
ONE_FOLLOWER = FollowLoad(followers=1, seconds=2.5, gap=0.02)

SCENARIOS = (
    request_scenario(
        "plain requests, 32 clients",
        PLAIN,
        requests(AtLeast(0.55)),
        cpu_per_1000(AtMost(1.9)),
        *latency(),
        clients=32,
        seconds=1.2,
        rounds=5,
    ),
    Scenario(
        "plain requests, 1 client",
        "bare passthrough",
        (added_latency("added to the upstream's own p50", AtMost(2.2)), requests()),
        AddedLatency(HttpLoad("passthrough", PLAIN, seconds=0.5)),
        AddedLatency(HttpLoad("forgeline", PLAIN, seconds=0.5)),
        lambda target: AddedLatency(HttpLoad(target, PLAIN, seconds=0.5)),
        rounds=5,
    ),
    *(
        request_scenario(f"plain requests, {count} clients", PLAIN, requests(), rounds=4, clients=count, seconds=0.5)
        for count in (4, 128, 256)
    ),
    request_scenario(
        "16 streams of 2000 chunks, in writes of 64 kB",
        BURST,
        chunks(AtLeast(0.55)),
        cpu_per_100k(),
        clients=16,
        seconds=1.2,
    ),
    request_scenario(
        "16 streams of 2000 chunks, each written alone",
        UNBATCHED,
        chunks(AtLeast(0.55)),
        cpu_per_100k(),
        clients=16,
        seconds=1.2,
    ),
    Scenario(
        "16 streams of 2000 chunks, on one WebSocket",
        "Forgeline's own SSE",
        (chunks(AtLeast(1.0)), cpu_per_100k()),
        HttpLoad("forgeline", BURST, clients=16, seconds=1.2),
        WebSocketStreams(BURST, streams=16, seconds=1.2),
    ),
    Scenario(
        "16 streams of 2000 chunks, from Bedrock",
        "aiobotocore alone",
        (chunks(AtLeast(0.8)), cpu_per_100k()),
        BedrockStreams(BEDROCK, clients=16, seconds=1.2),
        HttpLoad("forgeline", BEDROCK, clients=16, seconds=1.2),
    ),
    request_scenario(
        "256 streams, a chunk every 20 ms",
        PACED,
        cpu_per_100k(AtMost(1.6)),
        *first_chunk(AtMost(3.0)),
        longest_gap(),
        clients=256,
        repeats=2,
        ramp=1.0,
        # While the clients start, fewer than 256 streams are open. All are open during each client's second stream.
        unmeasured=1,
        rounds=5,
    ),
    request_scenario("1 stream", FIRST_CHUNK, *first_chunk(AtMost(2.0)), seconds=0.6, rounds=5),
    Scenario(
        "1,000 streams held open, 50 chunks/s in all",
        "bare passthrough",
        (
            Figure("streams that got their first 50 chunks", "", lambda outcome: outcome.responses, AtLeast(1.0)),
            Figure("memory of each", "kB", lambda outcome: outcome.stream_kb, Beyond(18)),
            chunks(Within(0.2), "delivered"),
            *latency(label="a chunk's way"),
        ),
        OpenStreams("passthrough", HELD_OPEN, streams=1000, seconds=2.5),
        OpenStreams("forgeline", HELD_OPEN, streams=1000, seconds=2.5),
        rounds=3,
    ),
    request_scenario(
        "4 MB image body, 8 clients",
        PICTURE,
        requests(AtLeast(0.4)),
        peak_memory(Below(250)),
        clients=8,
        seconds=1.2,
    ),
    Scenario(
        "3 models in one request, 32 clients",
        "4 plain requests",
        (cpu_per_1000(AtMost(1.0)), requests()),
        CountedTogether(PLAIN_32, 4),
        HttpLoad("forgeline", THREE_MODELS, clients=32, seconds=1.2),
    ),
    Scenario(
        "3 models in one request, the slowest takes 20 ms, 1 client",
        "4 plain requests",
        (added_latency("added to the slowest upstream's own p50", AtMost(1.0)),),
        AddedLatency(HttpLoad("forgeline", PLAIN, seconds=0.6), factor=4),
        AddedLatency(HttpLoad("forgeline", THREE_STAGGERED, seconds=1.0)),
    ),
    Scenario(
        "a job's log to 1,000 sockets",
        "bare Tornado, one ready frame to each",
        (chunks(AtLeast(0.8), "deliveries"), cpu_per_100k(label="deliveries")),
        BareLog(FAN_OUT),
        JobLog(FAN_OUT),
    ),
    Scenario(
        "a line of a job's log to one follower",
        "watchdog and bare Tornado",
        latency(AtMost(3.0), AtMost(4.0), "written to seen"),
        BareLog(ONE_FOLLOWER, is_file=True),
        JobLog(ONE_FOLLOWER),
    ),
    Scenario(
        "start to /readyz, no model loaded",
        "importing tornado, aiohttp, aiobotocore, structlog",
        (
            Figure("time", "s", lambda outcome: outcome.seconds, AtMost(2.0)),
            peak_memory(Below(100)),
        ),
        ImportTime(),
        StartupTime(),
        rounds=5,
    ),
)

REQUEST_SPECS = (PLAIN, BURST, UNBATCHED, PACED, FIRST_CHUNK, HELD_OPEN, BEDROCK, THREE_STAGGERED, THREE_MODELS)
