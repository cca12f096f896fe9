"""What is asked, how long, and which figures are drawn from it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.load import Outcome
from benchmarks.targets import Question


@dataclass(frozen=True)
class Effort:
    """How much of it: the whole benchmark stays under two minutes, the quick one under half of one."""

    rounds: int
    scale: float  # of the seconds and repeats of a round


FULL = Effort(rounds=5, scale=1.0)
QUICK = Effort(rounds=2, scale=0.2)


@dataclass(frozen=True)
class Figure:
    """One line of the table. `value` gets a round's outcome, and where there is one that of the upstream itself."""

    label: str
    unit: str
    value: Callable[[Outcome, Outcome], float]
    at_least: float | None = None  # of the floor's
    at_most: float | None = None
    below: float | None = None  # in the figure's own unit, whatever the floor does


@dataclass(frozen=True)
class Scenario:
    name: str
    question: Question
    figures: tuple[Figure, ...]
    clients: int = 1
    seconds: float = 0
    repeats: int = 1_000_000
    ramp: float = 0
    unmeasured: int = 0
    direct: bool = False  # is the upstream asked directly too, in every round?


def rate(outcome: Outcome, _: Outcome) -> float:
    return outcome.answers / outcome.seconds


def chunk_rate(outcome: Outcome, _: Outcome) -> float:
    return outcome.chunks / outcome.seconds


def cpu_per_1000(outcome: Outcome, _: Outcome) -> float:
    return outcome.cpu / outcome.answers * 1000


def cpu_per_100k_chunks(outcome: Outcome, _: Outcome) -> float:
    return outcome.cpu / outcome.chunks * 100_000


def added_p50(outcome: Outcome, direct: Outcome) -> float:
    return outcome.whole_ms[0] - direct.whole_ms[0]


def first_p50(outcome: Outcome, _: Outcome) -> float:
    return outcome.first_ms[0]


def first_p99(outcome: Outcome, _: Outcome) -> float:
    return outcome.first_ms[1]


PLAIN = Question("plain")
PICTURE = Question("plain", picture=True)
BURST = Question("burst-2000", chunks=2000)
SINGLY = Question("burst-2000-by-1", chunks=2000)
PACED = Question("paced-50-20ms", chunks=50)
FIRST = Question("paced-2-2ms", chunks=2)

SCENARIOS = (
    Scenario(
        "plain requests, 32 clients",
        PLAIN,
        (
            Figure("requests", "/s", rate, at_least=0.55),
            Figure("CPU s per 1000 requests", "s", cpu_per_1000, at_most=1.9),
            Figure("latency p50", "ms", lambda outcome, _: outcome.whole_ms[0]),
            Figure("latency p99", "ms", lambda outcome, _: outcome.whole_ms[1]),
        ),
        clients=32,
        seconds=1.3,
    ),
    Scenario(
        "plain requests, 1 client",
        PLAIN,
        (Figure("added to the upstream's own p50", "ms", added_p50, at_most=2.2),),
        seconds=0.6,
        direct=True,
    ),
    Scenario(
        "16 streams of 2000 chunks, in writes of 64 kB",
        BURST,
        (
            Figure("chunks", "/s", chunk_rate, at_least=0.55),
            Figure("CPU s per 100k chunks", "s", cpu_per_100k_chunks),
        ),
        clients=16,
        seconds=1.2,
    ),
    Scenario(
        "16 streams of 2000 chunks, each written alone",
        SINGLY,
        (
            Figure("chunks", "/s", chunk_rate, at_least=0.55),
            Figure("CPU s per 100k chunks", "s", cpu_per_100k_chunks),
        ),
        clients=16,
        seconds=1.2,
    ),
    Scenario(
        "1 stream",
        FIRST,
        (
            Figure("first chunk p50", "ms", first_p50, at_most=2.0),
            Figure("first chunk p99", "ms", first_p99),
        ),
        seconds=0.6,
    ),
    Scenario(
        "4 MB image body, 8 clients",
        PICTURE,
        (
            Figure("requests", "/s", rate, at_least=0.4),
            Figure("peak memory", "MB", lambda outcome, _: outcome.peak_mb, below=250),
        ),
        clients=8,
        seconds=1.3,
    ),
    Scenario(
        "256 streams, a chunk every 20 ms",
        PACED,
        (
            Figure("CPU s per 100k chunks", "s", cpu_per_100k_chunks, at_most=1.6),
            Figure("first chunk p50", "ms", first_p50, at_most=3.0),
            Figure("first chunk p99", "ms", first_p99),
            Figure("longest silence in a stream", "ms", lambda outcome, _: outcome.silence_ms),
        ),
        clients=256,
        repeats=2,
        ramp=1.0,
        # While the clients begin, fewer than 256 streams are open; each one's second finds all of them.
        unmeasured=1,
    ),
)

QUESTIONS = [PLAIN, BURST, SINGLY, PACED, FIRST]
