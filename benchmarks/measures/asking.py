"""Requests over HTTP, to any target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from benchmarks.clients import requests
from benchmarks.effort import Effort
from benchmarks.outcome import Outcome
from benchmarks.targets import Question
from benchmarks.world import World


@dataclass(frozen=True)
class Ask:
    """A closed loop of clients, for so many seconds, or, with `repeats`, so many requests each."""

    target: str
    question: Question
    clients: int = 1
    seconds: float = 0
    repeats: int = 1_000_000
    ramp: float = 0
    unmeasured: int = 0

    def __call__(self, world: World, effort: Effort) -> Outcome:
        target = world.target(self.target)
        asked = target.asked(self.question)
        plan = requests.Plan(
            port=target.served.port,
            path=asked.path,
            body=str(asked.body),
            marker=asked.marker,
            chunks=asked.chunks,
            end=asked.end,
            accept=asked.accept,
            headers=dict(asked.headers),
            watched=world.watched(target.served.pid),
            clients=effort.clients(self.clients),
            seconds=self.seconds * effort.scale,
            repeats=self.repeats,
            ramp=self.ramp * effort.scale,
            unmeasured=self.unmeasured,
        )
        return world.client("clients.requests", plan)


@dataclass(frozen=True)
class Added:
    """What the p50 of one asking is beyond that of the upstream, asked directly at once after it, so many times."""

    asking: Ask
    times: int = 1

    def __call__(self, world: World, effort: Effort) -> Outcome:
        outcome = self.asking(world, effort)
        question = replace(self.asking.question, others=())
        direct = replace(self.asking, target="upstream", question=question)(world, effort)
        added = self.times * (outcome.whole_p50 - direct.whole_p50)
        return msgspec.structs.replace(outcome, added_ms=added)


@dataclass(frozen=True)
class Together:
    """So many requests counted as one."""

    asking: Ask
    times: int

    def __call__(self, world: World, effort: Effort) -> Outcome:
        outcome = self.asking(world, effort)
        return msgspec.structs.replace(outcome, answers=outcome.answers / self.times)
