"""Tokens by other ways than one HTTP answer each: over one WebSocket, in streams that stay open, from Bedrock."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from benchmarks.clients import held, tokens
from benchmarks.effort import Effort
from benchmarks.floors import converse
from benchmarks.outcome import Outcome
from benchmarks.targets import Question, forgeline_body
from benchmarks.world import World

BEFORE = 20  # streams that a process has had when its memory is looked at


@dataclass(frozen=True)
class Socket:
    """Many streams on one WebSocket of Forgeline's."""

    question: Question
    streams: int
    seconds: float

    def __call__(self, world: World, effort: Effort) -> Outcome:
        served = world.target("forgeline").served
        plan = tokens.Plan(
            port=served.port,
            request={"model": self.question.preset, **forgeline_body(self.question)},
            chunks=self.question.chunks,
            watched=world.watched(served.pid),
            streams=effort.clients(self.streams),
            seconds=self.seconds * effort.scale,
        )
        return world.client("clients.tokens", plan)


@dataclass(frozen=True)
class Hold:
    """Streams that stay open, at a process that has had no more than a few before: its memory has no gaps to fill."""

    target: str
    question: Question
    streams: int
    seconds: float

    def __call__(self, world: World, effort: Effort) -> Outcome:
        with world.fresh(self.target) as target:
            asked = target.asked(self.question)
            plan = held.Plan(
                port=target.served.port,
                path=asked.path,
                body=str(asked.body),
                accept=asked.accept,
                marker=asked.marker,
                chunks=asked.chunks,
                watched=world.watched(target.served.pid),
                streams=BEFORE,
                seconds=0,
            )
            world.client("clients.held", plan)  # what is made once, for the first stream, is not what a stream takes
            streams, seconds = effort.clients(self.streams), self.seconds * effort.scale
            return world.client("clients.held", replace(plan, streams=streams, seconds=seconds))


@dataclass(frozen=True)
class Converse:
    """aiobotocore, reading what Forgeline would be sent."""

    question: Question
    clients: int
    seconds: float

    def __call__(self, world: World, effort: Effort) -> Outcome:
        plan = converse.Plan(
            model=self.question.model,
            chunks=self.question.chunks,
            watched=world.watched(0),
            clients=effort.clients(self.clients),
            seconds=self.seconds * effort.scale,
        )
        return world.client("floors.converse", plan, core=world.measured)
