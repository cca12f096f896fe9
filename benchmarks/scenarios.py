"""What is measured, against what, and what is aimed at."""

from __future__ import annotations

from benchmarks.figures import (
    AtLeast,
    AtMost,
    Below,
    Beyond,
    Figure,
    Within,
    added,
    chunks,
    cpu_per_100k,
    cpu_per_1000,
    first_chunk,
    latency,
    peak,
    requests,
    silence,
)
from benchmarks.measures.asking import Added, Ask, Together
from benchmarks.measures.logs import BareLog, Following, JobLog
from benchmarks.measures.start import Import, Ready
from benchmarks.measures.streaming import Converse, Hold, Socket
from benchmarks.scenario import Scenario, asked
from benchmarks.targets import Question

PLAIN = Question("plain")
PICTURE = Question("plain", picture=True)
BURST = Question("burst-2000", chunks=2000)
SINGLY = Question("burst-2000-by-1", chunks=2000)
PACED = Question("paced-50-20ms", chunks=50)
FIRST = Question("paced-2-2ms", chunks=2)
HELD = Question("held-50-at-50", chunks=50)
BEDROCK = Question("burst-2000", chunks=2000, provider="bedrock")
THREE = Question("plain-20ms", others=("plain-10ms", "plain"))
THREE_AT_ONCE = Question("plain", others=("plain-1", "plain-2"))

PLAIN_32 = Ask("forgeline", PLAIN, clients=32, seconds=1.2)
FAN_OUT = Following(followers=1000, seconds=1.5)
ONE_FOLLOWER = Following(followers=1, seconds=2.5, gap=0.02)

SCENARIOS = (
    asked(
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
        (added("added to the upstream's own p50", AtMost(2.2)), requests()),
        Added(Ask("passthrough", PLAIN, seconds=0.5)),
        Added(Ask("forgeline", PLAIN, seconds=0.5)),
        lambda target: Added(Ask(target, PLAIN, seconds=0.5)),
        rounds=5,
    ),
    *(
        asked(f"plain requests, {count} clients", PLAIN, requests(), rounds=4, clients=count, seconds=0.5)
        for count in (4, 128, 256)
    ),
    asked(
        "16 streams of 2000 chunks, in writes of 64 kB",
        BURST,
        chunks(AtLeast(0.55)),
        cpu_per_100k(),
        clients=16,
        seconds=1.2,
    ),
    asked(
        "16 streams of 2000 chunks, each written alone",
        SINGLY,
        chunks(AtLeast(0.55)),
        cpu_per_100k(),
        clients=16,
        seconds=1.2,
    ),
    Scenario(
        "16 streams of 2000 chunks, on one WebSocket",
        "Forgeline's own SSE",
        (chunks(AtLeast(1.0)), cpu_per_100k()),
        Ask("forgeline", BURST, clients=16, seconds=1.2),
        Socket(BURST, streams=16, seconds=1.2),
    ),
    Scenario(
        "16 streams of 2000 chunks, from Bedrock",
        "aiobotocore alone",
        (chunks(AtLeast(0.8)), cpu_per_100k()),
        Converse(BEDROCK, clients=16, seconds=1.2),
        Ask("forgeline", BEDROCK, clients=16, seconds=1.2),
    ),
    asked(
        "256 streams, a chunk every 20 ms",
        PACED,
        cpu_per_100k(AtMost(1.6)),
        *first_chunk(AtMost(3.0)),
        silence(),
        clients=256,
        repeats=2,
        ramp=1.0,
        # While the clients begin, fewer than 256 streams are open; each one's second finds all of them.
        unmeasured=1,
        rounds=5,
    ),
    asked("1 stream", FIRST, *first_chunk(AtMost(2.0)), seconds=0.6, rounds=5),
    Scenario(
        "1,000 streams held open, 50 chunks/s in all",
        "bare passthrough",
        (
            Figure("streams that got their first 50 chunks", "", lambda outcome: outcome.answers, AtLeast(1.0)),
            Figure("memory of each", "kB", lambda outcome: outcome.stream_kb, Beyond(18)),
            chunks(Within(0.2), "delivered"),
            *latency(what="a chunk's way"),
        ),
        Hold("passthrough", HELD, streams=1000, seconds=2.5),
        Hold("forgeline", HELD, streams=1000, seconds=2.5),
        rounds=3,
    ),
    asked(
        "4 MB image body, 8 clients",
        PICTURE,
        requests(AtLeast(0.4)),
        peak(Below(250)),
        clients=8,
        seconds=1.2,
    ),
    Scenario(
        "3 models in one request, 32 clients",
        "4 plain requests",
        (cpu_per_1000(AtMost(1.0)), requests()),
        Together(PLAIN_32, 4),
        Ask("forgeline", THREE_AT_ONCE, clients=32, seconds=1.2),
    ),
    Scenario(
        "3 models in one request, the slowest takes 20 ms, 1 client",
        "4 plain requests",
        (added("added to the slowest upstream's own p50", AtMost(1.0)),),
        Added(Ask("forgeline", PLAIN, seconds=0.6), times=4),
        Added(Ask("forgeline", THREE, seconds=1.0)),
    ),
    Scenario(
        "a job's log to 1,000 sockets",
        "bare Tornado, one ready frame to each",
        (chunks(AtLeast(0.8), "deliveries"), cpu_per_100k(what="deliveries")),
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
            peak(Below(100)),
        ),
        Import(),
        Ready(),
        rounds=5,
    ),
)

QUESTIONS = (PLAIN, BURST, SINGLY, PACED, FIRST, HELD, BEDROCK, THREE, THREE_AT_ONCE)
